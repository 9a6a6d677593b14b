# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""A look, at the start of a run, at where MONAI's, Ignite's and PyTorch's own writers would write."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ..utils import check_output, workflows_in_use

_OWN = "monai_anomaly."  # these ask for themselves, when they are made and when they write
#: arguments by which writers of these libraries are told their folder
FOLDERS = ("output_dir", "save_dir", "log_dir", "dirname", "cache_dir", "logdir", "save_handler")
#: or their file
FILES = ("mapping_file_path", "output_path", "save_path", "log_path")
#: or part of the name of a file below the folder
PARTS = (
    "comment",
    "file_prefix",
    "filename",
    "filename_pattern",
    "filename_prefix",
    "filename_suffix",
    "final_filename",
    "key_metric_filename",
    "key_metric_name",
    "output_ext",
    "output_postfix",
    "score_name",
)


def check_output_paths() -> None:
    """Refuse a run whose configuration names a writer of another library with a path outside the run's folders.

    Raises:
        ValueError: naming the place in the configuration.
    """
    for workflow in workflows_in_use()[:1]:
        for place, component in _components("", workflow.parser.get()):
            _check(workflow.parser, place, component)


def _check(parser: Any, place: str, component: dict[str, Any]) -> None:
    named = [name for name in (*FOLDERS, *FILES, *PARTS) if name in component]
    paths = {name: parser.get_parsed_content(f"{place}::{name}") for name in named}
    paths = {name: path for name, path in paths.items() if isinstance(path, str | os.PathLike)}
    folder = next((paths[name] for name in FOLDERS if name in paths), None)
    for name, path in paths.items():
        if name in PARTS and folder is None:  # the name of something else
            continue
        try:
            check_output(os.path.join(folder or "", path) if name in PARTS else path)
        except ValueError as error:
            raise ValueError(f"{place}::{name}: {error}") from error


def _components(place: str, config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Components of other packages, with their ids."""
    if isinstance(config, dict) and not str(config.get("_target_", _OWN)).startswith(_OWN):
        yield place, config
    if isinstance(config, dict | list):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from _components(f"{place}::{key}" if place else str(key), value)
