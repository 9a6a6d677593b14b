# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..datalist import TESTING, TRAINING, UNLABELED, VALIDATION
from .baselines import SectionFeatures, baseline_scores, rank_scores
from .duplicates import DuplicateSearch
from .items import AuditItem, Finding, finding, listing
from .screening import stacked

STRONG_AUROC = 0.75
SLICE_POSITION = "z"
# each section is searched in those that a method saw before it
_SEEN_BEFORE = (
    (VALIDATION, TRAINING),
    (VALIDATION, UNLABELED),
    (TESTING, TRAINING),
    (TESTING, UNLABELED),
    (TESTING, VALIDATION),
)


def score_baselines(items: Sequence[AuditItem], seed: int = 0) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the trivial baselines of the validation and testing images.

    Args:
        items: with their digests; images that could not be used get no score.
        seed: see :func:`~monai_anomaly.data.audit.baselines.pca_errors`.

    Returns:
        ``{name: {section: {"image_auroc", "image_ap", "scores"}}}``, scores in datalist order, None for unusable
        images; empty where 2D and 3D images are mixed.
    """
    usable = [item for item in items if item.image is not None]
    if len({item.image.thumbnail.ndim for item in usable if item.image}) != 1:
        return {}
    training = _features([item for item in usable if item.section == TRAINING])
    seen = [item for item in usable if item.section in (VALIDATION, TESTING)]
    features = _features(seen)
    scores = {} if features is None else baseline_scores(training, features, seed)
    table: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in scores}
    for section in (VALIDATION, TESTING):
        rows = [row for row, item in enumerate(seen) if item.section == section]
        targets = torch.tensor([seen[row].target for row in rows])
        present = [item.image is not None for item in items if item.section == section]
        for name, values in scores.items():
            if rows:
                one = values[rows]
                listed = iter(one.tolist())
                table[name][section] = {
                    **rank_scores(one, targets),
                    "scores": [next(listed) if there else None for there in present],
                }
    return table


def baseline_warnings(table: dict[str, dict[str, dict[str, Any]]]) -> list[Finding]:
    """Warn where a score that needs no learning parts the test images, in either direction."""
    strong = []
    for name, sections in table.items():
        auroc = sections.get(TESTING, {}).get("image_auroc")
        if auroc is not None and max(auroc, 1 - auroc) >= STRONG_AUROC:
            strong.append(f"{name} {auroc:.2f}{' (inverted)' if auroc < 0.5 else ''}")
    if not strong:
        return []
    text = f"trivial baselines tell healthy from anomalous test images without learning, AUROC: {', '.join(strong)}"
    remedy = "show these rows beside every method, or match how the classes were acquired and prepared"
    return [finding("trivial_baseline", text, remedy)]


def find_shared_pictures(items: Sequence[AuditItem]) -> list[dict[str, Any]]:
    """Return the near-duplicates between sections.

    Args:
        items: with their digests; unusable and constant images are left out.

    Returns:
        One dictionary for each two sections with a pair: ``section``, ``seen_in``, ``images`` and ``healthy`` compared,
        ``images_found`` and ``healthy_found`` of them with a near-duplicate, and ``pairs`` with the most similar one of
        each: ``file``, ``other``, ``similarity``, and ``others``, how many there are.
    """
    usable = [item for item in items if item.image is not None and not item.image.constant]
    thumbnails = [item.image.thumbnail for item in usable if item.image]
    if len({thumbnail.ndim for thumbnail in thumbnails}) != 1:
        return []
    search = DuplicateSearch(thumbnails)
    positions = {
        section: torch.tensor([i for i, item in enumerate(usable) if item.section == section], dtype=torch.long)
        for section in (TRAINING, UNLABELED, VALIDATION, TESTING)
    }
    found = [
        _shared(search, usable, positions[section], positions[before])
        for section, before in _SEEN_BEFORE
        if len(positions[section]) and len(positions[before])
    ]
    return [record for record in found if record["pairs"]]


def duplicate_warnings(shared: Sequence[dict[str, Any]]) -> list[Finding]:
    """Warn of near-duplicates between sections, one warning for each two sections."""
    warnings = []
    for record in shared:
        section, before, pairs = record["section"], record["seen_in"], record["pairs"]
        examples = listing((f"{p['file']} ~ {p['other']} ({p['similarity']:.2f})" for p in pairs), 3)
        healthy = f"{record['healthy_found']} of {record['healthy']} healthy and " if record["healthy"] else ""
        share = f" ({record['healthy_found'] / record['healthy']:.0%} of the healthy)" if record["healthy"] else ""
        text = (
            f"{healthy}{record['images_found']} of all {record['images']} images of {section!r} have a near-duplicate "
            f"in {before!r}{share}: {examples}"
        )
        remedy = "keep all copies of a picture in one section, else remembering pictures looks like finding anomalies"
        warnings.append(finding("near_duplicates", text, remedy, pairs[0]["file"]))
    return warnings


def _shared(
    search: DuplicateSearch, items: Sequence[AuditItem], queries: torch.Tensor, references: torch.Tensor
) -> dict[str, Any]:
    result = search.find(queries, references)
    asked = [items[i] for i in queries.tolist()]
    rows = zip(asked, result.reference.tolist(), result.similarity.tolist(), result.matches.tolist(), strict=True)
    hits = [(item, items[j].file, similarity, count) for item, j, similarity, count in rows if count]
    pairs = [
        {"file": item.file, "other": other, "similarity": round(similarity, 4), "others": count}
        for item, other, similarity, count in sorted(hits, key=lambda hit: -hit[2])
    ]
    return {
        "section": asked[0].section,
        "seen_in": items[int(references[0])].section,
        "images": len(asked),
        "images_found": len(hits),
        "healthy": sum(item.target == 0 for item in asked),
        "healthy_found": sum(item.target == 0 for item, *_ in hits),
        "pairs": pairs,
    }


def _features(items: Sequence[AuditItem]) -> SectionFeatures | None:
    images = [item.image for item in items if item.image is not None]
    if not images:
        return None
    positions = [_position(item) for item in items]
    return SectionFeatures(
        thumbnails=stacked([image.thumbnail for image in images]),
        mean=torch.tensor([image.mean for image in images], dtype=torch.float64),
        contrast=torch.tensor([image.contrast for image in images], dtype=torch.float64),
        sharpness=torch.tensor([image.sharpness for image in images], dtype=torch.float64),
        z=torch.tensor(positions, dtype=torch.float64) if all(map(math.isfinite, positions)) else None,
    )


def _position(item: AuditItem) -> float:
    value = item.item.get(SLICE_POSITION)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
