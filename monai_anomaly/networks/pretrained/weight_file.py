# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
_COUNTER = "num_batches_tracked"
_NESTED = ("state_dict", "model")  # names under which published files hold their tensors


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a file of weights without running anything that it holds.

    Args:
        path: a dictionary of tensors written by ``torch.save``, or one that has it as ``"state_dict"`` or ``"model"``
            beside other plain values; or a file ``*.safetensors``. A prefix ``module.`` of all names, which parallel
            training leaves, is taken off.

    Returns:
        the tensors by their names, on the CPU.

    Raises:
        ValueError: naming file and remedy, when it is missing, damaged, or holds other objects.
    """
    if not Path(path).is_file():
        raise ValueError(f"weights {path} not found: give the path of the file")
    content: Any
    try:
        content = _safe_tensors(path) if str(path).endswith(".safetensors") else _plain_tensors(path)
    except ImportError:
        raise ValueError(f"weights {path} need the package safetensors: pip install safetensors") from None
    except Exception as error:  # the kinds are many: damaged archives, other formats, objects that are not allowed
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"weights {path} are damaged, or hold objects beside tensors, which are not loaded because they could run "
            f"any code ({reason}): copy the file again, or save its dictionary of tensors alone with torch.save"
        ) from error
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    named = isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())
    if not named or not content:
        raise ValueError(f"weights {path} are no dictionary of tensors, nor hold one as {' or '.join(_NESTED)}")
    shared = "module." if all(name.startswith("module.") for name in content) else ""
    return {name.removeprefix(shared): tensor for name, tensor in content.items()}


def _plain_tensors(path: str | os.PathLike[str]) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _safe_tensors(path: str | os.PathLike[str]) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def take_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    published: Callable[[str], str],
    path: str | os.PathLike[str],
    passed_over: tuple[str, ...] = (),
) -> None:
    """Give a network published weights, whole or not at all.

    Args:
        network: takes them.
        state: the tensors of the file.
        published: name in the file of a tensor, by its name in the network.
        path: the file, for messages.
        passed_over: beginnings of names in the file that the network has no use for, such as those of a classifier.

    Raises:
        ValueError: naming the file and the first tensors that are missing, left over, of another shape, or not finite.
    """
    own = network.state_dict()
    names = {name: published(name) for name in own}
    found = {name: state[names[name]] for name in own if names[name] in state}
    # old files do not count batches, which only matters to a network that learns
    missing = [names[name] for name in own if name not in found and not name.endswith(_COUNTER)]
    surplus = [name for name in state if name not in names.values() and not name.startswith(passed_over or ("\0",))]
    shapes = [
        f"{names[name]} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in found.items()
        if tensor.shape != own[name].shape
    ]
    broken = [names[name] for name, tensor in found.items() if not torch.isfinite(tensor).all()]
    for problem, which in (
        ("lack", missing),
        ("have, without a place for it,", surplus),
        ("have", shapes),
        ("are not finite in", broken),
    ):
        if which:
            more = f" and {len(which) - 3} more" if len(which) > 3 else ""
            raise ValueError(
                f"weights {path} {problem} {', '.join(which[:3])}{more}: they are of another network than "
                f"{type(network).__name__}, or damaged; give the file of this backbone, or the name of its own"
            )
    counters = {name: torch.zeros_like(tensor) for name, tensor in own.items() if name not in found}
    network.load_state_dict(counters | found)


def without_weights(make: Callable[[], Network]) -> Network:
    """Make a network whose weights are NaN, so that nothing scores with it before they are loaded.

    Nothing is drawn at random, which spares the time and leaves the generators of PyTorch alone.

    Args:
        make: makes the network; all its tensors must be weights or statistics that a file of weights has.
    """
    with torch.device("meta"):
        network = make()
    network.to_empty(device="cpu")
    forget_weights(network)
    return network


def forget_weights(network: nn.Module) -> None:
    """Fill the parameters of a network, and the buffers that are saved with them, with NaN, and counters with 0."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
