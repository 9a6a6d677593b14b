# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Rules about paths: what writes stays below the run's folders, what reads below them, the data set or the bundle.

A path passes when it can be shown to stay inside, whatever folders the user chooses: built from ``@output_dir``,
``@ckpt_dir``, ``@bundle_root`` or ``@dataset_dir`` by ``os.path.join``, or by ``+`` and a text that begins with ``/``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

from .arithmetic import Below, Component, TooLarge, Unknown
from .config_tree import split, walk
from .expressions import dotted_name, is_import, parse_expression
from .files import EXECUTABLE, PARENT, URL
from .finding import Finding
from .known_values import KnownValues, alternatives_of
from .targets import parameters, target_problem

Place = tuple[str, str]  # file, config id

#: Folders in the bundle that a run may write into.
RUN_FOLDERS = ("runs", "eval", "models", "output", "outputs", "logs", "results")
#: Arguments that are folders, or files, to be written; all other arguments that are paths are read.
WRITTEN = re.compile(r"((output|save|log|cache|ckpt)_?(dir|path|file|folder)|dirname)")
#: Arguments of MONAI and Ignite that are read, or are a part of a file's name.
READ = ("load_path", "data_list_file_path", "base_dir")
NAME_PARTS = (
    *("filename", "file_prefix", "filename_prefix", "filename_suffix", "filename_pattern", "final_filename"),
    *("key_metric_filename", "key_metric_name", "score_name", "output_postfix", "output_ext", "ext", "comment"),
)
#: By which SaveImage builds its own paths, a transform is called with many arguments, a compiler with any options.
_FIXED = ("folder_layout", "output_name_formatter", "data_root_dir", "unpack_items", "compile_kwargs", "patch_index")
_PATH_NAME = re.compile(r"(^|_)(dir|paths?|files?|folder)$")
_PLACEHOLDER = re.compile(r"/workspace(/|$)")
_ENVIRONMENT = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
_BACKENDS = ("nccl", "gloo", "mpi", "ucc")
#: Kinds of unknown values that are no text, or one that the user chose; plain texts are whatever weights say.
_NOT_A_PATH = ("number", "length", "device", "name")
_INSIDE = "build it from @output_dir, as in \"$os.path.join(@output_dir, 'maps')\""


def lint_paths(file: str, config: dict[str, Any], names: dict[str, str]) -> Iterator[Finding]:
    """Apply every rule about paths, and about calls in expressions that read or connect.

    Args:
        file: path of the config, relative to the bundle.
        config: the whole config, laid over those below it, macros in place.
        names: what each imported name stands for.
    """
    values = KnownValues(config, names)
    yield from _lint_roots(file, config, values)
    for path, value in walk(config):
        place = (file, path)
        if isinstance(value, dict):
            yield from _lint_written(place, value, values)
            if isinstance(value.get("_target_"), str) and target_problem(value["_target_"]) is None:
                yield from _lint_component(place, value, values)
        elif isinstance(value, str) and value.startswith("$") and not is_import(value):
            yield from _lint_expression(place, value, values, names)


def _lint_roots(file: str, config: dict[str, Any], values: KnownValues) -> Iterator[Finding]:
    """Where the folders of a run are unless the user says otherwise."""
    root = config.get("bundle_root", ".")
    if root != "." and not (isinstance(root, str) and _PLACEHOLDER.match(root) and not PARENT.search(root)):
        remedy = "write '.': the folder in which the bundle is run"
        yield Finding("path", file, "bundle_root", f"the bundle's own folder is {root!r}", remedy)
    for name, is_inside in (("output_dir", _is_run_folder), ("dataset_dir", _is_readable)):
        if name in config:
            try:
                found = values.defined(name)
            except TooLarge:  # said where the expression is, if it is one; references alone have nobody to say it
                found = (Unknown(),)
            if not all(is_inside(item) for item in found):
                remedy = "put it below @bundle_root, such as \"$os.path.join(@bundle_root, 'runs')\""
                yield Finding("path", file, name, f"{config[name]!r} is or may be outside the bundle", remedy)


