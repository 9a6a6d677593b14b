# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import unicodedata

import pytest

from monai_anomaly.utils import one_spelling, patient_key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (unicodedata.normalize("NFC", "M\u00fcller"), unicodedata.normalize("NFD", "M\u00fcller")),
        ("p0", "P0 "),
        ("p0", "\u00a0p0\t"),
        ("a  b", "A b"),
        ("7", "7.0"),
        (7, 7.0),
        ("7", "\uff17"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_spellings_of_one_patient(one: object, other: object) -> None:
    assert patient_key(one) == patient_key(other)


@pytest.mark.parametrize(("one", "other"), [("7", "007"), ("7", "7.5"), ("p0", "p1"), ("a b", "ab"), ("7", "-7")])
def test_different_patients(one: str, other: str) -> None:
    assert patient_key(one) != patient_key(other)


def test_one_spelling_leaves_other_names_alone() -> None:
    names = ["b", "A", "a ", "7.0", "c", "7", "A"]
    assert one_spelling(names) == ["b", "A", "A", "7", "c", "7", "A"]
    assert one_spelling(["B", "a", "_"]) == ["B", "a", "_"]
    assert one_spelling([3, 1, 3]) == [3, 1, 3]
    assert one_spelling([]) == []
