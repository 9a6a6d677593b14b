# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..datalist import TESTING, UNLABELED
from .items import AuditItem, Finding, finding, listing

IGNORED, LEARNED, TRANSDUCTIVE = "ignored", "learned", "transductive"
UNLABELED_USES = (IGNORED, LEARNED, TRANSDUCTIVE)
_REMEDY = (
    "take it out of 'unlabeled' (`python -m monai_anomaly.data unlabeled DATALIST OUTPUT --without {other}`, with "
    "--dataset-dir if the audit had one)"
)

Record = dict[str, Any]


def missing_unlabeled(items: Sequence[AuditItem], datalist: str) -> list[Finding]:
    """Return an error where a method that learns from unlabeled images would get none."""
    if any(item.section == UNLABELED for item in items):
        return []
    text = f"the method learns from unlabeled images, but datalist {datalist} has none to read in 'unlabeled'"
    remedy = "add the section, or use a method that learns from 'training' only"
    return [finding("no_unlabeled", text, remedy, datalist)]


def shown_test_images(items: Sequence[AuditItem], shared: Sequence[Record], retaken: Sequence[Record]) -> list[Finding]:
    """Return an error for each test image that an unlabeled one shows, as a changed copy or photographed again.

    Exact copies are left to their own error.

    Args:
        items: with their digests.
        shared: of :func:`~monai_anomaly.data.audit.scores.find_shared_pictures`.
        retaken: of :func:`~monai_anomaly.data.audit.retaken.find_retaken`.
    """
    pixels = {item.file: item.image.pixel_hash for item in items if item.image is not None}
    found: dict[str, Finding] = {}
    for how, records in (("is a near-duplicate of", shared), ("shows the same scene as", retaken)):
        for pair in _pairs(records):
            file, other, similarity = pair["file"], pair["other"], pair["similarity"]
            if pixels[file] != pixels[other] and file not in found:
                text = f"test image {file} {how} {other} of 'unlabeled', which is learned from ({similarity:.2f})"
                found[file] = finding("test_in_unlabeled", text, _REMEDY.format(other=other), other)
    return list(found.values())


def retaken_warnings(retaken: Sequence[Record]) -> list[Finding]:
    """Warn of sections other than ``testing`` with images that unlabeled ones show."""
    warnings = []
    for record in retaken:
        if record["section"] != TESTING:
            pairs = record["pairs"]
            examples = listing((f"{p['file']} ~ {p['other']} ({p['similarity']:.2f})" for p in pairs), 3)
            text = f"{len(pairs)} images of {record['section']!r} show the same scene as one in 'unlabeled': {examples}"
            remedy = "keep all pictures of a patient in one section"
            warnings.append(finding("same_scene", text, remedy, pairs[0]["file"]))
    return warnings


def transductive_warning(items: Sequence[AuditItem]) -> Finding:
    """Return the warning that must stand first in every result of a method that learned from the test images."""
    count = sum(item.section == TESTING for item in items)
    text = transductive_text(f"learns from the {count} test images")
    remedy = "compare with other transductive results only, or learn from 'unlabeled' images of other patients"
    return finding(TRANSDUCTIVE, text, remedy)


def transductive_text(learned: str) -> str:
    """Words of that warning.

    Args:
        learned: such as ``"learns from the 120 test images"``.
    """
    return (
        f"{TRANSDUCTIVE}: the method {learned} themselves, without their labels, so these figures do not tell how it "
        "does on images it has not seen"
    )


def without_test_copies(records: Sequence[Record]) -> list[Record]:
    """Leave out what the test images share with the unlabeled ones: it is an error of its own, or wanted."""
    return [record for record in records if not _is_test_in_unlabeled(record)]


def _pairs(records: Sequence[Record]) -> list[Record]:
    return [pair for record in records if _is_test_in_unlabeled(record) for pair in record["pairs"]]


def _is_test_in_unlabeled(record: Record) -> bool:
    return (record["section"], record["seen_in"]) == (TESTING, UNLABELED)
