# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What every bundle does first: refuse mistyped options and paths elsewhere, and let an error end with its reason."""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from monai.bundle import run
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

from ..utils import workflows_in_use
from ..utils.failures import end_with_reason
from .output_paths import check_output_paths

_TRACKING: Mapping[str, Any] = cast(Any, DEFAULT_MLFLOW_SETTINGS)["configs"]


def check_options(arguments: Sequence[str] | None = None) -> None:
    """Refuse options of ``monai.bundle run`` that would be ignored, and end errors with their reason.

    MONAI merges any ``--name value`` into the configuration, so a mistyped option would have no effect and the run
    would go on for hours with the default. So would ``--name None``, which MONAI leaves out. Where a run calls this,
    its configuration must not let anything be written outside the run's folders (:func:`check_output_paths`); with
    ``dry_run`` it prints what it would train, and does nothing else.

    Args:
        arguments: command line; None: the one of this process. Anything but ``monai.bundle run`` is left alone.

    Raises:
        ValueError: when an option is unknown or None, or a path is elsewhere.
    """
    check_output_paths()
    _check_arguments(arguments)
    for workflow in workflows_in_use()[:1]:
        if workflow.parser.get("dry_run") is not None and workflow.parser.get_parsed_content("dry_run"):
            from .dry_run import print_plan  # only where it is asked for: it needs the engines

            print_plan(workflow)


def _check_arguments(arguments: Sequence[str] | None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        sys.excepthook = end_with_reason
    if not given or given[0] != "run":
        return
    options = dict(_options(given[1:]))
    files = [Path(file) for file in _as_list(options.get("config_file", "")) if file]
    if not files or any(file.suffix != ".json" for file in files):  # named elsewhere (--args_file), or not ours
        return
    settings = _settings(files)
    ids = {_first_id(key) for key in settings}
    if "tracking" in options:
        ids |= _TRACKING.keys()  # MONAI adds them to the configuration
    for name in options:
        if _first_id(name) not in ids | set(inspect.signature(run).parameters):
            raise ValueError(f"unknown option --{name}: {_hint(name, settings, files[0].with_name('train.json'))}")
    for name, text in options.items():
        if text == "None" and _first_id(name) in ids and settings.get(name, text) is not None:
            raise ValueError(f"MONAI ignores --{name} None: write --{name} '$None'.")
        if name.removeprefix("+") == "spatial_size" and text[:1] not in ("$", "@"):
            _check_spatial_size(text)


def _settings(files: Iterable[Path]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for file in files:
        merged |= json.loads(file.read_text(encoding="utf-8"))
    return merged


def _first_id(name: str) -> str:
    return re.split("[#:]", name.removeprefix("+"))[0]  # a plus makes MONAI merge the value into the one that is there


def _hint(name: str, settings: Mapping[str, Any], training: Path) -> str:
    """What to do about an option that is not known here."""
    if near := difflib.get_close_matches(name, settings, n=1):
        return f"did you mean --{near[0]}?"
    if training.is_file() and _first_id(name) in _settings([training]):
        return f"it is a setting of {training.name}, which is not used here; leave it out."
    plain = sorted(key for key, value in settings.items() if not isinstance(value, dict) and key != "imports")
    return f"known are {', '.join(plain)}."


def _check_spatial_size(text: str) -> None:
    try:
        size = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        size = None
    axes = list(size) if isinstance(size, list | tuple) else []
    if len(axes) not in (2, 3) or not all(type(axis) is int and axis > 0 for axis in axes):
        raise ValueError(f'--spatial_size must be two or three whole numbers such as "[64,64]", got {text!r}.')


def find_weights(path: str | os.PathLike[str]) -> str:
    """Path of a weights file, which must be there.

    Raises:
        ValueError: when there is no such file.
    """
    if not Path(path).is_file():
        raise ValueError(
            f"no weights at {path}: train first, then give --checkpoint OUTPUT_DIR/models/model.pt of that training."
        )
    return str(path)


def _options(arguments: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Names and values of ``--name value`` and ``--name=value``."""
    for i, argument in enumerate(arguments):
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            yield name, value if equals else (arguments[i + 1] if i + 1 < len(arguments) else "")


def _as_list(text: str) -> list[str]:
    """``"['a','b']"`` or one file name, as MONAI's command line takes them."""
    if not text.startswith("["):
        return [text]
    try:
        return [str(item) for item in ast.literal_eval(text)]
    except (SyntaxError, ValueError):
        return [item.strip(" '\"") for item in text.strip("[]").split(",")]
