# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations

from ..datalist import SECTIONS, TESTING, TRAINING, UNLABELED, VALIDATION
from .items import AuditItem, Finding, finding, group_by, listing
from .mask_checks import empty_masks, images_as_masks, marked_healthy, odd_masks
from .patient_checks import (
    TEST_AND_UNLABELED,
    by_patient,
    shared_patients,
    spelled_differently,
    unnamed_patients,
)
from .unlabeled import IGNORED, LEARNED, TRANSDUCTIVE

SMALL_CLASS = 50


def count_items(items: Sequence[AuditItem]) -> dict[str, dict[str, int]]:
    """Return for each section the number of images, of healthy, anomalous and unknown ones, and of patients."""
    counts = {}
    for section in SECTIONS:
        inside = [item for item in items if item.section == section]
        if inside:
            targets = Counter(item.target for item in inside)
            counts[section] = {
                "images": len(inside),
                "healthy": targets[0],
                "anomalous": targets[1],
                "unknown": len(inside) - targets[0] - targets[1],
                "patients": len(by_patient(inside)),
            }
    return counts


def find_errors(items: Sequence[AuditItem], in_channels: int | None = None, unlabeled: str = IGNORED) -> list[Finding]:
    """Return everything that makes the data unfit for training or its numbers wrong.

    Args:
        items: with their digests.
        in_channels: number of channels to demand; None: only that all images have the same.
        unlabeled: what the method does with unlabeled images, see :class:`~monai_anomaly.data.DatalistAudit`.
    """
    return [
        *_file_problems(items),
        *_anomalous_in_training(items),
        *marked_healthy(items),
        *images_as_masks(items),
        *shared_patients(items, unlabeled),
        *_copies(items, True, unlabeled),
        *_contradicting_targets(items),
        *_channels(items, in_channels),
        *_mixed(items, "mixed_dimensions", "number of spatial axes", lambda shape: (len(shape) - 1,), "keep one kind"),
    ]


def find_warnings(items: Sequence[AuditItem], unlabeled: str = IGNORED) -> list[Finding]:
    """Return what is allowed but must be known when the numbers are read.

    Args:
        items: with their digests.
        unlabeled: see :func:`find_errors`.
    """
    resize = "the transforms resize them to one size, which stretches them: check that this is what you want"
    return [
        *_mixed(items, "mixed_sizes", "size", lambda shape: shape[1:], resize),
        *_mixed_scaling(items),
        *unnamed_patients(items),
        *spelled_differently(items),
        *_constant(items),
        *empty_masks(items),
        *odd_masks(items),
        *_repeated_pixels(items),
        *_copies(items, False, unlabeled),
        *_no_anomalous_validation(items),
        *_small_test_set(items),
    ]


def _file_problems(items: Sequence[AuditItem]) -> list[Finding]:
    distinct = dict.fromkeys(problem for item in items for problem in item.digest.problems)
    found = []
    for problem in distinct:
        message, _, remedy = problem.text.rpartition(": ")
        found.append(finding(problem.code, message, remedy, problem.file))
    return found


def _anomalous_in_training(items: Sequence[AuditItem]) -> list[Finding]:
    remedy = "move it to 'validation' or 'testing', or set its target to 0 if it is healthy"
    return [
        finding(
            "anomalous_in_training",
            f"image {item.file} of the healthy section 'training' has target 1",
            remedy,
            item.file,
        )
        for item in items
        if item.section == TRAINING and item.target == 1
    ]


def _copies(items: Sequence[AuditItem], serious: bool, unlabeled: str) -> list[Finding]:
    """Exact copies between testing and what a method learns from are errors; between other sections, warnings."""
    errors = [{TRAINING, TESTING}, *([TEST_AND_UNLABELED] if unlabeled == LEARNED else [])]
    wanted = [TEST_AND_UNLABELED] if unlabeled == TRANSDUCTIVE else []
    found = []
    for group in _same_pixels(items):
        firsts = {item.section: item for item in reversed(group)}
        for first, second in combinations(sorted(firsts, key=SECTIONS.index), 2):
            if {first, second} not in wanted and ({first, second} in errors) is serious:
                one, other = firsts[first].file, firsts[second].file
                text = f"image {other} of {second!r} has the same pixels as {one} of {first!r}"
                found.append(finding("exact_duplicate", text, "keep it in one section only", other))
    return found


def _contradicting_targets(items: Sequence[AuditItem]) -> list[Finding]:
    found = []
    for group in _same_pixels(items):
        healthy = [item.file for item in group if item.target == 0]
        anomalous = [item.file for item in group if item.target == 1]
        if healthy and anomalous:
            text = f"images {healthy[0]} (target 0) and {anomalous[0]} (target 1) have the same pixels"
            found.append(finding("contradicting_targets", text, "find out which target is true", anomalous[0]))
    return found


