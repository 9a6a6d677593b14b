# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What every bundle does first: refuse mistyped options, and make sure that an error ends with its reason."""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from monai.bundle import run


def check_options(arguments: Sequence[str] | None = None) -> None:
    """Refuse options of ``monai.bundle run`` that no configuration file knows, and end errors with their reason.

    MONAI merges any ``--name value`` into the configuration, so a mistyped option would be ignored and the run would go
    on for hours with the default.

    Args:
        arguments: command line; None: the one of this process. Anything but ``monai.bundle run`` is left alone.

    Raises:
        ValueError: when an option is unknown.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        sys.excepthook = _end_with_reason
    if not given or given[0] != "run":
        return
    options = dict(_options(given[1:]))
    files = [Path(file) for file in _as_list(options.get("config_file", "")) if file]
    if not files or any(file.suffix != ".json" for file in files):  # named elsewhere (--args_file), or not ours
        return
    known = set(inspect.signature(run).parameters)
    known |= {re.split("[#:]", key)[0] for file in files for key in json.loads(file.read_text(encoding="utf-8"))}
    for name in options:
        if re.split("[#:]", name)[0] not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean --{near[0]}?" if near else f"known are {sorted(known)}."
            raise ValueError(f"unknown option --{name}: {hint}")


def find_weights(path: str | os.PathLike[str]) -> str:
    """Path of a weights file, which must be there.

    Raises:
        ValueError: when there is no such file.
    """
    if not Path(path).is_file():
        raise ValueError(
            f"no weights at {path}: train first with the same --output_dir, or give --checkpoint FILE (a model.pt)."
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


def _end_with_reason(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    """Print the traceback as always, then the innermost error, which MONAI's own wrap in a hundred lines."""
    sys.__excepthook__(kind, error, trace)
    while error.__cause__ is not None:
        error = error.__cause__
    print(f"\nerror: {error}", file=sys.stderr)
