# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ignite.distributed as idist
import torch
from torch import Tensor

from .gather import gather_rows, gather_strings

__all__ = ["ImageAccumulator", "ImageScores", "patient_names"]


class ImageScores(NamedTuple):
    """Scores of the images of all ranks, without those seen twice.

    Args:
        scores: (N,) float64, larger is more abnormal.
        targets: (N,) int64, 0 healthy or 1 anomalous.
        patients: N names.
    """

    scores: Tensor
    targets: Tensor
    patients: list[str]


def patient_names(patients: Sequence[Any] | None, indices: Sequence[int], seen: int) -> list[str]:
    """Name the patient of each image; an image without one is a patient of its own.

    Args:
        patients: name of each image's patient, None or an empty string where unknown.
        indices: position of each image in the data list, -1 where unknown.
        seen: images this rank held before, to name those that have neither patient nor index.
    """
    known = patients if patients is not None else [None] * len(indices)
    own = [f"image {i}" if i >= 0 else f"image {idist.get_rank()}.{seen + k}" for k, i in enumerate(indices)]
    return [
        name if patient is None or patient == "" else str(patient) for patient, name in zip(known, own, strict=True)
    ]


def first_of_each(indices: Tensor) -> Tensor:
    """Return (N,) bool, False for rows whose index (>= 0) occurred in an earlier row."""
    order = torch.argsort(indices, stable=True)
    repeated = torch.zeros_like(indices, dtype=torch.bool)
    ordered = indices[order]
    repeated[order[1:]] = (ordered[1:] == ordered[:-1]) & (ordered[1:] >= 0)
    return ~repeated


class ImageAccumulator:
    """Keeps image scores, targets, patients and indices until the epoch ends, and gathers them from all ranks."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._rows: list[Tensor] = []
        self._patients: list[str] = []
        self._gathered: ImageScores | None = None

    def update(
        self,
        scores: Tensor,
        targets: Tensor,
        patients: Sequence[Any] | None = None,
        indices: Sequence[int] | None = None,
    ) -> None:
        """Add images.

        Args:
            scores: (B,) or (B, 1); larger is more abnormal.
            targets: (B,) or (B, 1), 0 healthy or 1 anomalous.
            patients: patient of each image; images without one count as patients of their own.
            indices: position of each image in its data list; an image with an index seen before is ignored.

        Raises:
            ValueError: sizes differ, a score is NaN, or a target is not 0 or 1.
        """
        flat, target = scores.detach().reshape(-1), targets.detach().reshape(-1)
        if flat.numel() != target.numel():
            raise ValueError(f"expected one score per target, got {tuple(scores.shape)} and {tuple(targets.shape)}.")
        if not bool(((target == 0) | (target == 1)).all()):
            raise ValueError(f"targets must be 0 or 1, got {torch.unique(target)[:8].tolist()}.")
        positions = [-1] * flat.numel() if indices is None else [int(i) for i in indices]
        if bool(torch.isnan(flat).any()):
            bad = [positions[i] for i in torch.isnan(flat).nonzero().flatten().tolist()]
            raise ValueError(
                f"scores must not be NaN, got NaN for the images with index {bad[:8]} (-1: index unknown)."
            )
        self._patients += patient_names(patients, positions, len(self._patients))
        columns = (
            flat.cpu().to(torch.float64),
            target.cpu().to(torch.float64),
            torch.tensor(positions).to(torch.float64),
        )
        self._rows.append(torch.stack(columns, 1))
        self._gathered = None

    def gathered(self) -> ImageScores:
        """Return the images of all ranks, each once; every rank must call this."""
        if self._gathered is None:
            rows = gather_rows(torch.cat([torch.zeros(0, 3, dtype=torch.float64), *self._rows]))
            patients = gather_strings(self._patients)
            keep = first_of_each(rows[:, 2].to(torch.int64))
            names = [name for name, kept in zip(patients, keep.tolist(), strict=True) if kept]
            self._gathered = ImageScores(rows[keep, 0], rows[keep, 1].to(torch.int64), names)
        return self._gathered
