# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Rules about archives of ``torch.export``: loading one evaluates texts, running one calls by name."""

from __future__ import annotations

import ast
import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .finding import Finding
from .weights import MAX_PICKLE, archive_problem

MAX_GRAPH = 64 * 2**20
MAX_EXPRESSION = 10_000
_COMPILED = (".so", ".dll", ".dylib", ".cpp", ".cubin", ".o", ".a")
#: Constants of these names are unpickled whole.
_OBJECTS = re.compile(r"data/constants/(custom_obj|opaque_obj)_")
_CONFIG = re.compile(r"data/(weights|constants)/[^/]*_config\.json")
_GRAPH = re.compile(r"models/[^/]*\.json")
#: Functions of a graph: operators of PyTorch and the arithmetic of sizes.
_TARGET = re.compile(
    r"torch\.ops\.(aten\.(?!(_?save|_?load|from_file)\b)|prims?\.|higher_order\.)\w+(\.\w+)?|torch\._?sym_\w+|math\.\w+"
    r"|_operator\.(i?add|i?sub|i?mul|truediv|floordiv|mod|neg|pos|pow|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|getitem)"
)
_FUNCTIONS = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Mod", "PythonMod", "Max", "Min", "Abs", "Where"),
        *("FloorDiv", "CleanDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv", "ModularIndexing", "ToFloat", "Identity"),
        *("CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "floor", "ceiling", "And", "Or", "Not"),
        *("Equality", "Unequality", "StrictLessThan", "StrictGreaterThan", "LessThan", "GreaterThan"),
        *("Eq", "Ne", "Lt", "Le", "Gt", "Ge"),
    }
)
_SYMBOL = re.compile(r"[a-z]{1,3}[0-9]{1,9}")
_PARTS = (ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.UnaryOp, ast.USub, ast.Load)
_LARGEST_POWER = 8


def lint_exported_program(path: Path, name: str) -> Iterator[Finding]:
    """An archive of ``torch.export`` holds a graph of operators, sizes as arithmetic, and tensors; nothing else."""
    problem = archive_problem(path, compressed=True)
    if problem is None:
        with zipfile.ZipFile(path) as archive:
            problem = next(_problems(archive), None)
    if problem is not None:
        yield Finding("weights", name, "", problem, "write it with torch.export.save, not compiled")


def _problems(archive: zipfile.ZipFile) -> Iterator[str]:
    # whatever the folder is called that torch puts all into
    entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
    if "archive_format" not in entries:
        yield "not an archive of torch.export"
    if any(name.lower().endswith(_COMPILED) for name in entries):
        yield "holds compiled code"
    for name, entry in entries.items():
        if _OBJECTS.match(name):
            yield f"'{name}' is a pickle"
        if name.startswith("data/") and name.endswith(".pt"):
            problem = _pickle_problem(archive, entry)
            if problem:
                yield f"'{name}' {problem}"
        if _GRAPH.fullmatch(name) or _CONFIG.fullmatch(name):
            yield from _content_problems(archive, entry)


def _content_problems(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[str]:
    if entry.file_size > MAX_GRAPH:
        yield f"a graph of more than {MAX_GRAPH // 2**20} MB"
        return
    try:
        yield from _graph_problems(json.loads(archive.read(entry)))
    except (ValueError, RecursionError, zipfile.BadZipFile):
        yield f"'{entry.filename}' cannot be read"


def _graph_problems(content: Any) -> Iterator[str]:
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if value.get("use_pickle"):
                yield "its tensors are pickles"
            if value.get("guards_code"):
                yield "its guards are code"
            if "expr_str" in value and not is_size(value["expr_str"]):
                yield f"a size is {str(value['expr_str'])[:100]!r}"
            if {"target", "inputs", "outputs"} <= set(value) and not _TARGET.fullmatch(str(value["target"])):
                yield f"its graph calls {str(value['target'])[:100]!r}"
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def is_size(text: Any) -> bool:
    """Whether a text is arithmetic of symbols and numbers, which sympy may evaluate; it gives what it reads to eval.

    Args:
        text: what stands for the size of a tensor.
    """
    if not isinstance(text, str) or len(text) > MAX_EXPRESSION or not text.isascii() or text != text.strip():
        return False
    try:
        tree = ast.parse(text, mode="eval").body
        return _is_size(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_size(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and _is_call(node, node.func.id)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (bool, int, float)) and abs(node.value) < 2**63
    if isinstance(node, ast.Name):
        return bool(_SYMBOL.fullmatch(node.id)) or node.id in ("true", "false")
    return isinstance(node, _PARTS) and all(map(_is_size, ast.iter_child_nodes(node)))


def _is_call(node: ast.Call, name: str) -> bool:
    if not all(word.arg and isinstance(word.value, ast.Constant) and _is_size(word.value) for word in node.keywords):
        return False
    values = [item.value if isinstance(item, ast.Constant) else None for item in node.args]
    if name == "Symbol":
        return len(values) == 1 and isinstance(values[0], str) and bool(_SYMBOL.fullmatch(values[0]))
    if name == "Float" and values and isinstance(values[0], str):
        return len(values) == 1 and bool(re.fullmatch(r"-?[0-9.]{1,40}(e[-+]?[0-9]{1,3})?", values[0]))
    if name == "Pow":  # a small power, or a few characters fill the memory
        powers = [child.value for child in ast.walk(node.args[-1]) if isinstance(child, ast.Constant)]
        small = len(powers) == 1 and isinstance(powers[0], int) and powers[0] <= _LARGEST_POWER
        return len(values) == 2 and small and all(map(_is_size, node.args))
    return name in _FUNCTIONS and all(map(_is_size, node.args))


def _pickle_problem(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> str | None:
    """Say why a file of torch.save in the archive might need code; where torch fails to do without, it takes any."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        data = archive.read(entry)
        with zipfile.ZipFile(io.BytesIO(data)) as inner:
            entries = inner.infolist()
            pickles = [item for item in entries if item.filename.endswith(".pkl")]
            if sum(item.file_size for item in entries) > len(data) or len({i.filename for i in entries}) < len(entries):
                return "unpacks to more than torch.save writes"
            if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl") or len(data) > MAX_PICKLE:
                return "is not one file of torch.save"
            codes = {code.name for code, _, _ in pickletools.genops(inner.read(pickles[0]))}
        unsafe = get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    except Exception as error:  # whatever a damaged or hostile file provokes, the answer is the same
        return f"cannot be analyzed ({type(error).__name__}: {error})"
    if codes & {"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"}:
        return "names what it needs where nobody can read it"
    return f"needs {', '.join(sorted(unsafe))} to be loaded" if unsafe else None
