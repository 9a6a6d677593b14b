# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_anomaly.bundle.lint.exported import is_size, lint_exported_program


class Twice(torch.nn.Module):
    """A network whose graph holds the size of its input."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image, image * image.shape[0]]) + self.shift

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.ones(2))


@pytest.fixture
def program(tmp_path: Path) -> Path:
    shapes = ({0: torch.export.Dim("n", min=2, max=64)},)
    exported = torch.export.export(Twice(), (torch.ones(3, 2),), dynamic_shapes=shapes)
    torch.export.save(exported, str(tmp_path / "a.pt2"))
    return tmp_path / "a.pt2"


def problems(path: Path) -> list[str]:
    return [finding.message for finding in lint_exported_program(path, path.name)]


def changed(path: Path, ending: str, change: Callable[[bytes], bytes]) -> Path:
    """Another program, one of whose entries is changed."""
    other = path.with_name("b.pt2")
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as written:
        for name in archive.namelist():
            data = archive.read(name)
            written.writestr(name, change(data) if name.endswith(ending) else data)
    return other


def edited(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Another program, whose graph is changed."""

    def edit(data: bytes) -> bytes:
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return changed(path, "models/model.json", edit)


def test_what_torch_writes_is_accepted(program: Path) -> None:
    assert problems(program) == []


@pytest.mark.parametrize("text", ["__import__('os').system('id')", "s0.func", "Symbol('__x')", "f'{s0}'", 3, None])
def test_a_size_that_is_code(program: Path, text: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        content["graph_module"]["graph"]["tensor_values"]["image"]["sizes"][0]["as_expr"]["expr_str"] = text

    assert problems(edited(program, change)) == [f"a size is {str(text)!r}"]


@pytest.mark.parametrize(
    "target", ["torch.os.system", "torch.ops.aten.save.default", "torch.ops.other.run", "_operator.methodcaller", "x"]
)
def test_a_graph_that_calls_something_else(program: Path, target: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content["graph_module"]["graph"]["nodes"][0]["target"] = target

    assert problems(edited(program, change)) == [f"its graph calls {target!r}"]


def test_guards_that_are_code(program: Path) -> None:
    assert problems(edited(program, lambda content: content.update(guards_code=["1"]))) == ["its guards are code"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_inputs(program: Path, protocol: int) -> None:
    stream = io.BytesIO()
    torch.save({"a": os.system}, stream, pickle_protocol=protocol)
    (problem,) = problems(changed(program, "sample_inputs/model.pt", lambda data: stream.getvalue()))
    assert problem.startswith("'data/sample_inputs/model.pt' ")
    (problem,) = problems(changed(program, "sample_inputs/model.pt", lambda data: b"\x80\x02}."))
    assert "cannot be analyzed" in problem


def test_weights_that_are_pickles(program: Path) -> None:
    other = changed(
        program, "weights_config.json", lambda data: data.replace(b'"use_pickle": false', b'"use_pickle": 1')
    )
    assert problems(other) == ["its tensors are pickles"]


@pytest.mark.parametrize("name", ["data/constants/opaque_obj_0", "data/constants/custom_obj_0", "data/x.so"])
def test_entries_that_are_code(program: Path, name: str) -> None:
    with zipfile.ZipFile(program, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/{name}", b"\x80\x02}.")
    assert len(problems(program)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s77', positive=True, integer=True)",
        "Mul(Integer(256), Symbol('s61', positive=True, integer=True))",
        "Add(Integer(-1), Pow(Symbol('s0', integer=True), Integer(2)))",
        "FloorDiv(Symbol('u0', integer=True), Integer(2))",
        "Max(Integer(1), Mod(Symbol('s0'), Integer(2)))",
        "Float('1.5', precision=53)",
        "2*s0 + s1 // 3 - (s0 % 2)",
    ],
)
def test_sizes(text: str) -> None:
    assert is_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s0; s1",
        "eval('1')",
        "Symbol('s0').name",
        "Symbol('s0', x='y')",
        "Symbol(s0)",
        "Float('exit()')",
        "Integer('exit()')",
        "Pow(Integer(10), Integer(99999999))",
        "Pow(Integer(2), Pow(Integer(9), Integer(9)))",
        "s0 ** s0",
        "lambda: 1",
        "[s0]",
        "Add(*s0)",
        "9" * 40,
        "(" * 3000 + "1" + ")" * 3000,
        "-" * 9000 + "1",
    ],
    ids=lambda text: text[:30],
)
def test_texts_that_are_no_sizes(text: str) -> None:
    assert not is_size(text)
