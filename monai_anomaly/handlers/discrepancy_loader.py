# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..networks.maps.discrepancy_map import REFINED_SCORES, DiscrepancyMap
from ..utils import load_weights
from .member_loader import MemberLoader
from .training_checkpoint import SETTINGS

REFINER = "refiner"


class DiscrepancyLoader(MemberLoader):
    """Loads the networks of both modules, and the refiner that was trained after them where the score needs it.

    Args:
        network: the map around them.
        path: a folder with ``fold_K/models`` and ``refiner/models`` as the trainings write them, or one file with the
            weights of ``network``.
        name: file of the weights in each ``models`` folder; default ``model.pt``, the last ones, as in the paper.

    Raises:
        ValueError: naming file and remedy, when networks or the refiner that the score needs are not there, or a file
            is broken or of another network.
    """

    network: DiscrepancyMap

    def __init__(self, network: DiscrepancyMap, path: str | os.PathLike[str], name: str = "model.pt") -> None:
        super().__init__(network, path, name)

    def load(self) -> list[int]:
        """Load the weights; return the numbers of the networks that are there."""
        present = super().load()
        if self.network.refined and self.path.is_dir():
            load_refiner(self.network, self.path, self.name)
        self.network.check_members()
        self.network.check_refiner()
        return present


def load_refiner(network: DiscrepancyMap, folder: str | os.PathLike[str], name: str = "model.pt") -> bool:
    """Load the refiner that was trained in a folder, and note whether there is one.

    Args:
        network: the map around it.
        folder: ``output_dir`` of the training.
        name: file of its weights in ``refiner/models``.

    Returns:
        whether it is there.

    Raises:
        ValueError: naming file and remedy, when it is broken or of another network.
    """
    path = Path(folder) / REFINER / "models" / name
    network.refiner_present.fill_(path.is_file() and network.refiner is not None)
    if network.refiner is None or not path.is_file():
        return False
    problem = (
        f"is broken or does not fit the refiner of the score {network.score!r}: give the --score it was trained with, "
        "or train it again in another output_dir"
    )
    load_weights(network.refiner, path, problem)
    return True


def refiner_settings(folder: str | os.PathLike[str], score: str) -> dict[str, Any] | None:
    """Settings that the refiner in a folder was trained with, for a report; None where the score has none, or unknown.

    Args:
        folder: ``output_dir`` of the training.
        score: see :class:`monai_anomaly.networks.maps.DiscrepancyMap`.
    """
    path = Path(folder) / REFINER / "models" / SETTINGS
    if score not in REFINED_SCORES or not path.is_file():
        return None
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return settings
