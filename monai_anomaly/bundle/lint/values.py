# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Rules about single values in a config file, told without evaluating or resolving any."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from .config_tree import split, split_file, walk
from .expressions import expression_problems, import_problem, imported_names, is_import
from .files import PARENT, PERSONAL_PATH, URL
from .finding import Finding
from .targets import FETCHING, collides_with_core, fetches_unless_told, target_problem

_KEY = re.compile(r"\+?[A-Za-z0-9_]+((#|::)[A-Za-z0-9_]+)*")
_ABSOLUTE = re.compile(r"(/(?!workspace/|$)[\w.-]+|~|[A-Za-z]:[\\/])")
_LOCATED = ("reader", "writer", "merger_cls")  # arguments that MONAI hands to pydoc.locate and then calls
_LOCATED_NAMES = (
    *("itkreader", "nibabelreader", "nrrdreader", "numpyreader", "pilreader", "pydicomreader"),
    *("itkwriter", "nibabelwriter", "pilwriter", "avgmerger"),
)

Place = tuple[str, str]  # file, config id


def lint_values(file: str, config: Any, root: Path, imports: Any = None) -> Iterator[Finding]:
    """Apply every rule about single values.

    Args:
        file: path of the config, relative to the bundle.
        config: its content.
        root: folder of the bundle.
        imports: the list ``imports`` that holds when the config is run, perhaps from its base config; default is none.
    """
    names = imported_names(imports)
    for path, value in walk(config):
        place = (file, path)
        if isinstance(value, dict):
            yield from _lint_keys(place, value)
            yield from _lint_defaults(place, value)
        key = split(path)[-1]
        if key in _KEY_RULES:
            yield from _KEY_RULES[key](place, value)
        if isinstance(value, str):
            yield from _lint_text(place, value, names, root)


def lint_inert(file: str, metadata: Any) -> Iterator[Finding]:
    """Metadata joins the config as ``_meta_``, so an expression, macro or target in it would be live too.

    Args:
        file: path of the file, relative to the bundle.
        metadata: its content.
    """
    for path, value in walk(metadata):
        if isinstance(value, str) and value[:1] in ("$", "@", "%"):
            remedy = "begin the text with another character"
            yield Finding("live-data", file, path, f"{value[:60]!r} would be evaluated or resolved", remedy)
        if isinstance(value, dict) and "_target_" in value:
            yield Finding("live-data", file, path, "'_target_' would be instantiated", "remove it")


def _lint_keys(place: Place, value: dict[str, Any]) -> Iterator[Finding]:
    """A relative reference pastes the keys above it into its expression, so a key must not carry code."""
    for key in value:
        if not key.isascii() or not _KEY.fullmatch(key):
            yield Finding("key", *place, f"key {key!r}", "use letters, digits and underscores")
        if key == "_debug_":
            yield Finding("mode", *place, "'_debug_' starts a debugger", "remove it")


def _lint_target(place: Place, value: Any) -> Iterator[Finding]:
    problem = target_problem(value)
    if problem is not None:
        remedy = "write the full dotted path of a class or function of monai, monai_anomaly, torch or ignite"
        yield Finding("target", *place, problem, remedy)
    elif collides_with_core(value):
        yield Finding("target-collision", *place, f"MONAI has a class named like {value!r}", "rename the class")


def _lint_defaults(place: Place, value: dict[str, Any]) -> Iterator[Finding]:
    target = value.get("_target_")
    if isinstance(target, str) and target_problem(target) is None:
        name = fetches_unless_told(target, value)
        if name is not None:
            yield Finding("download", *place, f"without '{name}', {target!r} fetches weights", f"set '{name}' to false")


def _lint_mode(place: Place, value: Any) -> Iterator[Finding]:
    if value not in ("default", "callable"):
        yield Finding("mode", *place, f"'_mode_' is {value!r}", "use 'default' or 'callable': others start a debugger")


