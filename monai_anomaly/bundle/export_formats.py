# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""How a captured network is written to a file of each format, and asked when it is read again."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.data import save_net_with_metadata
from torch import Tensor, fx

from .capture import scripted

FORMATS = {"torchscript": ".ts", "onnx": ".onnx", "pt2": ".pt2"}
MapOf = Callable[[Tensor], Tensor]
_ONNX_LIMIT = 2**31
_INSTALL = 'pip install "monai-anomaly[onnx]"'


def read_exported(path: Path) -> MapOf:
    """What turns images into maps, by an exported file.

    Args:
        path: a file whose name ends as one of :data:`FORMATS` does.

    Raises:
        ValueError: when the name ends otherwise.
    """
    for format, suffix in FORMATS.items():
        if path.suffix == suffix:
            return _READERS[format](path)
    raise ValueError(f"the name of an exported file ends in one of {tuple(FORMATS.values())}, got {path.name}")


def _program(graph: fx.GraphModule, example: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(graph, (example,), dynamic_shapes=({0: batch},), strict=False)


def _write_torchscript(graph: fx.GraphModule, example: Tensor, path: Path, documents: dict[str, Any]) -> None:
    metadata = documents.pop("metadata.json")
    others = {name: json.dumps(content).encode() for name, content in documents.items()}
    save_net_with_metadata(scripted(graph), str(path), meta_values=metadata, more_extra_files=others)


def _read_torchscript(path: Path) -> MapOf:
    module: MapOf = torch.jit.load(str(path), map_location="cpu")
    return module


def _write_pt2(graph: fx.GraphModule, example: Tensor, path: Path, documents: dict[str, Any]) -> None:
    texts = {name: json.dumps(content) for name, content in documents.items()}
    torch.export.save(_program(graph, example), str(path), extra_files=texts)


def _read_pt2(path: Path) -> MapOf:
    module: MapOf = torch.export.load(str(path)).module()
    return module


def _write_onnx(graph: fx.GraphModule, example: Tensor, path: Path, documents: dict[str, Any]) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401 - PyTorch's exporter needs it
    except ImportError as error:
        raise ValueError(f"ONNX needs the packages onnx and onnxscript: {_INSTALL}") from error
    if sum(tensor.numel() * tensor.element_size() for tensor in graph.buffers()) > _ONNX_LIMIT:
        raise ValueError("the weights are more than the 2 GB that a file of ONNX holds: use the format pt2")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells which other packages are not there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _program(graph, example),
            (),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=["anomaly_map"],
        )
    assert program is not None
    model = program.model_proto
    del model.graph.value_info[:]  # shapes inside, by symbols that say nothing
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.helper.set_model_props(model, {name: json.dumps(content) for name, content in documents.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _read_onnx(path: Path) -> MapOf:
    """ONNX Runtime where it is installed, else the slow evaluator that comes with ONNX."""
    try:
        from onnxruntime import InferenceSession

        session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(str(path))
    return lambda images: torch.from_numpy(session.run(None, {"image": images.numpy()})[0])


_Writer = Callable[[fx.GraphModule, Tensor, Path, dict[str, Any]], None]
WRITERS: dict[str, _Writer] = {"torchscript": _write_torchscript, "onnx": _write_onnx, "pt2": _write_pt2}
_READERS: dict[str, Callable[[Path], MapOf]] = {"torchscript": _read_torchscript, "onnx": _read_onnx, "pt2": _read_pt2}
