# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The grammar of ``$`` expressions that a bundle may use; ``expression_problems`` never evaluates anything.

MONAI passes every string that begins with ``$`` to ``eval``. Allowed here, and nothing else:

* references ``@id``, ``@a#b`` (``@a::b``), relative ones too; literals; lists, tuples, dictionaries; indexing, slices;
* ``+ - * / // %``, comparisons, ``and or not``, ``a if c else b``;
* the attributes in ``ATTRIBUTES`` and calls of the methods in ``METHODS``, on any of these;
* calls of the functions in ``FUNCTIONS`` and the values in ``CONSTANTS``, by their full dotted name;
* ``json.load(open(path))``, the only place for ``open``;
* the import statements in ``IMPORTS``, only in the config's ``imports`` list.

So no lambda, comprehension, f-string, assignment, power, star, dunder name, or function as a value.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

REFERENCES = "__local_refs"  # the name by which MONAI hands the resolved items to eval
REFERENCE_PATTERN = re.compile(r"@(?:\w*)(?:::\w*)*")
MAX_LENGTH = 2000

IMPORTS = {
    "import monai": ("monai", "monai"),
    "import monai_anomaly": ("monai_anomaly", "monai_anomaly"),
    "import torch": ("torch", "torch"),
    "import torch.distributed as dist": ("dist", "torch.distributed"),
    "import ignite": ("ignite", "ignite"),
    "import ignite.distributed as idist": ("idist", "ignite.distributed"),
    "import numpy": ("numpy", "numpy"),
    "import numpy as np": ("np", "numpy"),
    "import glob": ("glob", "glob"),
    "import json": ("json", "json"),
    "import os": ("os", "os"),
}
DEFAULT_NAMES = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}  # bound by MONAI itself

_DISTRIBUTED = ("is_available", "is_initialized", "get_rank", "get_world_size")
FUNCTIONS = frozenset(
    {
        "len",
        "min",
        "max",
        "sum",
        "abs",
        "round",
        "int",
        "float",
        "bool",
        "str",
        "list",
        "tuple",
        "dict",
        "range",
        "sorted",
    }
    | {
        "torch.device",
        "torch.cuda.is_available",
        "torch.cuda.device_count",
        "torch.cuda.set_device",
        "torch.manual_seed",
    }
    | {f"torch.distributed.{name}" for name in (*_DISTRIBUTED, "is_nccl_available", "is_gloo_available", "barrier")}
    | {"torch.distributed.init_process_group", "torch.distributed.destroy_process_group"}
    | {f"ignite.distributed.{name}" for name in ("get_rank", "get_local_rank", "get_world_size", "get_nproc_per_node")}
    | {f"ignite.distributed.{name}" for name in ("get_nnodes", "get_node_rank", "backend", "device", "barrier")}
    | {"monai.utils.set_determinism", "monai.handlers.from_engine", "monai.handlers.stopping_fn_from_metric"}
    | {"monai.handlers.stopping_fn_from_loss", "monai.data.load_decathlon_datalist", "monai.data.partition_dataset"}
    | {"glob.glob", "json.load", "os.getenv", "os.environ.get"}
    | {
        f"os.path.{name}"
        for name in ("join", "exists", "isfile", "isdir", "basename", "dirname", "abspath", "splitext")
    }
)
CONSTANTS = frozenset(
    {
        f"torch.{name}"
        for name in ("float16", "float32", "float64", "bfloat16", "uint8", "int32", "int64", "long", "bool")
    }
    | {"torch.channels_last", "torch.channels_last_3d", "torch.contiguous_format"}
    | {f"{package}.__version__" for package in ("monai", "monai_anomaly", "torch", "ignite", "numpy")}
)
METHODS = frozenset(
    {
        "run",
        "initialize",
        "finalize",
        "parameters",
        "named_parameters",
        "state_dict",
        "to",
        "cpu",
        "cuda",
        "eval",
        "train",
    }
    | {"get", "keys", "values", "items", "index", "count", "startswith", "endswith", "lower", "upper", "strip", "split"}
    | {"is_available", "item", "tolist", "size", "dim"}
)
ATTRIBUTES = frozenset(
    {"device", "type", "dtype", "shape", "ndim", "state", "epoch", "iteration", "metrics", "max_epochs", "epoch_length"}
    | {"data", "dataset", "module", "network", "best_metric", "best_metric_epoch", "param_groups"}
)
_KEY = re.compile(r"[A-Za-z0-9][\w .:-]*")
_UNBOUND = " (not imported)"  # marks a root that no import binds
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)
_PLAIN = (ast.Tuple, ast.List, ast.Dict, ast.BoolOp, ast.Compare, ast.IfExp, ast.Subscript, ast.Slice)


