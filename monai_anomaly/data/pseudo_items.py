# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..utils import Keys, patient_key, read_user_json
from .datalist import TESTING, TRAINING, UNLABELED, Item, PathLike, load_datalist

PSEUDO_LABELS = "pseudo_labels.json"


def read_pseudo_labels(path: PathLike) -> dict[str, Any]:
    """Content of a file of pseudo-labels.

    Raises:
        ValueError: naming file and remedy, when it is missing or another file.
    """
    file = Path(path)
    remedy = "write it with configs/pseudo_labels.json of the bundle amae_stage1"
    content = read_user_json(file, "file of pseudo-labels", remedy)
    try:
        known = {name: [str(image) for image in content[name]] for name in ("normal", "abnormal")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} holds no pseudo-labels ({error!r}): write them again with stage 1") from error
    return dict(content) | known


def pseudo_labeled_items(
    datalist: PathLike,
    module: int,
    pseudo_labels: PathLike | None,
    base_dir: PathLike | None = None,
    transductive: bool = False,
) -> list[Item]:
    """Images that a module of AMAE's second stage learns from.

    Module A (0): healthy images and those unlabeled that stage 1 is sure are normal. Module B (1): those unlabeled that
    it is sure are abnormal. Without pseudo-labels: healthy images, and all unlabeled ones (the paper's ablation).

    Args:
        datalist: with the sections ``training`` and ``unlabeled``.
        module: 0 (A) or 1 (B).
        pseudo_labels: file written in stage 1, or None.
        base_dir: see :func:`load_datalist`.
        transductive: take the images of ``testing``, without their targets, as the unlabeled ones; default False.

    Returns:
        items without target or label.

    Raises:
        ValueError: when there are no healthy images or fewer than two patients that are called abnormal, one of whom
            is held out, or the file is of other images.

    Reference:
        B. Bozorgtabar, D. Mahapatra, J.-P. Thiran: "AMAE", MICCAI 2023, Section 2.2.
    """
    if module not in (0, 1):
        raise ValueError(f"module must be 0 (A) or 1 (B), got {module!r}")
    normal = [] if module else load_datalist(datalist, TRAINING, base_dir)
    pool = load_datalist(datalist, TESTING if transductive else UNLABELED, base_dir, require_target=False)
    if pseudo_labels is None:
        chosen = pool if module else []
    else:
        base = Path(datalist).parent if base_dir is None else base_dir
        name = ("normal", "abnormal")[module]
        chosen = _named(pool, read_pseudo_labels(pseudo_labels), name, pseudo_labels, base)
    patients = {patient_key(item[Keys.PATIENT]) for item in chosen}
    if module and pseudo_labels is not None and len(patients) < 2:  # the training is watched with one of them
        called = f"the images of only {len(patients)} patient" if patients else "no image"
        raise ValueError(
            f"{pseudo_labels} calls {called} abnormal, so module B has nothing to learn from: use stage 1 alone, raise "
            "percent, add unlabeled images, or give --pseudo_labels '$None' to learn from all of them"
        )
    hidden = (Keys.TARGET, Keys.LABEL)
    return [{key: value for key, value in item.items() if key not in hidden} for item in normal + chosen]


def _named(pool: list[Item], content: dict[str, Any], name: str, path: PathLike, base: PathLike) -> list[Item]:
    """Items of the pool that the file names; all that the file names must be there."""
    by_file = {item[Keys.IMAGE]: item for item in pool}
    files = {image: os.path.abspath(os.path.join(base, image)) for image in content[name]}
    if foreign := [image for image, file in files.items() if file not in by_file]:
        raise ValueError(
            f"{path} names {len(foreign)} images that are not in the unlabeled section, first {foreign[0]}: write the "
            "pseudo-labels again with this datalist and dataset_dir"
        )
    return [by_file[file] for file in files.values()]
