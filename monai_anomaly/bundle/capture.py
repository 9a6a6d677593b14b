# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""A map network as a graph of plain operators, from which every file format is written."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

aten = torch.ops.aten


def capture(network: nn.Module, example: Tensor) -> fx.GraphModule:
    """Trace a network to the operators that it runs, for any number of images.

    What the network decides from its buffers, such as which members of an ensemble have been trained, is decided now;
    a gradient that it takes becomes the operators that make it.

    Args:
        network: one tensor in, one tensor out, in evaluation mode and on the CPU.
        example: images (B, C, *S) with two or more of them; all axes but the first keep their size.

    Returns:
        a module of the same weights, which calls operators of ATen alone.
    """
    state = {name: tensor.detach() for name, tensor in [*network.named_parameters(), *network.named_buffers()]}
    state = {name: tensor for name, tensor in state.items() if not _is_switch(tensor)}
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    dynamic: Any = StatelessSymbolicContext(
        dynamic_sizes=[DimDynamic.DYNAMIC, *[DimDynamic.STATIC] * (example.ndim - 1)]
    )
    images = mode.from_tensor(example, symbolic_context=dynamic)

    def run(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(network, weights, (image,))
        return output.detach()

    table = {aten.convolution_backward.default: _gradient_of_convolution}
    fake = {name: mode.from_tensor(tensor, static_shapes=True) for name, tensor in state.items()}
    with enable_python_dispatcher():
        graph = make_fx(run, decomposition_table=table, tracing_mode="real", _allow_non_fake_inputs=True)(fake, images)
    return _hold(graph, list(state.values()))


def switches(network: nn.Module) -> dict[str, Any]:
    """Values of the flags and counts that a captured network has fixed, by their names."""
    buffers = {name: tensor for name, tensor in network.named_buffers() if _is_switch(tensor)}
    return {name: tensor.tolist() for name, tensor in buffers.items() if not name.endswith("num_batches_tracked")}


def _is_switch(tensor: Tensor) -> bool:
    """Whether a buffer says what is run, not with what: flags and counts, which are asked for their value."""
    return tensor.dtype == torch.bool or (tensor.ndim == 0 and not tensor.is_floating_point())


def _gradient_of_convolution(
    gradient: Tensor,
    image: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> Any:
    """Gradient with respect to the image alone, as a convolution, which formats without gradients have as well."""
    if output_mask[1] or output_mask[2]:
        return NotImplemented
    axes = image.ndim - 2
    stride, padding, dilation = (
        list(values) * (axes if len(values) == 1 else 1) for values in (stride, padding, dilation)
    )
    extra = [0] * axes
    if not transposed:
        least = [
            (size - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1
            for i, size in enumerate(gradient.shape[2:])
        ]
        extra = [size - small for size, small in zip(image.shape[2:], least, strict=True)]
    found = aten.convolution(gradient, weight, None, stride, padding, dilation, not transposed, extra, groups)
    return found, None, None


def _hold(graph: fx.GraphModule, weights: list[Tensor]) -> fx.GraphModule:
    """Turn the graph's first inputs, the weights, into buffers of its own."""
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for index, (node, tensor) in enumerate(zip(inputs, weights)):  # noqa: B905 - the image is left over
        if node.users:
            graph.register_buffer(f"weight_{index}", tensor.clone())
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.get_attr(f"weight_{index}"))
        graph.graph.erase_node(node)
    graph.graph.set_codegen(fx.graph.CodeGen())  # takes the image alone, no longer a dictionary as well
    result = graph.graph.output_node()
    (found,) = result.all_input_nodes
    result.args = (found,)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def scripted(graph: fx.GraphModule) -> torch.jit.ScriptModule:
    """TorchScript of a captured graph."""
    plain = fx.Graph()
    plain.output(plain.graph_copy(graph.graph, {}))
    for node in plain.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket  # TorchScript knows operators by their names alone
        node.kwargs = {name: _scriptable(value) for name, value in node.kwargs.items()}
    return torch.jit.script(fx.GraphModule(graph, plain))


def _scriptable(value: Any) -> Any:
    return value.type if isinstance(value, torch.device) else value