def expression_problems(text: str, names: dict[str, str] | None = None) -> list[str]:
    """Say what in a ``$`` expression is outside the grammar of this module; empty when it is inside.

    Args:
        text: the config value, with its leading ``$``.
        names: what each imported name stands for, such as ``{"idist": "ignite.distributed"}``; default is what MONAI
            binds by itself.
    """
    names = DEFAULT_NAMES if names is None else {**DEFAULT_NAMES, **names}
    if len(text) > MAX_LENGTH:
        return [f"it has {len(text)} characters, more than {MAX_LENGTH}"]
    if not text.isascii():
        return ["it has characters outside ASCII, which can disguise a name"]
    try:
        source = substitute_references(text)[1:]
        body = ast.parse(source).body
        tree = ast.parse(source, mode="eval").body if len(body) == 1 else None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [_syntax_message(text, error)]
    if tree is None:
        return ["it must be one expression"]
    try:
        problems = list(_walk(tree, names))
    except RecursionError:
        return ["it is nested too deeply"]
    # a reference inside quotes becomes code that closes the quote, so every one must be a subscript of its own
    if _count_references(tree) != len(REFERENCE_PATTERN.findall(normalize(text))):
        problems.append("a reference inside a quoted text is not replaced as one would think")
    return problems


def import_problem(text: str) -> str | None:
    """Say why a ``$import`` statement is not allowed, or None.

    Args:
        text: the config value, with its leading ``$``.
    """
    statement = text[1:]
    if statement not in IMPORTS:
        return f"{statement!r} is not one of the imports allowed: {', '.join(IMPORTS)}"
    return None


def is_import(text: str) -> bool:
    """Whether MONAI would treat the ``$`` value as an import statement: only its first statement counts."""
    try:
        body = ast.parse(normalize(text[:MAX_LENGTH])[1:]).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text[1:].lstrip().startswith(("import ", "from "))
    return bool(body) and isinstance(body[0], (ast.Import, ast.ImportFrom))


def imported_names(imports: object) -> dict[str, str]:
    """What each name bound by a config's ``imports`` list stands for; statements that are not allowed bind nothing."""
    statements = imports if isinstance(imports, list) else [imports]
    allowed = (IMPORTS[value[1:]] for value in statements if isinstance(value, str) and value[1:] in IMPORTS)
    return dict(allowed)


def references(text: str) -> list[str]:
    """Ids that a config text refers to, each once: all in an expression, else only a whole ``@id``."""
    value = normalize(text)
    found = dict.fromkeys(REFERENCE_PATTERN.findall(value))
    return [item[1:] for item in found if value.startswith("$") or value == item]


def normalize(text: str) -> str:
    """Replace the older separator ``#`` by ``::``, as MONAI does in every text, quoted parts included."""
    return text.replace("#", "::")


def substitute_references(text: str) -> str:
    """Replace references in the way MONAI does before ``eval``: as text, the longest first, inside quotes too."""
    value = normalize(text)
    for item in sorted(set(REFERENCE_PATTERN.findall(value)), key=len, reverse=True):
        value = value.replace(item, f"{REFERENCES}['{item[1:]}']")
    return value


def _walk(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    """Yield what is wrong with ``node`` and the nodes below it."""
    if reference_of(node) is not None:
        if reference_of(node) == "":
            yield "'@' without an id stands for the whole config"
        elif "imports" in str(reference_of(node)).split("::"):
            yield "a reference to 'imports' is a module"
    elif isinstance(node, ast.Constant):
        yield from _check_constant(node)
    elif isinstance(node, ast.Call):
        yield from _check_call(node, names)
    elif isinstance(node, (ast.Attribute, ast.Name)):
        yield from _check_name(node, names)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, _OPERATORS):
        yield from _walk(node.left, names)
        yield from _walk(node.right, names)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub, ast.UAdd)):
        yield from _walk(node.operand, names)
    elif isinstance(node, _PLAIN):
        yield from _check_children(node, names)
    else:
        yield f"{_show(node)} ({type(node).__name__}) is not in the grammar"


