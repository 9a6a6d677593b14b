# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor
from tqdm import tqdm

from ..functional.reduction import mean_score
from ..utils import Keys, plain_tensor

AXES = (0, 1, 2)
_ROUNDING = 1e-5  # a constant that was interpolated varies by this share of itself; a step of 16 bits is larger


class SliceWiseInferer(Inferer):
    """Lets an inferer of images take volumes, slice by slice.

    The slices along one axis, of all volumes of a batch, are shown to the inferer ``batch_size`` at a time, and their
    maps are stacked again. A constant slice is not shown: its map is zero and its reconstruction the slice itself.
    So a slice gets what it gets alone, and an inferer that keeps the results of images keeps those of slices.

    MONAI's ``SliceInferer`` shows every slice and can stack no scores; here constant slices are left out before batches
    are made, and a volume gets one score.

    Args:
        inferer: of images (B, C, *P); gives a dictionary with maps (B, C', *P), of which others than these are left
            out, or one map.
        axis: spatial axis that runs through the slices, 0, 1 or 2 (default; axial in files of the usual orientations).
        batch_size: slices at a time, default 16.
        reduction: from a map (B, 1, *S) of volumes to scores (B, 1), default the mean.
        progress: show a progress bar over the batches of slices, default False.

    Raises:
        ValueError: when the axis or the batch size is outside its range.
    """

    def __init__(
        self,
        inferer: Callable[..., Any],
        axis: int = 2,
        batch_size: int = 16,
        reduction: Callable[[Tensor], Tensor] = mean_score,
        progress: bool = False,
    ) -> None:
        super().__init__()
        _check_axis(axis)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1 slice, got {batch_size!r}")
        self.inferer = inferer
        self.axis = axis
        self.batch_size = batch_size
        self.reduction = reduction
        self.progress = progress

    @torch.no_grad()
    def __call__(
        self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor] | Tensor:
        """Score volumes.

        Args:
            inputs: (B, C, *S) with three spatial axes.
            network: what the inferer takes for images.
            args: handed on to the inferer.
            kwargs: handed on to the inferer.

        Returns:
            the inferer's maps (B, C', *S) and ``score`` (B, 1) of the whole ``anomaly_map``; the map alone, where the
            inferer gives one tensor.

        Raises:
            ValueError: when the inputs are no volumes, or naming volume and slice, when one holds NaN or infinity.
        """
        volumes = plain_tensor(inputs)
        if volumes.ndim != 5:
            raise ValueError(
                f"inputs must be volumes (B, C, X, Y, Z), got shape {tuple(volumes.shape)}: images of two spatial axes "
                "need no slices"
            )
        slices = volumes.movedim(self.axis + 2, 1).flatten(0, 1)
        self._check_values(slices, volumes.shape[self.axis + 2])
        shown = ~is_constant(slices)
        rows = torch.nonzero(shown).flatten() if shown.any() else shown.new_zeros(1).long()  # one tells which maps
        batches = rows.split(self.batch_size)
        bar = tqdm(batches, desc="slices", unit="batch", leave=False, disable=not self.progress)
        parts = [self.inferer(slices[batch], network, *args, **kwargs) for batch in bar]
        if isinstance(parts[0], Tensor):
            return self._stack(torch.cat(parts), slices, shown, len(volumes))
        result = {
            key: self._stack(
                torch.cat([part[key] for part in parts]), slices, shown, len(volumes), key == Keys.RECONSTRUCTION
            )
            for key, value in parts[0].items()
            if value.ndim == slices.ndim
        }
        return result | {Keys.SCORE: self.reduction(result[Keys.MAP])}

    def _stack(self, made: Tensor, slices: Tensor, shown: Tensor, count: int, copies: bool = False) -> Tensor:
        """Maps (B, C', *S) of ``count`` volumes out of those of the slices shown, the others zero or copied."""
        whole = slices.to(made).clone() if copies else made.new_zeros(len(slices), *made.shape[1:])
        whole[shown] = made[: int(shown.sum())]
        return whole.unflatten(0, (count, -1)).movedim(1, self.axis + 2).contiguous()

    def _check_values(self, slices: Tensor, depth: int) -> None:
        wrong = torch.nonzero(~torch.isfinite(slices).flatten(1).all(1)).flatten().tolist()
        if wrong:
            volume, place = divmod(wrong[0], depth)
            raise ValueError(
                f"slice {place} along axis {self.axis} of volume {volume} of the batch holds NaN or infinity"
                f" ({len(wrong)} such slices in all): replace these values, for instance by the background's"
            )


def is_constant(images: Tensor) -> Tensor:
    """Which images (B, C, *S) have one value a channel, up to the rounding of an interpolation, (B,)."""
    flat = images.flatten(2)
    low, high = flat.amin(2), flat.amax(2)
    return (high - low <= _ROUNDING * torch.maximum(low.abs(), high.abs())).all(1)


def in_plane_size(spatial_size: Sequence[int], axis: int = 2) -> list[int]:
    """Size to bring volumes to so that their slices have the size of a 2D network's images, and all slices stay.

    Args:
        spatial_size: the two numbers of pixels of the network's images.
        axis: spatial axis that runs through the slices, 0, 1 or 2.

    Returns:
        three numbers, -1 for the slices' axis, which MONAI's ``Resize`` leaves as it is.

    Raises:
        ValueError: when there are not two numbers, or the axis is another.
    """
    _check_axis(axis)
    size = [int(pixels) for pixels in spatial_size]
    if len(size) != 2 or min(size) < 1:
        raise ValueError(
            f"spatial_size must be the two numbers that the 2D network was trained with, got {list(spatial_size)}; "
            "networks of three spatial axes take whole volumes (in a bundle: leave configs/volumes.json out)"
        )
    return [*size[:axis], -1, *size[axis:]]


def _check_axis(axis: int) -> None:
    if axis not in AXES:
        raise ValueError(f"axis must be one of {AXES}, got {axis!r} (in a bundle: slice_axis)")
