# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..utils import locals_of_caller, read_settings
from ..utils.weights import SETTINGS_FILE, read_settings_file

_REFINER = "refiner"  # the part of a folder, and of the settings of packed weights, that tells of a refiner
# commands of MONAI that load weights, and what they call the file
_LOADING = (
    ("load", "full_path"),
    ("ckpt_export", "ckpt_file_"),
    ("trt_export", "ckpt_file_"),
    ("_export", "ckpt_file"),
)
_LIVE = ("$", "@", "%")  # what MONAI would evaluate, were it written into a configuration


class TrainedSettings(Mapping[str, Any]):
    """Settings that a network must have for its weights, as these were trained, and defaults where that is unknown.

    A configuration takes its settings from here, ``"in_channels": "$@trained['in_channels']"``, so that whoever loads
    weights need not know how they were trained; a number in that place, on the command line or in the file, overrides
    it, and :func:`check_trained` refuses one that contradicts the weights.

    The settings are those that :class:`TrainingCheckpoint` wrote into the weights, or into ``training.json`` beside
    them. Under ``monai.bundle.load`` and MONAI's export commands the weights are those that these load.

    Args:
        defaults: value of every setting that shapes the network.
        path: file of the weights, or a folder with ``fold_K/models`` and perhaps ``refiner/models``, as the trainings
            of folds leave it; None (default), or where nothing is: the defaults.

    Raises:
        ValueError: naming file and remedy, when folds were trained with different settings, or settings are not plain
            values.
    """

    def __init__(self, defaults: Mapping[str, Any], path: str | os.PathLike[str] | None = None) -> None:
        self.defaults = dict(defaults)
        self.path = _path_in_use(path)
        self.recorded: dict[str, Any] = {}
        self.sources: dict[str, Path] = {}
        for source, settings in _records(self.path):
            self._add(source, settings)

    def _add(self, source: Path, settings: Mapping[str, Any]) -> None:
        for key in self.defaults.keys() & settings.keys():
            value = settings[key]
            _check_plain(key, value, f"of the weights {source}", "take other weights")
            if key in self.recorded and self.recorded[key] != value:
                raise ValueError(
                    f"{self.sources[key]} was trained with {key} {self.recorded[key]!r}, {source} with {value!r}: "
                    "train one of them again in another output_dir"
                )
            self.recorded[key], self.sources[key] = value, source

    def __getitem__(self, key: str) -> Any:
        if key in self.recorded:
            return self.recorded[key]
        _check_plain(key, self.defaults[key], "by default", "write a number, a text or a list of these")
        return self.defaults[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.defaults)

    def __len__(self) -> int:
        return len(self.defaults)


def check_trained(trained: TrainedSettings, given: Mapping[str, Any]) -> None:
    """Refuse settings that contradict those that the weights were trained with.

    Args:
        trained: settings of the weights.
        given: settings that the network is made with.

    Raises:
        ValueError: naming each such setting with both its values.
    """
    wrong = [key for key in trained.recorded if key in given and _listed(given[key]) != _listed(trained.recorded[key])]
    if wrong:
        told = "; ".join(
            f"{key} {given[key]!r} contradicts the weights {trained.sources[key]}, which were trained with "
            f"{key} {trained.recorded[key]!r}"
            for key in wrong
        )
        options = ", ".join(f"--{key}" for key in wrong)
        raise ValueError(f"{told}: leave out {options}, or give the weights that you mean")


def _path_in_use(path: str | os.PathLike[str] | None) -> Path | None:
    """The weights that a command of MONAI is about to load, or else those of the configuration."""
    found = (locals_of_caller("monai.bundle.scripts", command).get(name) for command, name in _LOADING)
    used = next((file for file in found if file is not None), path)
    return None if used is None else Path(used)


def _records(path: Path | None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Settings by the file that they belong to."""
    if path is None:
        return
    if not path.is_dir():
        settings = read_settings(path)
        yield path, settings
        if isinstance(refiner := settings.get(_REFINER), Mapping):
            yield path, {key: value for key, value in refiner.items() if key not in settings}
        return
    for models in [*sorted(path.glob("fold_*/models")), path / _REFINER / "models"]:
        yield models, _settings_of_folder(models)


def _settings_of_folder(models: Path) -> dict[str, Any]:
    """Settings of the weights in a ``models`` folder; of a training under way, of those that are there."""
    for file in sorted(models.glob("model*.pt")):
        if settings := read_settings(file):
            return settings
    beside = models / SETTINGS_FILE
    return read_settings_file(beside) if beside.is_file() else {}


def _check_plain(key: str, value: Any, whose: str, remedy: str) -> None:
    """What is read from here may be handed over to another configuration, which would evaluate some texts."""
    if not _is_plain(value):
        raise ValueError(f"setting {key} {whose} is {value!r}, no plain value: {remedy}")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and value[:1] not in _LIVE)


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value
