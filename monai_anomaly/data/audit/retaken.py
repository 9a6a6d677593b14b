# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of one patient taken twice: shifted and turned a little, which a comparison in place does not see.

Found between the unlabeled images that a method learns from and the images it is judged on, where patients are not
always known.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ...transforms.loading import LoadImageChecked
from ..datalist import TESTING, UNLABELED, VALIDATION
from .duplicates import DuplicateSearch
from .items import AuditItem

# Measured at 128 x 128 on all pairs of different patients, on the sets it was chosen on: at most 0.73 among 296 fundus
# photographs, 0.66 among 418 and 0.80 among 976 chest radiographs, where dark frames alike in two pictures count; one
# eye that was photographed twice has 0.95. Of copies made by program (shift up to 6 %, turn up to 2 degrees, gamma)
# 43 to 77 % reach 0.85, against 5 to 18 % that the comparison in place finds. An error must be right.
RETAKEN = 0.85
DETAIL_SIZE = 128
REACH = DETAIL_SIZE // 8
_FINE, _COARSE = 1.0, 4.0
_CANDIDATES = 64
_BLOCK = 512
_SHRINKAGE = 32.0


def find_retaken(items: Sequence[AuditItem], num_workers: int = 0, threshold: float = RETAKEN) -> list[dict[str, Any]]:
    """Return the testing and validation images whose scene is also in an unlabeled image; 2D only.

    Each image is compared with the 64 unlabeled ones that are most alike as thumbnails.

    Args:
        items: with their digests; unusable, constant and volume images are left out.
        num_workers: decoding threads; 0 counts as 1. The files are decoded again, at a higher resolution.
        threshold: similarity from which two images show one scene, in (0, 1).

    Returns:
        One dictionary for each of the two sections with a pair: ``section``, ``seen_in``, and ``pairs``: ``file``,
        ``other``, ``similarity``, the most similar ones first.
    """
    sections = (UNLABELED, TESTING, VALIDATION)
    usable = [i for i in items if i.section in sections and i.image and not i.image.constant]
    usable = [i for i in usable if i.image is not None and i.image.thumbnail.ndim == 2]
    places = {name: [row for row, item in enumerate(usable) if item.section == name] for name in sections}
    asked = places[TESTING] + places[VALIDATION]
    if not asked or not places[UNLABELED]:
        return []
    best, other = _most_similar(usable, asked, places[UNLABELED], num_workers)
    found = []
    for section in (TESTING, VALIDATION):
        pairs = [
            {"file": usable[row].file, "other": usable[match].file, "similarity": round(similarity, 4)}
            for row, match, similarity in zip(asked, other.tolist(), best.tolist(), strict=True)
            if usable[row].section == section and similarity >= threshold
        ]
        if pairs:
            pairs.sort(key=lambda pair: -float(pair["similarity"]))
            found.append({"section": section, "seen_in": UNLABELED, "pairs": pairs})
    return found


def describe_details(images: Tensor) -> Tensor:
    """Return what is left of images (N, S, S) without brightness, contrast and what all of them share; unit norm.

    A difference of two Gaussian blurs (sigma 1 and 4 pixels), minus its shrunk mean over the set, divided by its local
    strength, under a Hann window.
    """
    return _described(_band(images))


def registered_similarity(left: Tensor, right: Tensor, reach: int = REACH) -> Tensor:
    """Return the largest cosine of two descriptors over shifts of up to ``reach`` pixels along each axis.

    Args:
        left: (P, S, S) of :func:`describe_details`.
        right: the same.
        reach: pixels, at least 0 and less than S / 2.
    """
    size = left.shape[-1]
    product = torch.fft.rfft2(left).conj() * torch.fft.rfft2(right)
    shifts = torch.arange(-reach, reach + 1) % size
    return torch.fft.irfft2(product, s=(size, size))[:, shifts][:, :, shifts].flatten(1).amax(1)


def _most_similar(
    usable: Sequence[AuditItem], asked: Sequence[int], unlabeled: Sequence[int], num_workers: int
) -> tuple[Tensor, Tensor]:
    """Return, for each image asked, the similarity and the position of the unlabeled image most like it."""
    search = DuplicateSearch([item.image.thumbnail for item in usable if item.image])
    details = torch.empty(len(usable), DETAIL_SIZE, DETAIL_SIZE)
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        for row, image in enumerate(pool.map(_detail, (item.file for item in usable))):
            details[row] = _band(image)[0]
    details = _described(details)
    references = torch.tensor(unlabeled)
    best, other = [], []
    for block in torch.tensor(asked).split(_BLOCK):
        candidates = search.most_similar(block, references, _CANDIDATES)  # (M, C)
        columns = [registered_similarity(details[block], details[column]) for column in candidates.T]
        value, place = torch.stack(columns, 1).max(1)
        best.append(value)
        other.append(candidates.gather(1, place[:, None])[:, 0])
    return torch.cat(best), torch.cat(other)


def _detail(file: str) -> Tensor:
    """Return the gray image, (1, S, S)."""
    gray = LoadImageChecked(2)(file).as_tensor().mean(0)
    return F.adaptive_avg_pool2d(gray[None], DETAIL_SIZE)


def _band(images: Tensor) -> Tensor:
    return _blurred(images, _FINE) - _blurred(images, _COARSE)


def _described(bands: Tensor) -> Tensor:
    """Turn the bands (N, S, S) of a set into descriptors, in their place: there may be thousands."""
    shared = bands.mean(0) * (len(bands) / (len(bands) + _SHRINKAGE))
    window = torch.hann_window(bands.shape[1], periodic=False)
    for block in bands.split(_BLOCK):
        band = block - shared
        strength = _blurred(band**2, 2 * _COARSE).clamp_min(0).sqrt()
        # a tenth of the greatest strength: where there is next to nothing, as in a black border, noise stays low
        band = band / (strength + 0.1 * strength.amax((1, 2), keepdim=True) + 1e-12)
        band = band * window[:, None] * window
        block.copy_(F.normalize((band - band.mean((1, 2), keepdim=True)).flatten(1), dim=1, eps=1e-12).view_as(band))
    return bands


def _blurred(images: Tensor, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter(images.to(torch.float32).numpy(), (0, sigma, sigma)))