def _check_children(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Dict) and None in node.keys:
        yield "'**' in a dictionary is not in the grammar"
    if isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        if not all(isinstance(key, (int, float, str)) and _KEY.fullmatch(str(key)) for key in keys):
            yield "keys must be plain names without a leading '_': others make a component, or a file's name"
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.expr_context, ast.boolop, ast.cmpop)):
            yield from _walk(child, names)


def _check_constant(node: ast.Constant) -> Iterator[str]:
    if isinstance(node.value, (bytes, complex)) or node.value is Ellipsis:
        yield f"a {type(node.value).__name__} literal is not in the grammar"
    if isinstance(node.value, int) and abs(node.value) > 2**63:
        yield f"the number {_show(node)} is too large"


def _check_call(node: ast.Call, names: dict[str, str]) -> Iterator[str]:
    dotted = dotted_name(node.func, names)
    opened = _opened_path(node, dotted)
    if opened is not None:
        yield from _walk(opened, names)
        return
    if dotted is None and isinstance(node.func, ast.Attribute):
        if node.func.attr not in METHODS:
            yield f"the method '{node.func.attr}' is not one of those allowed: {', '.join(sorted(METHODS))}"
        yield from _walk(node.func.value, names)
    elif dotted is None or dotted not in FUNCTIONS or dotted == "json.load":
        missing = f", and nothing binds {dotted.split(_UNBOUND)[0]!r}" if dotted and _UNBOUND in dotted else ""
        yield f"the call of {_show(node.func)} is not allowed{missing}"
    for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
        yield from _walk(argument, names)
    if dotted == "dict" and node.args:
        yield "'dict' with keys that are not written out is not in the grammar"
    if any(keyword.arg is None or keyword.arg.startswith("_") for keyword in node.keywords):
        yield "'**' and names beginning with '_' are not in the grammar"


def _check_name(node: ast.Attribute | ast.Name, names: dict[str, str]) -> Iterator[str]:
    dotted = dotted_name(node, names)
    if dotted is not None:
        if dotted not in CONSTANTS:
            yield f"the name '{dotted}' is neither a value nor a call that is allowed"
    elif isinstance(node, ast.Attribute):
        if node.attr not in ATTRIBUTES:
            yield f"the attribute '{node.attr}' is not one of those allowed: {', '.join(sorted(ATTRIBUTES))}"
        yield from _walk(node.value, names)


def _opened_path(node: ast.Call, dotted: str | None) -> ast.expr | None:
    """``path``, if ``node`` is ``json.load(open(path))`` and nothing more."""
    if dotted != "json.load" or len(node.args) != 1 or node.keywords:
        return None
    inner = node.args[0]
    if not isinstance(inner, ast.Call) or len(inner.args) != 1 or inner.keywords:
        return None
    return inner.args[0] if isinstance(inner.func, ast.Name) and inner.func.id == "open" else None


def dotted_name(node: ast.AST, names: dict[str, str]) -> str | None:
    """The full dotted name of a chain that begins with a bare name, imports resolved, or None.

    A root that nothing binds keeps a mark, because ``glob.glob`` without ``$import glob`` fails at run time.

    Args:
        node: part of an expression.
        names: what each imported name stands for.
    """
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    if parts:
        root = names.get(node.id, node.id + _UNBOUND)
        return ".".join([root, *reversed(parts)])
    return node.id


def parse_expression(text: str) -> ast.expr:
    """The syntax tree of a ``$`` expression, its references replaced as MONAI does.

    Args:
        text: the config value, with its leading ``$``.

    Raises:
        SyntaxError: when it is not one expression; RecursionError or MemoryError when it is nested too deeply.
    """
    if len(text) > MAX_LENGTH:
        raise SyntaxError("it is too long")
    try:
        return ast.parse(substitute_references(text)[1:], mode="eval").body
    except ValueError as error:  # a null byte
        raise SyntaxError(str(error)) from error


def reference_of(node: ast.AST) -> str | None:
    """The id, if ``node`` is what MONAI puts in the place of ``@id``."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == REFERENCES:
        index = node.slice
        return str(index.value) if isinstance(index, ast.Constant) and isinstance(index.value, str) else None
    return None


def _count_references(tree: ast.AST) -> int:
    return sum(reference_of(node) is not None for node in ast.walk(tree))


def _show(node: ast.AST) -> str:
    text = ast.unparse(node)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _syntax_message(text: str, error: BaseException) -> str:
    if text[1:2].isspace():
        return "no space may follow '$': MONAI cannot parse it"
    return f"it cannot be parsed ({type(error).__name__}: {error})"