def _same_pixels(items: Sequence[AuditItem]) -> list[list[AuditItem]]:
    usable = [item for item in items if item.image is not None and not item.image.constant]
    groups = group_by(usable, lambda item: item.image.pixel_hash if item.image else "")
    return [group for group in groups.values() if len(group) > 1]


def _channels(items: Sequence[AuditItem], in_channels: int | None) -> list[Finding]:
    if in_channels is None:
        remedy = "convert the files to one number of channels"
        return _mixed(items, "mixed_channels", "number of channels", lambda shape: shape[:1], remedy)
    seen = group_by((item for item in items if item.image), lambda item: item.image.shape[0] if item.image else 0)
    if len(seen) == 1:
        remedy = f"all images have {next(iter(seen))}: leave in_channels out, or give weights of such images"
    else:
        kinds = listing(f"{n} channel(s) in {len(group)} (e.g. {group[0].file})" for n, group in sorted(seen.items()))
        remedy = f"convert the files to one number of channels; there are {kinds}"
    return [
        finding(
            "wrong_channels",
            f"image {item.file} has {channels} channel(s), but in_channels={in_channels}",
            remedy,
            item.file,
        )
        for channels, group in seen.items()
        if channels != in_channels
        for item in group
    ]


def _mixed(
    items: Sequence[AuditItem], code: str, what: str, part: Callable[[tuple[int, ...]], tuple[int, ...]], remedy: str
) -> list[Finding]:
    groups = group_by((item for item in items if item.image), lambda item: part(item.image.shape) if item.image else ())
    if len(groups) < 2:
        return []
    ranked = sorted(groups.items(), key=lambda pair: -len(pair[1]))
    kinds = listing(f"{'x'.join(map(str, key))} in {len(group)} (e.g. {group[0].file})" for key, group in ranked)
    return [finding(code, f"the images differ in their {what}: {kinds}", remedy, ranked[-1][1][0].file)]


def _mixed_scaling(items: Sequence[AuditItem]) -> list[Finding]:
    """Bit depth can tell the classes apart: 8-bit files are scaled from 0..255, all others from their own extremes."""
    groups = group_by((item for item in items if item.image), lambda item: bool(item.image and item.image.eight_bit))
    if len(groups) < 2:
        return []
    eight, others = groups[True], groups[False]
    text = (
        f"{len(eight)} images have 8 bits (e.g. {eight[0].file}) and {len(others)} have not (e.g. {others[0].file}): "
        "the first are scaled from 0..255, the others from their own lowest and highest value"
    )
    remedy = "export all images alike, or give ScaleSourceRanged a fixed source_range"
    return [finding("mixed_bit_depth", text, remedy, min(eight, others, key=len)[0].file)]


def _constant(items: Sequence[AuditItem]) -> list[Finding]:
    files = [item.file for item in items if item.image is not None and item.image.constant]
    if not files:
        return []
    text = f"{len(files)} image(s) have the same value in every pixel: {listing(files)}"
    return [finding("constant_image", text, "export them again or remove them from the datalist", files[0])]


def _repeated_pixels(items: Sequence[AuditItem]) -> list[Finding]:
    """Warn of copies within a section under two names, which count twice there."""
    sections = [group_by(group, lambda item: item.section) for group in _same_pixels(items)]
    pairs = [(same[0].file, same[1].file) for by in sections for same in by.values() if len(same) > 1]
    if not pairs:
        return []
    text = f"{len(pairs)} image(s) have a copy in their own section, so they count twice or more: " + listing(
        f"{one} = {other}" for one, other in pairs
    )
    return [finding("repeated_image", text, "keep one of each", pairs[0][1])]


def _no_anomalous_validation(items: Sequence[AuditItem]) -> list[Finding]:
    sections = {item.section for item in items}
    targets = {item.target for item in items if item.section == VALIDATION}
    if TRAINING not in sections or targets >= {0, 1}:
        return []
    if sections <= {TRAINING, UNLABELED}:  # images to pre-train with, of a folder for instance: nothing is to be chosen
        return []
    text = f"'validation' has images of the targets {sorted(t for t in targets if t is not None)} only"
    remedy = "the best checkpoint cannot be chosen by AUROC, only the last one used: add healthy and anomalous images"
    return [finding("no_anomalous_validation", text, remedy)]


def _small_test_set(items: Sequence[AuditItem]) -> list[Finding]:
    targets = Counter(item.target for item in items if item.section == TESTING)
    if not targets or min(targets[0], targets[1]) >= SMALL_CLASS:
        return []
    text = f"'testing' has {targets[0]} healthy and {targets[1]} anomalous images, fewer than {SMALL_CLASS} of a class"
    return [finding("small_test_set", text, "read the intervals, not only the values; add images if there are more")]
