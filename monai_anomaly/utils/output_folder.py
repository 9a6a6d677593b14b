# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What a running bundle may write to: its output folders, and nothing else.

A configuration can put a path together from anything, so no reader of it can say where a file will go. The writers of
this package therefore ask here, when they are made and when they write. Outside the run of a bundle they write where
they are told.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

#: settings of a bundle that name its folders; the later ones may be below the first
FOLDER_IDS = ("output_dir", "ckpt_dir", "audit_dir", "log_dir")
#: what MONAI, or a run after this one, would read as its configuration
CONFIGURATIONS = frozenset({"all_folds.json", "metadata.json", "logging.conf", "large_files.yml"})
_accepted: WeakKeyDictionary[Any, tuple[list[Any], list[Path]]] = WeakKeyDictionary()
_PROGRAMS = frozenset({".py", ".pyc", ".pyd", ".pyw", ".so", ".dll", ".dylib", ".pth", ".sh", ".bat"})


def workflows_in_use() -> list[Any]:
    """The workflows (:class:`monai.bundle.ConfigWorkflow`) that this call comes from, the innermost first.

    An expression or component of a configuration is not told by what it is run. The stack of calls knows, and no
    configuration can leave that out.
    """
    found: list[Any] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "monai.bundle.workflows":
            workflow = frame.f_locals.get("self")
            if hasattr(workflow, "parser") and not any(workflow is other for other in found):
                found.append(workflow)
        frame = frame.f_back
    return found


def check_output(path: str | os.PathLike[str], configuration: bool = False) -> Path:
    """The path of a file or folder to be written, which the run of a bundle, if this is one, may write.

    Args:
        path: the file or folder; symbolic links and ``..`` are followed.
        configuration: whether it may have the name of a configuration.

    Raises:
        ValueError: when it is outside ``output_dir``, ``ckpt_dir``, ``audit_dir`` and ``log_dir`` of the run, a
            program, or a configuration.
    """
    real = Path(os.path.realpath(path))
    for workflow in workflows_in_use():
        folders = output_folders(workflow)
        if not any(real.is_relative_to(folder) for folder in folders):
            allowed = " or ".join(dict.fromkeys(map(str, folders))) or "the folder of the bundle"
            raise ValueError(
                f"{path} is outside {allowed}: a run writes into its folders alone; give --{', --'.join(FOLDER_IDS)}."
            )
        if real.suffix.lower() in _PROGRAMS:
            raise ValueError(f"{path} would be a program: the run of a bundle writes none.")
        if not configuration and (real.name in CONFIGURATIONS or "configs" in real.parts[len(folders[0].parts) :]):
            raise ValueError(f"{path} would be read as a configuration: the run of a bundle writes none.")
    return Path(path)


def output_folders(workflow: Any) -> list[Path]:
    """Folders that a workflow may write into, links followed.

    What the caller has given, on the command line or in Python, may be anywhere. What the bundle itself says must be
    below its own folder, the current one, or a folder that was accepted already, or it does not count.

    Args:
        workflow: one of :func:`workflows_in_use`.
    """
    said = [workflow.parser.get(name) for name in FOLDER_IDS]
    if workflow not in _accepted or _accepted[workflow][0] != said:
        _accepted[workflow] = (said, _find_folders(workflow))
    return _accepted[workflow][1]


def given_folders(workflow: Any) -> dict[str, Any]:
    """The settings of a workflow's folders that are the caller's, as they were given."""
    ids = [name for name in FOLDER_IDS if workflow.parser.get(name) is not None]
    return {name: workflow.parser.get(name) for name in ids if _is_given(workflow, name)}


def _find_folders(workflow: Any) -> list[Path]:
    bases, folders = _own_folders(workflow), list[Path]()
    for name in FOLDER_IDS:
        if workflow.parser.get(name) is None:
            continue
        folder = Path(os.path.realpath(workflow.parser.get_parsed_content(name)))
        if any(folder.is_relative_to(base) for base in [*folders, *bases]) or _is_given(workflow, name):
            folders.append(folder)
    return folders if any(workflow.parser.get(name) is not None for name in FOLDER_IDS) else bases[:1]


def _own_folders(workflow: Any) -> list[Path]:
    """The bundle's folder, where the caller has put it, and the current one."""
    configs = Path(os.path.realpath(workflow.config_root_path))
    bases = [configs.parent if configs.name == "configs" else configs, Path.cwd()]
    if workflow.parser.get("bundle_root") is not None and _is_given(workflow, "bundle_root"):
        bases.append(Path(os.path.realpath(workflow.parser.get_parsed_content("bundle_root"))))
    return bases


def _is_given(workflow: Any, name: str) -> bool:
    """Whether a setting is the caller's: an option of the command line, or a path that no file of the bundle says.

    MONAI rewrites references, macros and the separator ``#`` when it reads a file, so a text that begins as one of the
    first two, which may come from a file, is not the caller's unless the command line has it.
    """
    if any(argument.partition("=")[0] == f"--{name}" for argument in sys.argv[1:]):
        return True
    said = workflow.parser.get(name)
    if not isinstance(said, str):
        return isinstance(said, os.PathLike)
    configs = _configurations(Path(workflow.config_root_path))
    macro = any(str(config.get(name, "")).startswith("%") for config in configs)
    return not (macro or said.startswith(("$", "@", "%")) or _normal(said) in map(_normal, _walk(configs)))


def _normal(text: str) -> str:
    """A text as MONAI has it after it has read a file."""
    return text.replace("#", "::")


def _configurations(folder: Path) -> list[dict[str, Any]]:
    """Content of the configuration files in a folder."""
    from monai.bundle import ConfigParser  # a workflow is running, so it is imported already

    files = [path for path in folder.iterdir() if path.suffix.lower() in (".json", ".yaml", ".yml")]
    return [ConfigParser.load_config_file(path) for path in files]


def _walk(config: Any) -> Iterator[str]:
    if isinstance(config, str):
        yield config
    elif isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _walk(value)
