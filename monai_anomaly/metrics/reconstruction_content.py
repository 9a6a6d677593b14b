# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import torch
from torch import Tensor, nn

from .gather import reduce_sum

__all__ = ["ReconstructionContent"]

# cells of the grid on which images are compared with each other: as many in 2D as in 3D, so that processes without an
# image can add their zeros
_GRIDS = {2: nn.AdaptiveAvgPool2d((16, 16)), 3: nn.AdaptiveAvgPool3d((8, 8, 4))}
_FEWEST = 8  # images below which nothing is said about what all of them share


class ReconstructionContent:
    """Whether reconstructions carry anything of their images; sums only, merged over processes.

    A network that has not learned, or has learned too little, can still have a fair AUROC: the error of a flat
    reconstruction is the image itself. So it is said when, pooled over all images,

    - the variance of the reconstruction is below 1 % of the image's (no structure), or
    - the correlation of the two within an image is below 0.3 (noise, or another picture), or
    - from one image to the next, on a grid of 256 cells, the reconstruction has below 1 % of the variance that
      the images have (the same reconstruction for every image), of eight images or more.
    """

    def __init__(self) -> None:
        self._within = torch.zeros(3, dtype=torch.float64)  # sums of squares and products around each image's mean
        self._count = torch.zeros(1, dtype=torch.float64)
        # by cell: sum and sum of squares, of image and of reconstruction
        self._between = torch.zeros(2, 2, 256, dtype=torch.float64)

    def update(self, image: Tensor, reconstruction: Tensor) -> None:
        """Add an image (C, *S) and its reconstruction (C, *S)."""
        pair = torch.stack([image, reconstruction]).detach().cpu().double()
        centered = (pair - pair.flatten(1).mean(1).view(2, *[1] * (pair.ndim - 1))).flatten(1)
        self._within += torch.stack([*centered.square().mean(1), centered.prod(0).mean()])
        cells = _GRIDS[pair.ndim - 2](pair).mean(1).flatten(1)
        self._between += torch.stack([cells, cells.square()])
        self._count += 1

    def warnings(self) -> list[str]:
        """Sentences on what is wrong, none where nothing is; every process must call it."""
        count, of_image, of_reconstruction, product, *between = self._reduced().tolist()
        if not count or not of_image:
            return []
        if of_reconstruction < 0.01 * of_image:
            return [_sentence("have hardly any structure")]
        if product < 0.3 * (of_image * of_reconstruction) ** 0.5:
            return [_sentence("look like noise, or like other pictures")]
        images_differ, reconstructions_differ = between
        if count >= _FEWEST and reconstructions_differ < 0.01 * images_differ:
            return [_sentence("are nearly the same for every image")]
        return []

    def _reduced(self) -> Tensor:
        """Count, the three sums within images, and the variances between them of image and reconstruction."""
        total = reduce_sum(torch.cat([self._count, self._within]))
        first, second = reduce_sum(self._between)
        variance = (second / total[0] - (first / total[0]).square()).mean(1) if total[0] else first.new_zeros(2)
        return torch.cat([total, variance])


def _sentence(what: str) -> str:
    return (
        f"the reconstructions {what}: they carry nothing of the images, and maps made of them show the images "
        "themselves; train for longer (--max_epochs), or look at --learning_rate and the scaling of the images"
    )
