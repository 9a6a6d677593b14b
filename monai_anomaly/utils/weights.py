# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from .atomic import atomic_path
from .user_files import read_user_json

SETTINGS_FILE = "training.json"
_INSIDE = "monai_anomaly.settings"  # a name that no module of a network can have, for its dot


class Loadable(Protocol):
    """What weights can be loaded into: a network, or what behaves like one."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """Take over all weights."""


def load_weights(network: Loadable, path: str | os.PathLike[str], problem: str, unreadable: str | None = None) -> None:
    """Load a file of weights, and nothing but tensors.

    Args:
        network: what the weights are of.
        path: the file.
        problem: what is said of the file where it is of another network, the remedy included.
        unreadable: what is said of a broken file; None (default): the same.

    Raises:
        ValueError: naming the file and the problem.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises many kinds for a broken file
        raise ValueError(f"{path} {unreadable or problem} ({error})") from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:  # the latter two: no dictionary, or not of weights
        raise ValueError(f"{path} {problem} ({error})") from error


def save_weights(state: Mapping[str, Any], path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
    """Write weights, all or nothing, with the settings they were trained with inside.

    The settings ride where PyTorch keeps the versions of modules: whoever loads the file sees a plain dictionary of
    tensors, and whoever copies it takes them along. :func:`read_settings` gives them back.

    Args:
        state: ``network.state_dict()``.
        path: the file.
        settings: plain numbers, strings and lists.
    """
    inside: Any = OrderedDict(state)
    inside._metadata = OrderedDict(getattr(state, "_metadata", {})) | {_INSIDE: dict(settings)}
    with atomic_path(path, durable=True) as target:
        torch.save(inside, target)


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Settings that weights were trained with: those inside the file, else those in ``training.json`` beside it.

    Args:
        path: file of weights.

    Returns:
        The settings, empty where there are none, or no such file.

    Raises:
        ValueError: when the ``training.json`` is no JSON object.
    """
    beside = Path(path).with_name(SETTINGS_FILE)
    if inside := _settings_inside(path):
        return inside
    return read_settings_file(beside) if Path(path).is_file() and beside.is_file() else {}


def read_settings_file(path: Path) -> dict[str, Any]:
    """Content of a ``training.json``.

    Raises:
        ValueError: when it is no JSON object.
    """
    settings = read_user_json(path, "settings of weights", "copy it again from the training")
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}, not settings: copy it again from the training")
    return settings


def _settings_inside(path: str | os.PathLike[str]) -> dict[str, Any]:
    if not Path(path).is_file():
        return {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # the tensors stay on the disk
    except Exception:  # PyTorch raises many kinds; what loads the weights will say what is wrong with them
        return {}
    return dict(getattr(state, "_metadata", {}).get(_INSIDE, {}))