def _is_run_folder(value: Any) -> bool:
    """Whether a value is a folder in the bundle that a run may write into, or nothing."""
    if isinstance(value, str):
        if _PLACEHOLDER.match(value):
            return not PARENT.search(value)
        parts = tuple(part for part in value.split("/") if part not in ("", "."))
        value = Below("bundle_root", parts) if not value.startswith(("/", "~")) else None
        return value is not None and ".." not in parts and _is_run_folder(value)
    if isinstance(value, Below):
        own = value.root == "bundle_root" and value.parts[:1] in {(name,) for name in RUN_FOLDERS}
        return value.root == "output_dir" or own
    return value is None or value is False


def _is_written_inside(value: Any) -> bool:
    return _is_run_folder(value) and not (isinstance(value, str) and _PLACEHOLDER.match(value))


def _is_readable(value: Any) -> bool:
    """Whether a value is a path below the run's folders, the data set or the bundle, or no path at all."""
    if isinstance(value, str):
        return (not value.startswith(("/", "~", "\\")) or bool(_PLACEHOLDER.match(value))) and not (
            PARENT.search(value) or URL.search(value) or re.match(r"[A-Za-z]:[\\/]", value)
        )
    if isinstance(value, (list, dict)):
        return all(_is_readable(item) for item in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, Unknown) or value.kind in _NOT_A_PATH


def _is_name(value: Any) -> bool:
    """Whether a value can be a part of a file's name that neither leaves the folder nor makes the file code."""
    if isinstance(value, Unknown):
        return value.kind in _NOT_A_PATH
    if not isinstance(value, str):
        return not isinstance(value, (Below, Component))
    ending = "." + value.rpartition(".")[2].lower()
    return not re.search(r"[/\\\x00]", value) and value not in (".", "..") and ending not in EXECUTABLE


def _lint_written(place: Place, value: dict[str, Any], values: KnownValues) -> Iterator[Finding]:
    """Everything that has the name of a folder to be written, in a component or for one to refer to."""
    for key, child in value.items():
        name = split(key.lstrip("+"))[-1]
        top = not place[1] and name in ("output_dir", "bundle_root")  # these are looked after above
        if WRITTEN.fullmatch(name) and not top:
            at = f"{place[1]}#{key}" if place[1] else key
            for found in alternatives_of(values, child, at):
                if not _is_written_inside(found):
                    message = f"{child!r} is not shown to stay in the run's folders"
                    yield Finding("write", place[0], at, message, _INSIDE)


def _lint_component(place: Place, value: dict[str, Any], values: KnownValues) -> Iterator[Finding]:
    target = value["_target_"]
    yield from _lint_tacit(place, target, value)
    for key, child in value.items():
        at = f"{place[1]}#{key}" if place[1] else key
        if key in NAME_PARTS:
            rule: Callable[[Any], bool] = _is_name
            message, remedy = "is not shown to be a part of a data file's name", "write a plain name without a slash"
        elif key in _FIXED:
            rule, message, remedy = _is_nothing, "can lead out of what has been checked", "leave it out"
        elif is_path(target, key) and not WRITTEN.fullmatch(key):
            rule, message = _is_readable, "is not shown to stay in the bundle, its data set or its run"
            remedy = "build it with os.path.join from @bundle_root, @dataset_dir or @output_dir"
        else:
            continue
        if not all(rule(found) for found in alternatives_of(values, child, at)):
            yield Finding("path", place[0], at, f"{child!r} {message}", remedy)


