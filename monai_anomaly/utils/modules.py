# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from monai.data import MetaTensor
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def unwrap(network: Callable[..., Any]) -> Any:
    """The network inside a DistributedDataParallel wrapper, or the network itself."""
    return network.module if isinstance(network, DistributedDataParallel) else network


def callable_name(function: Callable[..., Any]) -> str:
    """Name of a function, with its arguments where some are bound; the same in every process."""
    if isinstance(function, partial):
        bound = [*map(_argument, function.args), *(f"{k}={_argument(v)}" for k, v in function.keywords.items())]
        return f"{callable_name(function.func)}({', '.join(bound)})"
    return str(getattr(function, "__name__", type(function).__name__))


def _argument(value: Any) -> str:
    return callable_name(value) if callable(value) else repr(value)


def plain_tensor(image: Tensor) -> Tensor:
    """The data of a MetaTensor without its metadata, whose bookkeeping would slow every operation of a network down."""
    return image.as_tensor() if isinstance(image, MetaTensor) else image


def accept_weights_of_wrapper(network: nn.Module, prefix: str) -> None:
    """Let ``network`` load the weights of the module around it too: keys that all begin with ``prefix`` lose it.

    Tools that train a bundle further hand the saved weights of ``network_def`` to the trainer's ``network`` inside it.

    Args:
        network: a submodule of the module whose weights are saved.
        prefix: its name there and a dot.
    """
    network.register_load_state_dict_pre_hook(partial(_strip_prefix, wrapper=prefix))


def _strip_prefix(
    module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *others: Any, wrapper: str = ""
) -> None:
    own = (name for name, _ in (*module.named_parameters(), *module.named_buffers()))
    if prefix or all(name.startswith(wrapper) for name in own):
        return
    if all(key.startswith(wrapper) for key in state_dict):
        for key in list(state_dict):
            state_dict[key.removeprefix(wrapper)] = state_dict.pop(key)
