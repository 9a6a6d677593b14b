# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..metadata import own_problems, schema_problems
from .config_tree import MAX_CONFIG_BYTES, load_strict_json, walk
from .entries import list_entries
from .expressions import DEFAULT_NAMES, IMPORTS, imported_names
from .files import is_run_output, lint_files
from .finding import ERROR, WARNING, Finding
from .ids import bases_of, complete, lint_ids
from .macros import MacroBomb, place_macros
from .paths import lint_paths
from .start_check import CHECK, lint_start
from .steps import lint_steps
from .values import lint_inert, lint_values

METADATA = "configs/metadata.json"
MAX_CONFIGS = 200


def lint_bundle(bundle_dir: str | os.PathLike[str]) -> list[Finding]:
    """Analyze a bundle folder statically: nothing in it is evaluated, resolved, unpickled or imported.

    The rules are in ``files`` (files and weights), ``values`` (targets, expressions, macros, paths), ``paths`` (what is
    written and read), ``steps`` (runs of other bundles), ``start_check`` (what a run begins with), ``ids`` (references,
    MONAI's properties, ids that other programs read) and ``metadata``. Every JSON file is looked at, whether or not a
    standard command would read it; outside ``configs`` it must hold plain data. Of the configurations that runs leave
    below ``runs`` and ``eval`` it is said that they are there, and they may run no more code than those of the bundle.

    Args:
        bundle_dir: folder of the bundle.

    Returns:
        what was found, errors first, then by file.

    Raises:
        ValueError: when ``bundle_dir`` is not a folder.
    """
    root = Path(bundle_dir)
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder: give the bundle's folder, which holds configs/metadata.json")
    root = root.resolve()
    entries = list_entries(root)
    findings = [*entries.findings, *lint_files(root, entries.files)]
    configs: dict[str, Any] = {}
    for name in entries.files:
        path = root / name
        if path.suffix.lower() == ".json":
            findings += _read(path, name, configs) if name.startswith("configs/") else _read_data(path, name, root)
    metadata = configs.pop(METADATA, None)
    if len(configs) > MAX_CONFIGS:
        message = f"more than {MAX_CONFIGS} configurations, of which the rest has not been looked at"
        findings.append(Finding("too-many-files", "configs", "", message, "remove what nobody runs"))
        configs = dict(list(configs.items())[:MAX_CONFIGS])
    for file, config in configs.items():
        for bases in bases_of(file, configs):
            findings += lint_values(file, config, root, complete(file, configs, bases)[0].get("imports"))
            findings += _lint_whole(file, configs, bases)
    findings += lint_ids(configs, metadata)
    if metadata is not None:
        findings += _lint_metadata(metadata, root.name, uses_package=_uses_package(configs))
    return sorted(dict.fromkeys(findings), key=lambda finding: (finding.severity != ERROR, finding.file, finding.path))


def _lint_whole(file: str, configs: dict[str, Any], bases: tuple[str, ...]) -> list[Finding]:
    """Rules about a config as it is run: laid over those below it, whose own findings are left to their files."""
    merged, _ = complete(file, configs, bases)
    names = {**DEFAULT_NAMES, **imported_names(merged.get("imports"))}
    try:
        placed = place_macros(merged, configs)
    except MacroBomb as error:
        return [Finding("macro", file, "", str(error), "write the values that the macros stand for")]
    found = [*lint_paths(file, placed, names), *lint_steps(file, placed, names), *lint_start(file, placed)]
    told = {item.place for base in bases[-1:] if base in configs for item in _lint_whole(base, configs, bases[:-1])}
    return [item for item in found if item.place not in told]


def has_errors(findings: list[Finding]) -> bool:
    """Whether any finding is an error rather than a warning."""
    return any(finding.severity == ERROR for finding in findings)


def _read(path: Path, name: str, configs: dict[str, Any]) -> Iterator[Finding]:
    try:
        content = load_strict_json(path, MAX_CONFIG_BYTES)
    except ValueError as error:
        yield Finding(
            "json", name, "", f"not valid JSON: {error}", "mend the file; NaN and repeated keys are not allowed"
        )
        return
    if isinstance(content, dict):
        configs[name] = content
    else:
        yield Finding("json", name, "", "the top level is not a dictionary", "write a dictionary of ids")


def _read_data(path: Path, name: str, root: Path) -> Iterator[Finding]:
    """JSON elsewhere is data, such as a datalist; ``--config_file`` would take it as a config all the same."""
    try:
        content = load_strict_json(path)
    except ValueError as error:
        yield Finding("json", name, "", f"not valid JSON: {error}", "mend the file")
        return
    live = list(lint_inert(name, content))
    yield from _lint_run_config(name, content, root) if live and is_run_output(Path(name)) else live


def _lint_run_config(name: str, content: Any, root: Path) -> Iterator[Finding]:
    """A run leaves hundreds of live values, paths of this machine among them: one warning for the whole folder."""
    text, remedy = "holds configurations of runs", "leave the folder out of what you distribute"
    yield Finding("run-config", Path(name).parts[0], "", text, remedy, WARNING)
    imports = [f"${statement}" for statement in IMPORTS]  # an overlay has those of the file it is laid over
    yield from (finding for finding in lint_values(name, content, root, imports) if finding.rule != "path")


def _uses_package(configs: dict[str, Any]) -> bool:
    values = (value for config in configs.values() for path, value in walk(config) if path.endswith("_target_"))
    own = (value for value in values if isinstance(value, str) and value.startswith("monai_anomaly."))
    return any(value != CHECK["_target_"] for value in own)  # others need that one, too


def _lint_metadata(metadata: dict[str, Any], folder: str, uses_package: bool) -> Iterator[Finding]:
    for problem in schema_problems(metadata):
        yield Finding("metadata", METADATA, "", problem, "follow MONAI's bundle specification")
    yield from lint_inert(METADATA, metadata)
    for problem in own_problems(metadata) if uses_package else []:
        yield Finding("metadata-own", METADATA, "", problem, "complete the metadata")
    slug = re.sub(r"[^a-z0-9]+", "_", str(metadata.get("name", folder)).lower()).strip("_")
    if slug != folder:
        message = f"name {metadata.get('name')!r} does not spell the folder's name {folder!r}"
        remedy = "use the folder's words, as the Model Zoo does ('Spleen CT segmentation', spleen_ct_segmentation)"
        yield Finding("name-metadata", METADATA, "name", message, remedy, WARNING)
