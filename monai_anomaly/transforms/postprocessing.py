# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from ..functional.reduction import mean_score
from ..utils import Keys
from .saving import in_source_geometry, source_affine


class ScoreMapd(MapTransform):
    """Names what a map network or an inferer returned: ``anomaly_map`` is the map (1, *S), ``score`` (1,) the image's.

    Takes either of what can stand where a network was asked. Programs that serve a bundle (MONAI Label, MONAI Deploy)
    put what its network or inferer gave under ``keys``: the bare map, or a dictionary with ``anomaly_map``. This
    package's own evaluators have the inferer's fields in the sample already; then ``keys`` is not there, and
    ``anomaly_map`` is.

    Args:
        keys: the network's output, one key; afterwards it is the map, wherever it was there.
        reduction: from maps (B, 1, *S) to scores (B, 1), where the inferer gave no score; None: a score that is not
            made of the map cannot be had of the map alone, and there is none.
        result_key: where to put ``{"score": number}`` too, for programs that answer in JSON (MONAI Label's
            ``"result"``). None (default): nowhere.
        allow_missing_keys: leave samples that hold neither as they are.

    Raises:
        ValueError: when ``keys`` does not name one key, or a dictionary holds no map.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reduction: Callable[[Tensor], Tensor] | None = mean_score,
        result_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name one map, got {self.keys}.")
        self.reduction = reduction
        self.result_key = result_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the named fields to a sample."""
        sample = dict(data)
        if Keys.MAP not in sample or self.keys[0] in sample:
            for key in self.key_iterator(sample):
                sample |= _fields(sample[key], key)
                sample[key] = sample[Keys.MAP]
        if Keys.MAP in sample and Keys.SCORE not in sample and self.reduction is not None:
            sample[Keys.SCORE] = self.reduction(sample[Keys.MAP][None])[0]
        if self.result_key is not None and Keys.SCORE in sample:
            told = {**(sample.get(self.result_key) or {}), "score": float(sample[Keys.SCORE])}
            sample[self.result_key] = told
        return sample


def _fields(output: Any, key: Hashable) -> dict[Hashable, Any]:
    if not isinstance(output, Mapping):
        return {Keys.MAP: output}
    if Keys.MAP not in output:
        raise ValueError(f"{key!r} must be a map or hold {Keys.MAP!r}, got the fields {sorted(map(str, output))}.")
    return dict(output)


class ResizeToSourced(MapTransform):
    """Brings maps to the axes and the size of the image that came in, without a channel axis: what a program shows.

    See :func:`monai_anomaly.transforms.resize_to_source`.

    Args:
        keys: maps (1, *S) of the preprocessed image's size; they become float32 MetaTensors (*T) on the CPU with the
            affine of the image that came in.
        image_key: the preprocessed image, which knows that size and affine.
        allow_missing_keys: leave samples without the key as they are.

    Raises:
        ValueError: when a map has several channels, holds NaN or infinity, or does not cover the image that came in.
    """

    def __init__(self, keys: KeysCollection, image_key: str = Keys.IMAGE, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with its maps resized."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            image = sample[self.image_key]
            values = in_source_geometry(sample[key], image, str(key))
            if len(values) != 1:
                raise ValueError(f"{key!r} must be a map of one channel (1, *S), got shape {tuple(sample[key].shape)}.")
            sample[key] = MetaTensor(torch.from_numpy(values[0]), affine=torch.from_numpy(source_affine(image)))
        return sample


ScoreMapD = ScoreMapDict = ScoreMapd
ResizeToSourceD = ResizeToSourceDict = ResizeToSourced