def is_path(target: str, name: str) -> bool:
    """Whether an argument of an allowed target is a path: by its name, in this package by its annotation, too.

    Args:
        target: full name of a class or function.
        name: name of the argument.
    """
    if WRITTEN.fullmatch(name) or name in READ:
        return True
    parameter = parameters(target).get(name) if target.startswith("monai_anomaly.") else None
    if parameter is None or "bool" in str(parameter.annotation):
        return False
    return "Path" in str(parameter.annotation) or _PATH_NAME.search(name) is not None


def _lint_tacit(place: Place, target: str, value: dict[str, Any]) -> Iterator[Finding]:
    """Paths that a config leaves out: a default in the working folder, or what a later call fills in."""
    for name, parameter in parameters(target).items():
        if value.get(name) is not None or parameter.kind == parameter.VAR_KEYWORD:
            continue
        own = isinstance(parameter.default, str) or target.endswith(".SummaryWriter")
        if WRITTEN.fullmatch(name) and own and value.get("summary_writer") is None:
            message = f"without '{name}', {target.rsplit('.', 1)[1]} writes into the working folder"
            yield Finding("write", *place, message, f"give '{name}': {_INSIDE}")
        elif value.get("_mode_") == "callable" and (is_path(target, name) or name in NAME_PARTS):
            message = f"'{name}' is left to whoever calls {target!r} later, with a path that nobody has checked"
            yield Finding("path", *place, message, f"give '{name}', or leave out '_mode_'")


def _is_nothing(value: Any) -> bool:
    return value in (None, "", False)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value: lists and dictionaries of an expression may become the items of a data set."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _lint_expression(place: Place, text: str, values: KnownValues, names: dict[str, str]) -> Iterator[Finding]:
    try:
        found = values.of(text, place[1])
        tree = parse_expression(text)
    except TooLarge as error:
        yield Finding("expression", *place, f"in {text[:200]!r}: {error}", "write the value that it stands for")
        return
    except (SyntaxError, RecursionError, MemoryError):
        return  # the rule 'expression' has said so
    for value in dict.fromkeys(item for alternative in found for item in _texts(alternative)):
        if URL.search(value) or not _is_readable(value):
            rule = "download" if URL.search(value) else "path"
            remedy = "ship the file in the bundle and build its path from @bundle_root"
            yield Finding(rule, *place, f"{text!r} gives {value[:200]!r}", remedy)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _lint_call(place, node, values, names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PARENT.search(node.value):
            yield Finding("path", *place, f"{node.value[:200]!r} goes up and out of its folder", _READ_INSIDE)


def _lint_call(place: Place, node: ast.Call, values: KnownValues, names: dict[str, str]) -> Iterator[Finding]:
    """Calls that read files or the environment, or connect: only with arguments that are known to be harmless."""
    name = dotted_name(node.func, names) or ""
    rule = _CALL_RULES.get(name)
    if rule is None:
        return
    is_fine, remedy = rule
    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
    checked = arguments if name.endswith(("init_process_group", "load_decathlon_datalist")) else arguments[:1]
    for argument in checked:
        try:
            found = values.node(argument, place[1])
        except TooLarge:
            found = (Unknown(),)
        if not all(is_fine(value) for value in found):
            message = f"the argument {ast.unparse(argument)[:100]!r} of {name}"
            yield Finding("call", *place, message.replace("__local_refs", "@"), remedy)


_READ_INSIDE = "read from below @bundle_root, @dataset_dir or @output_dir, by os.path.join"
_CALL_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "open": (_is_readable, _READ_INSIDE),
    "glob.glob": (_is_readable, _READ_INSIDE),
    "monai.data.load_decathlon_datalist": (_is_readable, _READ_INSIDE),
    "os.getenv": (lambda value: value in _ENVIRONMENT, f"ask only for {', '.join(_ENVIRONMENT)}"),
    "os.environ.get": (lambda value: value in _ENVIRONMENT, f"ask only for {', '.join(_ENVIRONMENT)}"),
    "torch.distributed.init_process_group": (lambda value: value in _BACKENDS, "give the backend alone"),
}
