# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..transforms.readers import IMAGE_SUFFIXES
from ..utils import Keys, one_spelling
from .datalist import SECTIONS, TESTING, TRAINING, VALIDATION, Item, PathLike, list_images, relocated, write_datalist


def convert_folder(
    root: PathLike,
    output: PathLike,
    validation: float = 0.15,
    testing: float = 0.25,
    seed: int = 0,
    patient_pattern: str | None = None,
    base_dir: PathLike | None = None,
) -> dict[str, int]:
    """Write a datalist from a folder with ``normal/``, ``abnormal/`` and optionally ``masks/``, split by patient.

    Normal images go to training, validation and testing; abnormal ones to validation and testing in the same
    proportion. A patient with any abnormal image is never in training, and no patient is in two sections. A mask
    belongs to the abnormal image of the same path without suffix.

    Args:
        root: the folder.
        output: datalist JSON to write.
        validation: fraction of the normal patients for validation, in (0, 1); default 0.15.
        testing: fraction of the normal patients for testing, in (0, 1); default 0.25; both together below 1.
        seed: seed of the split.
        patient_pattern: regular expression searched in the path below ``normal/`` or ``abnormal/``; its first group (or
            the whole match) is the patient. None: each image is its own patient.
        base_dir: folder the written paths are relative to; None: ``root``.

    Returns:
        Number of items of each section.

    Raises:
        ValueError: for bad fractions, missing folders, images the pattern does not match, masks without an image or
            with several, or too few patients for the split.
    """
    if not (validation > 0 and testing > 0 and validation + testing < 1):
        raise ValueError(
            f"validation and testing must be above 0 and below 1 together, got {validation!r} and {testing!r}"
        )
    base = Path(root)
    pattern = re.compile(patient_pattern) if patient_pattern is not None else None
    items: list[Item] = [
        {Keys.IMAGE: name, Keys.TARGET: target, Keys.PATIENT: _patient(base, name, pattern)}
        for target, kind in enumerate(("normal", "abnormal"))
        for name in _names(base, kind)
    ]
    if pattern is not None:
        for item, patient in zip(items, one_spelling([item[Keys.PATIENT] for item in items]), strict=True):
            item[Keys.PATIENT] = patient
    _attach_masks(base, items)
    sections = _split(items, validation, testing, seed, base)
    shift = os.path.relpath(base, base_dir) if base_dir is not None else "."
    for item in items:
        for key in (Keys.IMAGE, Keys.LABEL):
            if key in item:
                item[key] = relocated(item[key], shift)
    write_datalist(output, sections)
    return {name: len(items) for name, items in sections.items() if items}


def _names(root: Path, kind: str) -> list[str]:
    if not (root / kind).is_dir():
        raise ValueError(f"folder {root} has no folder {kind!r}: put healthy images in normal/, others in abnormal/")
    return [f"{kind}/{item[Keys.PATIENT]}" for item in list_images(root / kind)]


def _patient(root: Path, name: str, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return name  # with its folder: normal/1.png and abnormal/1.png are two patients
    match = pattern.search(name.partition("/")[2])
    if match is None:
        raise ValueError(f"image {root / name} does not match patient_pattern {pattern.pattern!r}: change the pattern")
    return match.group(1) if pattern.groups else match.group(0)


def _stem(name: str) -> str:
    """Return a file name without its image suffix (``.nii.gz`` is one)."""
    longest_first = sorted(IMAGE_SUFFIXES, key=len, reverse=True)
    return next((name[: -len(suffix)] for suffix in longest_first if name.lower().endswith(suffix)), name)


def _attach_masks(root: Path, items: Sequence[Item]) -> None:
    if not (root / "masks").is_dir():
        return
    masks = _by_stem(_names(root, "masks"), root)
    masked = [item for item in items if item[Keys.TARGET] and _inner_stem(item[Keys.IMAGE]) in masks]
    _by_stem([item[Keys.IMAGE] for item in masked], root)
    for item in masked:
        item[Keys.LABEL] = masks.pop(_inner_stem(item[Keys.IMAGE]))
    if masks:
        raise ValueError(
            f"{len(masks)} file(s) in {root / 'masks'} belong to no image, first {next(iter(masks.values()))}: "
            "name each mask like its image in abnormal/"
        )


def _by_stem(names: Sequence[str], root: Path) -> dict[str, str]:
    """Names by what images and masks have in common; it must be another one for each."""
    found: dict[str, str] = {}
    for name in names:
        other = found.setdefault(_inner_stem(name), name)
        if other != name:
            raise ValueError(
                f"{root / other} and {root / name} differ in their suffix only, so that it is not clear which mask "
                "belongs to which image: rename one of them"
            )
    return found


def _inner_stem(name: str) -> str:
    return _stem(name.partition("/")[2])


def _split(items: Sequence[Item], validation: float, testing: float, seed: int, root: Path) -> dict[str, list[Item]]:
    """Return the items of each section; a patient's images stay together."""
    anomalous = sorted({item[Keys.PATIENT] for item in items if item[Keys.TARGET]})
    healthy = sorted({item[Keys.PATIENT] for item in items} - set(anomalous))
    if len(healthy) < 3 or len(anomalous) < 2:
        raise ValueError(
            f"folder {root} has {len(healthy)} patient(s) with normal images only and {len(anomalous)} with abnormal "
            "ones: a split needs at least 3 and 2"
        )
    draw = np.random.default_rng(seed)
    section_of = _assign(healthy, [VALIDATION, TESTING, TRAINING], [validation, testing], draw)
    section_of |= _assign(anomalous, [VALIDATION, TESTING], [validation / (validation + testing)], draw)
    return {name: [item for item in items if section_of[item[Keys.PATIENT]] == name] for name in SECTIONS}


def _assign(
    patients: Sequence[str], sections: Sequence[str], fractions: Sequence[float], draw: np.random.Generator
) -> dict[str, str]:
    """Return the section of each patient, at least one patient a section; the last section takes what remains."""
    order = [patients[i] for i in draw.permutation(len(patients))]
    section_of: dict[str, str] = {}
    for position, fraction in enumerate(fractions):
        still_to_fill = len(sections) - position - 1
        count = min(max(round(fraction * len(patients)), 1), len(order) - still_to_fill)
        section_of.update(dict.fromkeys(order[:count], sections[position]))
        order = order[count:]
    return section_of | dict.fromkeys(order, sections[-1])
