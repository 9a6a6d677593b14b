# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

from ...utils import Keys, patient_key
from ..datalist import SECTIONS, TESTING, UNLABELED
from .items import AuditItem, Finding, finding, group_by, listing
from .unlabeled import TRANSDUCTIVE

TEST_AND_UNLABELED = {UNLABELED, TESTING}


def shared_patients(items: Sequence[AuditItem], unlabeled: str) -> list[Finding]:
    """Return an error for each patient with images in two sections; ``unlabeled`` as for the audit."""
    found = []
    for group in by_patient(items):
        firsts = {item.section: item.file for item in reversed(group)}
        if len(firsts) > 1 and not (unlabeled == TRANSDUCTIVE and set(firsts) == TEST_AND_UNLABELED):
            where = ", ".join(f"{section!r} ({firsts[section]})" for section in sorted(firsts, key=SECTIONS.index))
            text = f"patient {_spellings(group)} is in {where}"
            remedy = "keep all images of a patient in one section"
            found.append(finding("patient_in_two_splits", text, remedy, next(iter(firsts.values()))))
    return found


def unnamed_patients(items: Sequence[AuditItem]) -> list[Finding]:
    """Warn of images without a patient."""
    files = [item.file for item in items if not item.patient_named]
    if not files:
        return []
    text = (
        f"{len(files)} of {len(items)} images name no patient, so each counts as a patient of its own: one patient "
        "in two sections goes unseen, and intervals are too narrow where patients have several images"
    )
    return [finding("unnamed_patients", text, "give the items of the datalist a 'patient'", files[0])]


def spelled_differently(items: Sequence[AuditItem]) -> list[Finding]:
    """Warn of patients that are spelled in several ways."""
    groups = [group for group in by_patient(items) if len({item.item[Keys.PATIENT] for item in group}) > 1]
    if not groups:
        return []
    text = f"{len(groups)} patient(s) are spelled in several ways and taken as one: {listing(map(_spellings, groups))}"
    return [finding("patient_spellings", text, "spell each patient in one way", groups[0][0].file)]


def by_patient(items: Sequence[AuditItem]) -> list[list[AuditItem]]:
    """Return the images of each patient; one that has no name is known by its file, which has one spelling only."""

    def key(item: AuditItem) -> tuple[bool, str]:
        name = str(item.item[Keys.PATIENT])
        return item.patient_named, patient_key(name) if item.patient_named else name

    return list(group_by(items, key).values())


def _spellings(group: Sequence[AuditItem]) -> str:
    """Name a patient, in all spellings; those that look alike are told apart by their code points."""
    names = sorted({str(item.item[Keys.PATIENT]) for item in group})
    shown = [repr(name) if len(names) == 1 else ascii(name) for name in names]
    return shown[0] if len(shown) == 1 else f"{shown[0]} (also spelled {', '.join(shown[1:])})"
