# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .callers import locals_of_caller

_REMEDY = "give weights of this network, or the settings and configuration files they were trained with"


def accept_only_whole_weights(network: nn.Module) -> None:
    """Let ``network`` take over weights whole or not at all, whoever loads them.

    PyTorch copies what fits and complains afterwards, or never with ``strict=False``; MONAI's ``copy_model_state``, on
    which ``monai.bundle.load`` rests, fills what does not fit with the network's own values first. Here names and
    shapes are compared before anything is copied, and a state that is partly the network's own is refused.

    Args:
        network: refuses with a RuntimeError, as PyTorch does, that names the first weights that do not fit; as a part
            of another module it leaves that to the whole.
    """
    network.register_load_state_dict_pre_hook(_refuse_part)


def _refuse_part(module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
    if prefix:
        return
    own = module.state_dict()
    problems = [*_misfits(own, state_dict), *_left_out(own)]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise RuntimeError(f"the weights do not fit {type(module).__name__}: {shown}. Nothing was loaded: {_REMEDY}.")
    kept = [name for name, value in own.items() if _is_same(value, state_dict[name])]
    untouched = locals_of_caller("monai.networks.utils", "copy_model_state").get("updated_keys", kept) == []
    if kept and (untouched or len(kept) < len(own)):
        raise RuntimeError(
            f"{len(kept)} of the {len(own)} tensors of {type(module).__name__}, such as {kept[0]}, were not among the "
            f"weights or had another shape there. Nothing was loaded: {_REMEDY}."
        )


def _left_out(own: Mapping[str, Any]) -> list[str]:
    """Weights that MONAI's ``copy_model_state`` has left out because the network has no place for them."""
    copying = locals_of_caller("monai.networks.utils", "copy_model_state")
    if any(copying.get(name) for name in ("dst_prefix", "mapping", "exclude_vars", "filter_func")):
        return []  # the caller has chosen
    return [f"{name} has no place" for name in copying.get("src_dict", {}) if name not in own]


def _misfits(own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    missing = [f"{name} is missing" for name in own if name not in given]
    surplus = [f"{name} has no place" for name in given if name not in own]
    shapes = [
        f"{name} is {_size(given[name])} instead of {_size(value)}"
        for name, value in own.items()
        if name in given and _size(given[name]) != _size(value)
    ]
    return shapes + missing + surplus


def _size(value: Any) -> str:
    return "x".join(map(str, value.shape)) or "a number" if isinstance(value, Tensor) else type(value).__name__


def _is_same(one: Any, other: Any) -> bool:
    """Whether two tensors are one in memory."""
    tensors = isinstance(one, Tensor) and isinstance(other, Tensor)
    return tensors and one.data_ptr() != 0 and one.data_ptr() == other.data_ptr()
