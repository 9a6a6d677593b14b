# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from torch import fx, nn
from torch.nn.modules.conv import _ConvNd


def read_layers(network: nn.Module, layers: Sequence[str]) -> fx.GraphModule:
    """Make the part of a network that leads to some of its layers, which returns their outputs.

    What lies behind the last layer is neither kept nor computed. The part has the network's own modules, under their
    own names, so that it takes over what it needs of the network's weights. Unlike a network with hooks, it can be
    copied, traced and exported.

    Args:
        network: one tensor in; its code must not decide anything by values or sizes (``torch.fx`` follows it once).
        layers: names of submodules, such as ``"layer1"`` or ``"blocks.4"``; one that runs more than once is read the
            last time.

    Returns:
        a module that returns a list with the output of each layer, in the order of ``layers``.

    Raises:
        ValueError: when there is no such layer, it is not run or does not return a tensor, or the network cannot be
            followed; the message names it.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.blocks import read_layers
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Conv2d(2, 4, 3))
        >>> part = read_layers(network, ["1"])
        >>> len(part(torch.zeros(1, 1, 8, 8))), list(part.state_dict())
        (1, ['0.weight', '0.bias'])
    """
    known = [name for name, _ in network.named_modules() if name]
    unknown = [layer for layer in layers if layer not in known]
    if unknown or not layers:
        raise ValueError(
            f"layers must name submodules of {type(network).__name__}, got {unknown or 'none'}: take some of "
            f"{', '.join(_outer(known))}, or what lies inside them"
        )
    tracer = _Tracer()
    try:
        graph = tracer.trace(network)
    except Exception as error:  # whatever the network's code raises when its sizes have no values
        raise ValueError(
            f"layers of {type(network).__name__} cannot be read, because its code decides by values ({error}): give "
            "FeatureExtractor a network that returns its feature maps itself, and layers=None"
        ) from error
    outputs = []
    for layer in layers:
        output = tracer.outputs.get(layer)
        if not isinstance(output, fx.Proxy):
            raise ValueError(f"layer {layer!r} of {type(network).__name__} is not run, or returns more than a tensor")
        outputs.append(output.node)
    graph.erase_node(graph.output_node())
    graph.output(outputs)
    _copy_where_it_overwrites(graph)
    graph.eliminate_dead_code(lambda node: node.op in {"placeholder", "output"})
    part = fx.GraphModule(network, graph, f"LayersOf{type(network).__name__}")
    for module in part.modules():
        if getattr(module, "inplace", False):
            setattr(module, "inplace", False)  # noqa: B010 - an activation must not overwrite what is read
    return part


class _Tracer(fx.Tracer):
    """Follows a network and remembers what each of its submodules returned."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, Any] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _ConvNd) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        self.outputs[self.path_of_module(m)] = output
        return output


def _copy_where_it_overwrites(graph: fx.Graph) -> None:
    """Turn ``a += b`` into ``a = a + b``, so that what is read stays as it was."""
    for node in graph.nodes:
        if node.target is operator.iadd:
            node.target = operator.add


def _outer(names: Sequence[str]) -> list[str]:
    """Names of the submodules that lie in no other one, or in a list of them."""
    return [name for name in names if name.count(".") == 0 or (name.count(".") == 1 and name[-1].isdigit())][:40]
