# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What a datalist holds and nobody would read: sections whose names are misspelled, and items that stand twice."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ..utils import Keys

TRAINING, UNLABELED, VALIDATION, TESTING = "training", "unlabeled", "validation", "testing"
SECTIONS = (TRAINING, UNLABELED, VALIDATION, TESTING)
_OTHER_NAMES = {
    **dict.fromkeys(("train", "trainset", "train_normal"), TRAINING),
    **dict.fromkeys(("unlabelled", "unlabeled_data"), UNLABELED),
    **dict.fromkeys(("val", "valid", "dev", "validate"), VALIDATION),
    **dict.fromkeys(("test", "tests", "testset"), TESTING),
}
_ALIKE = 0.8


def unread_sections(content: Mapping[str, Any], asked: Sequence[str] = ()) -> dict[str, str | None]:
    """Return what stands in a datalist in the place of a section: by its name, whatever it holds, or as items.

    A number is none, whatever its name: ``numTraining`` counts the items of another section.

    Args:
        content: of the file.
        asked: further names that are read.

    Returns:
        Name of each to the section that was most likely meant, None where there is none.
    """
    found = {name: meant_section(name) for name in content if name not in (*SECTIONS, *asked)}
    return {
        name: meant
        for name, meant in found.items()
        if _holds_items(content[name]) or (meant is not None and not isinstance(content[name], (int, float)))
    }


def _holds_items(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, Mapping) and Keys.IMAGE in item for item in value)


def meant_section(name: str) -> str | None:
    """Return the section that a name like ``Testing``, ``test`` or ``trainig`` was meant to be."""
    plain = name.strip().casefold()
    if plain in SECTIONS:
        return plain
    if plain in _OTHER_NAMES:
        return _OTHER_NAMES[plain]
    if plain.startswith(SECTIONS):  # testing_small is a name of its own
        return None
    return next(iter(get_close_matches(plain, SECTIONS, 1, _ALIKE)), None)


def check_section_names(content: Mapping[str, Any], path: str | os.PathLike[str], asked: Sequence[str] = ()) -> None:
    """Raise a ValueError where a section would be ignored because its name is misspelled."""
    for name, meant in unread_sections(content, asked).items():
        if meant is not None:
            where = f"datalist {os.fspath(path)} has a section {name!r}"
            raise ValueError(f"{where}, which is not read: {remedy(name, meant)}")


def remedy(name: str, meant: str | None) -> str:
    """Say what to do about a section that is not read."""
    if meant is None:
        return f"name it like one of {list(SECTIONS)} if it is to be read"
    return f"did you mean {meant!r}? Rename {name!r}, or take it out"


def repeated_images(items: Sequence[Any]) -> dict[int, int]:
    """Return the place of each item whose image stood before in the same section, and where it stood first."""
    first: dict[str, int] = {}
    repeated = {}
    for place, item in enumerate(items):
        image = item.get(Keys.IMAGE) if isinstance(item, Mapping) else None
        if isinstance(image, str) and image:
            before = first.setdefault(os.path.normpath(image), place)
            if before != place:
                repeated[place] = before
    return repeated


def repeated_text(image: str, section: str, before: int) -> str:
    """Say that an image stands twice, with the remedy after a semicolon."""
    return f"{image}: stands in {section!r} twice, first as {section}[{before}]; remove one, else it counts twice"
