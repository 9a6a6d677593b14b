# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The weights of a bundle whose members were trained apart: one file out of many."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..handlers.discrepancy_loader import load_refiner
from ..handlers.member_loader import member_file, member_settings, pack_members
from ..networks.blocks import NetworkFolds
from ..networks.maps import DiscrepancyMap
from ..utils import message_of_ours, read_settings, write_json
from .metadata import fit_metadata

logger = logging.getLogger(__name__)

_INFERENCE = "configs/inference.json"
_BEST = "model_best.pt"


def pack_bundle(bundle: str | os.PathLike[str], run_dir: str | os.PathLike[str], name: str | None = None) -> list[int]:
    """Put the members that a training has left in a folder into ``models/model.pt`` of a bundle.

    The settings that they were trained with go to ``models/training.json``.

    Args:
        bundle: folder of the bundle; its ``inference.json`` says what the network is.
        run_dir: ``output_dir`` of the training, with ``fold_K/models``.
        name: which of the files there, such as ``model_best.pt`` or ``model.pt``; None (default): the one that the
            bundle scores with.

    Returns:
        Numbers of the folds that are there.

    Raises:
        ValueError: naming file and remedy, when the folder is no bundle or there are no weights that fit.
    """
    config_file = Path(bundle) / _INFERENCE
    if not config_file.is_file():
        raise ValueError(f"{config_file} does not exist: give a bundle's folder; create NAME makes one")
    remedy = f"the bundle's own stand in {config_file}"
    models = Path(bundle) / "models"
    folds = pack_weights(ConfigParser.load_config_file(config_file), run_dir, models, name, remedy)
    fit_metadata(bundle, read_settings(models / "model.pt"))
    return folds


def pack_weights(
    config: Mapping[str, Any], run_dir: str | os.PathLike[str], models: Path, name: str | None, remedy: str
) -> list[int]:
    """The same for a configuration and the folder of its weights.

    Args:
        config: content of ``inference.json``.
        run_dir: as for :func:`pack_bundle`.
        models: where ``model.pt`` and ``training.json`` go; nothing is written when there is an error.
        name: as for :func:`pack_bundle`.
        remedy: what to do about weights of another network.
    """
    name = name or str(config.get("weights_name", _BEST))
    if not any(Path(run_dir).glob(f"fold_*/models/{name}")):
        raise ValueError(
            f"no weights in {run_dir}: there is no fold_*/models/{name}; train first, then give the training's "
            "output_dir"
        )
    parser = ConfigParser(dict(config) | {"checkpoint": os.fspath(run_dir)})  # whose settings the network is made with
    try:
        network = parser.get_parsed_content("network_def")
    except RuntimeError as error:  # MONAI's, around what is wrong with the settings
        raise ValueError(message_of_ours(error) or str(error)) from error
    if not isinstance(getattr(network, "network", None), NetworkFolds):
        raise ValueError(
            f"the network of this bundle has no folds to pack: copy {run_dir}/models/model.pt to {models}/model.pt"
        )
    trained = parser.get_parsed_content("trained").recorded if "trained" in config else {}
    settings_of_all = member_settings(run_dir) | trained
    try:
        if isinstance(network, DiscrepancyMap):
            load_refiner(network, run_dir, name)
        folds = pack_members(network, run_dir, models / "model.pt", name, settings_of_all)
    except ValueError as error:
        misfit, does_not_fit, _ = str(error).partition(" (the weights")  # what follows names weights
        if not does_not_fit:
            raise
        settings = Path(run_dir) / "fold_*" / "models" / "training.json"
        raise ValueError(f"{misfit}, which {settings} holds; {remedy}") from error
    unfinished = [fold for fold in folds if not member_file(run_dir, fold, "training.json").is_file()]
    if unfinished:
        logger.warning("not trained to the end: folds %s; start their training again", ", ".join(map(str, unfinished)))
    write_json(models / "training.json", settings_of_all)
    return folds