def _lint_located(place: Place, value: Any) -> Iterator[Finding]:
    remedy = "name a reader, writer or merger of MONAI, or make it a component with its own _target_"
    for name in value if isinstance(value, list) else [value]:
        if not isinstance(name, str):
            continue
        problem = None if name.lower() in _LOCATED_NAMES else target_problem(name)
        if problem is not None:
            yield Finding("target", *place, f"MONAI locates and calls what is named here; {problem}", remedy)


def _lint_fetching(place: Place, value: Any) -> Iterator[Finding]:
    if value not in (False, None) and not isinstance(value, dict):
        remedy = "set it to false and put the weights into the bundle"
        yield Finding("download", *place, f"{value!r} may fetch files from the network", remedy)


def _lint_pickle(place: Place, value: Any) -> Iterator[Finding]:
    if value not in (False, None):
        yield Finding("pickle", *place, f"{value!r} lets a data file run code", "set it to false")


def _lint_weights_only(place: Place, value: Any) -> Iterator[Finding]:
    if value is not True:
        yield Finding("pickle", *place, f"{value!r} lets a checkpoint run code", "set it to true")


_KEY_RULES: dict[str, Callable[[Place, Any], Iterator[Finding]]] = {
    "_target_": _lint_target,
    "_mode_": _lint_mode,
    "allow_pickle": _lint_pickle,
    "weights_only": _lint_weights_only,
    **dict.fromkeys(_LOCATED, _lint_located),
    **dict.fromkeys(FETCHING, _lint_fetching),
}


def _lint_text(place: Place, value: str, names: dict[str, str], root: Path) -> Iterator[Finding]:
    if value.startswith("$"):
        yield from _lint_expression(place, value, names)
    elif value.startswith("%"):
        yield from _lint_macro(place, value, root)
    elif _ABSOLUTE.match(value):
        remedy = "write it relative to @bundle_root, or below /workspace as a place to be overridden"
        yield Finding("path", *place, f"absolute path {value!r}", remedy)
    if PARENT.search(value) and not value.startswith("%"):
        remedy = "name what lies below @bundle_root, @dataset_dir or @output_dir"
        yield Finding("path", *place, f"{value!r} goes up and out of its folder", remedy)
    if URL.match(value) or (value.startswith("$") and URL.search(value)):
        yield Finding("download", *place, f"{value!r} is an address on the network", "ship the file in the bundle")
    if PERSONAL_PATH.search(value) and not _ABSOLUTE.match(value):
        yield Finding("path", *place, f"personal path in {value!r}", "write a path relative to the bundle")


def _lint_expression(place: Place, value: str, names: dict[str, str]) -> Iterator[Finding]:
    if is_import(value):
        problem = import_problem(value)
        if problem is None and split(place[1])[0] != "imports":
            problem = f"{value[1:]!r} stands outside the list 'imports'"
        if problem is not None:
            yield Finding("import", *place, problem, "use only what the linter's IMPORTS list holds, under 'imports'")
        return
    for problem in expression_problems(value, names):
        remedy = "use the small grammar (monai_anomaly.bundle.lint.expressions), or a component with a _target_"
        yield Finding("expression", *place, f"in {value!r}: {problem}", remedy)


def _lint_macro(place: Place, value: str, root: Path) -> Iterator[Finding]:
    """A macro reads another file; only JSON below ``configs/`` is linted, so only that may be read."""
    name, _ = split_file(value[1:])
    if name is None:
        return
    path = PurePosixPath(name)
    inside = not path.is_absolute() and ".." not in path.parts and "\\" not in name and path.parts[:1] == ("configs",)
    if not inside or not name.endswith(".json") or not re.fullmatch(r"[A-Za-z0-9_./-]+", name):
        remedy = "name a JSON file below configs/, such as '%configs/train.json#network_def'"
        yield Finding("macro", *place, f"{value!r} reads a file outside configs/", remedy)
    elif not (root / path).is_file():
        yield Finding("macro", *place, f"{value!r} reads a file that does not exist", "add the file")
