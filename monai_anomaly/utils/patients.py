# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence
from typing import TypeVar

_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")
N = TypeVar("N", bound=Hashable)


def patient_key(name: object) -> str:
    """Return what all spellings of one patient have in common.

    Letters in either Unicode form and case, with or without spaces around and inside, and whole numbers with decimals
    are one patient: ``"p0"`` and ``"P0 "``, ``"7"`` and ``7.0``; ``"7"`` and ``"007"`` are two.

    Args:
        name: as the datalist or CSV spells it.
    """
    text = " ".join(unicodedata.normalize("NFKC", str(name)).casefold().split())
    # folding can take a letter apart again
    text = unicodedata.normalize("NFKC", text)
    number = _WHOLE_NUMBER.fullmatch(text)
    return number[1] if number else text


def one_spelling(names: Sequence[N]) -> list[N]:
    """Return the names with one spelling a patient, the first of those there are in sorted order.

    Where no patient is spelled in two ways, these are the names as they came.
    """
    chosen: dict[str, N] = {}
    for name in sorted(set(names)):  # type: ignore[type-var]
        chosen.setdefault(patient_key(name), name)
    return [chosen[patient_key(name)] for name in names]
