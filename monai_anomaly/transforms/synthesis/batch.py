# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Randomizable
from torch import Tensor

from ...utils import Keys
from ..checks import prepare_image
from .anomaly import RandAnomaly
from .mixture import RandAnomalyMixture


class BatchAnomaly(Randomizable):
    """Corrupt a whole batch at once, on the device where it is, for training loops that want it.

    What is drawn is drawn image by image, as :class:`RandAnomaly` draws it and from one random state; what is computed
    is computed for the batch. The first image of a batch gets what the array version would make of it with the same
    state, the second what it would make next, and so on.

    Args:
        corruption: a :class:`RandAnomaly` or a mixture. One that pastes and has no sources takes the other images of
            the batch.
    """

    def __init__(self, corruption: RandAnomaly | RandAnomalyMixture) -> None:
        if not isinstance(corruption, (RandAnomaly, RandAnomalyMixture)):
            raise ValueError(f"corruption must be the array version of one, got {type(corruption).__name__}")
        self.corruption = corruption

    def __call__(self, images: Tensor, foreground: Tensor | None = None) -> dict[str, Any]:
        """Corrupt a batch.

        Args:
            images: clean images (B, C, *S) on any device.
            foreground: where anomalies may be (B, 1, *S), above 0.

        Returns:
            ``image``, ``clean``, ``label``, ``support`` (B, ...) and ``target``, ``task`` (B,) on the images' device;
            ``params``, one text an image.

        Raises:
            ValueError: when the images are not finite or have too few axes, or when there is one image alone and the
                corruption pastes from others.
        """
        batch = images.as_tensor() if isinstance(images, MetaTensor) else images
        if len(batch) == 1 and self.corruption.needs_source:
            raise ValueError(
                "a batch must have at least two images to paste from each other: set drop_last=True in the loader, or "
                "give the corruption a source"
            )
        if batch.ndim < 4:
            raise ValueError(f"BatchAnomaly takes images (B, C, *S), got {tuple(batch.shape)}")
        clean = prepare_image(batch.flatten(0, 1), self.corruption.dims, type(self.corruption).__name__).reshape(
            batch.shape
        )
        if foreground is not None and len(foreground) != len(batch):
            raise ValueError(f"{len(batch)} images need a foreground of as many, got {len(foreground)}")
        masks = None if foreground is None else foreground.detach().cpu()
        plans = []
        for row, image in enumerate(clean):
            own = images[row]
            # the spacing of the voxels is in the meta data
            frame = MetaTensor(image, meta=dict(own.meta)) if isinstance(own, MetaTensor) else image
            mask = None if masks is None else masks[row]
            plans.append(self.corruption.plan(self.R, frame, mask, _Others(clean, masks, row)))
        result: dict[str, Any] = self.corruption.apply(clean, plans)
        result[Keys.PARAMS] = [json.dumps(plan.describe()) for plan in plans]
        return result


class _Others(Sequence[Any]):
    """The images of a batch but one."""

    def __init__(self, images: Tensor, foreground: Tensor | None, own: int) -> None:
        self.images = images
        self.foreground = foreground
        self.own = own

    def __len__(self) -> int:
        return len(self.images) - 1

    def __getitem__(self, index: Any) -> Any:
        row = index + (index >= self.own)
        item = {Keys.IMAGE: self.images[row]}
        if self.foreground is not None:
            item[Keys.FOREGROUND] = self.foreground[row]
        return item
