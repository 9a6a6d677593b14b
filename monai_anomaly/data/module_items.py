# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What networks of a method with two distributions learn from: healthy images, or unlabeled ones as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..utils import Keys, derive_seed
from .datalist import (
    TESTING,
    TRAINING,
    UNKNOWN_TARGET,
    UNLABELED,
    VALIDATION,
    Item,
    PathLike,
    check_extra_fields,
    load_datalist,
    read_datalist,
)


def ddad_items(
    datalist: PathLike,
    base_dir: PathLike | None = None,
    fold: int = 0,
    num_normal: int = 3,
    transductive: bool = False,
    seed: int | None = None,
) -> list[Item]:
    """Training items of one network of DDAD: the section ``training``, and from fold K on ``unlabeled`` too.

    What is said about the state of an unlabeled image is taken away.

    Args:
        datalist: JSON file.
        base_dir: folder that the paths are relative to; None (default): the folder of the datalist.
        fold: number of the network, from 0.
        num_normal: number K of networks that learn from healthy images alone; paper's default 3.
        transductive: take the images of ``testing``, without their targets, as the unlabeled ones; default False. What
            is then measured on them does not hold for other images.
        seed: seed of the items' order, another one for each fold: networks that are shown the same images in the same
            order are less different than those of the paper, each of which was trained by itself. None (default): the
            order of the datalist.

    Returns:
        Items as of :func:`load_datalist`; the target of unlabeled ones is -1.

    Raises:
        ValueError: when a number is outside its range, or naming file and remedy for a missing section or a bad item.
    """
    if fold < 0 or num_normal < 1:
        raise ValueError(f"fold must be 0 or more and num_normal 1 or more, got {fold!r} and {num_normal!r}")
    if fold < num_normal:
        items = load_datalist(datalist, TRAINING, base_dir)
    else:
        items = _with_unlabeled(datalist, base_dir, num_normal, transductive)
    if seed is None:
        return items
    order = np.random.RandomState(derive_seed(seed, fold)).permutation(len(items))
    return [items[index] for index in order]


def pretraining_items(
    datalist: PathLike, sections: str | Sequence[str] = TRAINING, base_dir: PathLike | None = None
) -> list[Item]:
    """Images that a pre-training without targets learns from.

    Args:
        datalist: JSON file, or a folder of images.
        sections: name of a section, or several; default ``training``.
        base_dir: see :func:`load_datalist`.

    Returns:
        Items as of :func:`load_datalist`.

    Raises:
        ValueError: for sections that others measure on: nothing would mark results on images learned from here.
    """
    names = [sections] if isinstance(sections, str) else list(sections)
    if measured := [name for name in names if name in (VALIDATION, TESTING)]:
        raise ValueError(
            f"sections must not be those that a method is watched or tested with, {VALIDATION!r} and {TESTING!r}, got "
            f"{measured}: take {TRAINING!r} and {UNLABELED!r}; AMAE and DDAD learn from test images with --transductive"
        )
    return load_datalist(datalist, names, base_dir)


def _with_unlabeled(datalist: PathLike, base_dir: PathLike | None, num_normal: int, transductive: bool) -> list[Item]:
    if not transductive and not read_datalist(datalist).get(UNLABELED):
        raise ValueError(
            f"datalist {datalist} has no images in the section {UNLABELED!r}, from which the networks from fold "
            f"{num_normal} on learn beside the healthy ones: add that section, a list of items like "
            f"{{'image': 'file.png'}} whose state need not be known; or train the folds before alone, --folds "
            f"{list(range(num_normal))}, with --score intra, which needs no others"
        )
    section = TESTING if transductive else UNLABELED
    unlabeled = load_datalist(datalist, section, base_dir, require_target=False)
    hidden = [{k: v for k, v in item.items() if k not in (Keys.TARGET, Keys.LABEL)} for item in unlabeled]
    items = load_datalist(datalist, TRAINING, base_dir)
    items += [item | {Keys.TARGET: UNKNOWN_TARGET} for item in hidden]
    check_extra_fields(items, Path(datalist))
    return items
