# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events

from ..networks.blocks.folds import NetworkFolds
from ..utils import file_mark, load_weights, save_weights
from ..utils.weights import Loadable

logger = logging.getLogger(__name__)


class MapOfFolds(Loadable, Protocol):
    """A map around networks that are trained apart."""

    network: NetworkFolds

    def state_dict(self) -> dict[str, Any]:
        """All weights."""


class MemberLoader:
    """Loads the members of an ensemble that were trained apart, whichever are there, and says which are missing.

    Args:
        network: the map around the ensemble; it says itself what it cannot do without a missing member.
        path: a folder with ``fold_0/models/model.pt``, ``fold_1/models/model.pt`` and so on, as the trainings write
            them, or one file with the weights of ``network`` (:func:`pack_members`).
        name: file of the weights in each ``models`` folder; default ``model_best.pt``.

    Raises:
        ValueError: naming file and remedy, when nothing is there, or a file is broken or of another network.
    """

    def __init__(self, network: MapOfFolds, path: str | os.PathLike[str], name: str = "model_best.pt") -> None:
        self.network = network
        self.path = Path(path)
        self.name = name

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, lambda _: self.load())

    def load(self) -> list[int]:
        """Load the weights; return the numbers of the members that are there."""
        folds = self.network.network
        if self.path.is_file():
            _load(self.network, self.path)
            present = torch.nonzero(folds.present).flatten().tolist()
        else:
            present = find_members(self.path, len(folds.members), self.name)
            for index in present:
                _load(folds[index], member_file(self.path, index, self.name))
            folds.keep(present)
        missing = [index for index in range(len(folds.members)) if index not in present]
        if missing:
            logger.warning(
                "%d of %d members are there: folds %s are missing; train them with --fold NUMBER",
                len(present),
                len(folds.members),
                _listed(missing),
            )
        if folds.max_asked is not None:
            logger.info(
                "asking folds %s; --max_asked %d is the most, '$None' asks all", _listed(folds.asked()), folds.max_asked
            )
        return list(present)


def find_members(path: str | os.PathLike[str], num_members: int, name: str = "model_best.pt") -> list[int]:
    """Numbers of the members that are there, before anything is loaded; of one file with all weights, all.

    Args:
        path: see :class:`MemberLoader`.
        num_members: number of members that there can be.
        name: see :class:`MemberLoader`.

    Raises:
        ValueError: when nothing is there.
    """
    if Path(path).is_file():
        return list(range(num_members))
    present = [index for index in range(num_members) if member_file(path, index, name).is_file()]
    if not present:
        raise ValueError(
            f"no weights at {path}: there is neither such a file nor fold_0/models/{name} or another fold in such a "
            "folder; train first, and give the training's output_dir as --checkpoint"
        )
    return present


def member_files(path: str | os.PathLike[str], num_members: int, name: str = "model_best.pt") -> list[str]:
    """Files of the members that are there, in the order of the folds; of one file with all weights, that file.

    Args:
        path: see :class:`MemberLoader`.
        num_members: number of members that there can be.
        name: see :class:`MemberLoader`.

    Raises:
        ValueError: when nothing is there.
    """
    present = find_members(path, num_members, name)
    return [os.fspath(path)] if Path(path).is_file() else [str(member_file(path, index, name)) for index in present]


def member_marks(path: str | os.PathLike[str], num_members: int, name: str = "model_best.pt") -> list[str | None]:
    """:func:`~monai_anomaly.utils.file_mark` of each of :func:`member_files`: what a training on top of them is for."""
    return [file_mark(file) for file in member_files(path, num_members, name)]


def member_file(folder: str | os.PathLike[str], fold: int, name: str = "model_best.pt") -> Path:
    """Where the weights of a fold are."""
    return Path(folder) / f"fold_{fold}" / "models" / name


def member_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Settings that the members in a folder were trained with, of all that are finished.

    Returns:
        What their ``training.json`` hold; where they differ, as in ``fold``, a list, in the order of the folds.
    """
    files = Path(folder).glob("fold_*/models/training.json")
    members = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    members.sort(key=lambda member: int(member.get("fold", 0)))
    settings = {}
    for key in dict.fromkeys(key for member in members for key in member):
        values = [member.get(key) for member in members]
        settings[key] = values[0] if all(value == values[0] for value in values) else values
    return settings


def pack_members(
    network: MapOfFolds,
    folder: str | os.PathLike[str],
    target: str | os.PathLike[str],
    name: str = "model_best.pt",
    settings: Mapping[str, Any] | None = None,
) -> list[int]:
    """Write the members in a folder into one file, as a bundle ships it.

    Args:
        network: see :class:`MemberLoader`.
        folder: of the trainings.
        target: the file.
        name: see :class:`MemberLoader`.
        settings: settings of the trainings, to go into the file; None (default): :func:`member_settings`.

    Returns:
        Numbers of the members that are there.
    """
    present = MemberLoader(network, folder, name).load()
    save_weights(network.state_dict(), target, member_settings(folder) if settings is None else settings)
    return present


def _listed(folds: list[int]) -> str:
    return ", ".join(map(str, folds))


def _load(network: Loadable, path: Path) -> None:
    misfit = "does not fit the network: give the settings of its training"
    load_weights(network, path, misfit, "cannot be read: delete it and train that fold again")
