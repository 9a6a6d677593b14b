# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Rules about a component that runs another bundle: what it hands over joins that bundle's configuration.

Text that begins with ``$``, ``@`` or ``%`` would be evaluated or resolved there, where no linter has read it. So what
is handed over must be known to be plain: numbers, plain texts, lists of these, paths, devices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from ..build import bundle_files
from ..recipe_names import recipe_names
from .arithmetic import Below, Component, Unknown
from .config_tree import walk
from .finding import Finding
from .known_values import KnownValues, alternatives_of

RUNNERS = ("BundleSteps", "run_steps")
FOLD_RUNNER = "FoldRuns"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_PLAIN_KINDS = ("number", "length", "device", "name", "plain")


def lint_steps(file: str, config: dict[str, Any], names: dict[str, str]) -> Iterator[Finding]:
    """Apply every rule about components that run another bundle.

    Args:
        file: path of the config, relative to the bundle.
        config: the whole config, laid over those below it, macros in place.
        names: what each imported name stands for.
    """
    values = KnownValues(config, names)
    for path, value in walk(config):
        name = str(value.get("_target_", "")).rpartition(".")[2] if isinstance(value, dict) else ""
        if name in RUNNERS:
            yield from _lint_one(file, path, value, values)
        if name == FOLD_RUNNER and not _NAME.fullmatch(str(value.get("run_id", "run_fold"))):
            message = f"{value['run_id']!r} joins the command line of other processes"
            yield Finding("steps", file, f"{path}#run_id", message, "write the id of what a fold runs")


def _lint_one(file: str, path: str, value: dict[str, Any], values: KnownValues) -> Iterator[Finding]:
    bundles = recipe_names()
    if value.get("bundle") not in bundles:
        message = f"the bundle {value.get('bundle')!r} has no recipe in monai_anomaly"
        yield Finding("steps", file, f"{path}#bundle", message, f"write one of {', '.join(bundles)}")
        return
    steps = value.get("steps")
    if not isinstance(steps, dict) or not all(isinstance(step, dict) for step in steps.values()):
        yield Finding("steps", file, f"{path}#steps", "the steps are not written out", "write them as a dictionary")
        return
    tables = {f"{path}#settings": value.get("settings", {})}
    for name, step in steps.items():
        at = f"{path}#steps#{name}"
        tables[f"{at}#settings"] = step.get("settings", {})
        if not _NAME.fullmatch(name) or not all(map(_is_names, alternatives_of(values, step.get("configs"), at))):
            message = f"{step.get('configs')!r} is not shown to be names of configurations"
            yield Finding("steps", file, f"{at}#configs", message, "write a list such as ['train', 'evaluate']")
        yield from _lint_results(file, f"{at}#results", step.get("results", []), values)
    known = _settings_of(value["bundle"])
    for at, table in tables.items():
        yield from _lint_settings(file, at, table, values, known)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and _NAME.fullmatch(item) for item in value)


def _lint_results(file: str, at: str, results: Any, values: KnownValues) -> Iterator[Finding]:
    for result in results if isinstance(results, list) else [results]:
        for found in alternatives_of(values, result, at):
            plain = isinstance(found, str) and not found.startswith("/") and ".." not in found.split("/")
            if not plain and not (isinstance(found, Below) and found.root == "output_dir"):
                message = f"{result!r} is not shown to stay in the run's folders"
                yield Finding(
                    "write", file, at, message, "name a file in the step's folder, or build it from @output_dir"
                )


@cache
def _settings_of(bundle: str) -> frozenset[str]:
    """Top-level settings of a bundle: a workflow has arguments of its own, such as a logging file, which are none."""
    configs = [content for path, content in bundle_files(bundle).items() if path.startswith("configs/")]
    return frozenset(key for config in configs if isinstance(config, dict) for key in config)


def _lint_settings(file: str, at: str, table: Any, values: KnownValues, known: frozenset[str]) -> Iterator[Finding]:
    if not isinstance(table, dict) or "_target_" in table:
        yield Finding("steps", file, at, "the settings are not written out", "write them as a dictionary")
        return
    for key, value in table.items():
        if key not in known:
            message = f"{key!r} is no top-level setting of the other bundle"
            yield Finding("steps", file, f"{at}#{key}", message, "name a setting of the other bundle's README")
        if not all(is_plain(found) for found in alternatives_of(values, value, f"{at}#{key}")):
            message = f"{value!r} is not shown to be plain: the other bundle would evaluate a text that begins with '$'"
            yield Finding("steps", file, f"{at}#{key}", message, "hand over numbers, plain texts, paths or @device")


def is_plain(value: Any) -> bool:
    """Whether a configuration that a value is put into leaves it as it is.

    Args:
        value: one of the alternatives of a :class:`~.known_values.KnownValues`.
    """
    if isinstance(value, str):
        return value[:1] not in ("$", "@", "%")
    if isinstance(value, dict):
        return all(is_plain(key) and not str(key).startswith("_") and is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    return not isinstance(value, Component) and (not isinstance(value, Unknown) or value.kind in _PLAIN_KINDS)
