# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The rule about the start of a run: writers of other libraries ask nobody, so a component has to ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..output_paths import FILES, FOLDERS
from .config_tree import look_up, walk
from .finding import Finding

#: The component that looks at the paths of such writers.
CHECK = {"_target_": "monai_anomaly.bundle.options.check_options"}


def lint_start(file: str, config: dict[str, Any]) -> Iterator[Finding]:
    """Ask for the check wherever a config names a writer of another library.

    Args:
        file: path of the config, relative to the bundle.
        config: the whole config, laid over those below it, macros in place.
    """
    if not any(_writes(value) for _, value in walk(config)):
        return
    steps = config.get("initialize")
    first = steps[0] if isinstance(steps, list) and steps else None
    if isinstance(first, str) and first.startswith("@"):
        first = look_up(config, first[1:])
    if first != CHECK:  # with anything more it could be switched off, or left to be called by nobody
        target = CHECK["_target_"]
        message = f"nothing looks at where the writers of other libraries write: 'initialize' begins without {target}"
        yield Finding("start", file, "initialize", message, "begin it with '@check_options', which names this _target_")


def _writes(value: Any) -> bool:
    """Whether a value is a component of another library that is given a place to write to."""
    if not isinstance(value, dict) or str(value.get("_target_", "monai_anomaly.")).startswith("monai_anomaly."):
        return False
    return any(value.get(name) is not None for name in (*FOLDERS, *FILES))
