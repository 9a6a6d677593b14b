# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence

from ...utils import Keys
from .image_digest import MaskKind
from .items import AuditItem, Finding, finding, listing


def marked_healthy(items: Sequence[AuditItem]) -> list[Finding]:
    """Return an error for each healthy image whose mask marks something."""
    found = []
    for item in items:
        marked = item.digest.marked.get(Keys.LABEL, 0)
        if item.target == 0 and marked:
            text = (
                f"image {item.file} has target 0 (healthy), but its mask {item.item[Keys.LABEL]} marks {marked} pixels"
            )
            found.append(finding("marked_healthy", text, "correct the target or the mask in the datalist", item.file))
    return found


def images_as_masks(items: Sequence[AuditItem]) -> list[Finding]:
    """Return an error for each image that is given as its own mask."""
    return [
        finding(
            "image_as_mask",
            f"the {key} of image {item.file} is the image itself ({item.item[key]})",
            "give the file of its mask, or leave it out",
            item.file,
        )
        for item in items
        for key in (Keys.LABEL, Keys.FOREGROUND)
        if MaskKind.IMAGE in item.digest.mask_kinds.get(key, ())
    ]


def empty_masks(items: Sequence[AuditItem]) -> list[Finding]:
    """Warn of masks of anomalous images that mark nothing."""
    files = [
        str(item.item[Keys.LABEL]) for item in items if item.target == 1 and item.digest.marked.get(Keys.LABEL) == 0
    ]
    if not files:
        return []
    text = f"{len(files)} mask(s) of anomalous images mark nothing, so every pixel counts as healthy: {listing(files)}"
    return [finding("empty_mask", text, "remove the 'label' where nothing was annotated", files[0])]


def odd_masks(items: Sequence[AuditItem]) -> list[Finding]:
    """Warn of masks that are read without an error and may mean something else than what is made of them."""
    kinds = (
        (MaskKind.FULL, "full_mask", "mark every pixel", "check that they are masks, and not inverted"),
        (
            MaskKind.SOFT,
            "soft_mask",
            "hold more than two values, of which all above 0 count as marked",
            "threshold soft masks where you want their border",
        ),
    )
    found = []
    for kind, code, what, remedy in kinds:
        files = [str(i.item[key]) for i in items for key, of in i.digest.mask_kinds.items() if kind in of]
        if files:
            found.append(finding(code, f"{len(files)} mask(s) {what}: {listing(files)}", remedy, files[0]))
    return found
