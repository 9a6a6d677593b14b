# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...functional.labelling import mean_change
from .placing import PatchBatch, VoxelBatch, images_at_once


class Canvas:
    """A batch while its anomalies are being made: image, support and weight in one tensor, written together."""

    def __init__(self, clean: Tensor) -> None:
        self.clean = clean
        self.maps = torch.cat([clean, torch.zeros_like(clean[:, :1]).expand(-1, 2, *clean.shape[2:])], 1)

    @property
    def image(self) -> Tensor:
        """The images as they are now, (B, C, *S)."""
        return self.maps[:, :-2]

    def write(self, batch: PatchBatch | VoxelBatch, after: Tensor, changed: Tensor, support: Tensor) -> None:
        """Write what changed, and where the anomaly is.

        Args:
            batch: the patches.
            after: their new values.
            changed: which of these are written, bool.
            support: which voxels the anomaly is made of, bool; the others get no label.
        """
        old = batch.take(self.maps[:, -2:])
        new = torch.cat(
            [
                torch.where(changed, after, batch.values),
                torch.maximum(old[:, :1], support.to(old.dtype)),
                torch.maximum(old[:, 1:], batch.weights * (changed | support)),
            ],
            dim=1,
        )
        batch.put(self.maps, new)

    def label(
        self, labeller: Callable[[Tensor, Tensor, Tensor], Tensor], width: float, keep_unlabelled: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, labels and supports.

        Args:
            labeller: see :class:`RandAnomaly`.
            width: of the value range, which changes are fractions of.
            keep_unlabelled: see :class:`RandAnomaly`; by default what gets no label becomes what it was.
        """
        count = images_at_once(self.clean)
        parts = [
            self._label(image, clean, labeller, width, keep_unlabelled)
            for image, clean in zip(self.maps.split(count), self.clean.split(count), strict=True)
        ]
        image, label, support = (torch.cat(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True))
        return image, label, support

    @staticmethod
    def _label(
        maps: Tensor,
        clean: Tensor,
        labeller: Callable[[Tensor, Tensor, Tensor], Tensor],
        width: float,
        keep_unlabelled: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        image = maps[:, :-2]
        made = (image != clean).flatten(1).any(1)
        support = (maps[:, -2:-1] > 0) & made.reshape(-1, *[1] * (clean.ndim - 1))
        change = mean_change(image, clean, support)
        label = labeller(change if width == 1 else change / width, support, maps[:, -1:])
        labelled = label > 0
        return image.clone() if keep_unlabelled else torch.where(labelled, image, clean), label, labelled
