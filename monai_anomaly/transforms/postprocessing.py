# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from ..functional.reduction import mean_score
from ..utils import Keys


class ScoreMapd(MapTransform):
    """Names what a map network returned: ``anomaly_map`` is the map (1, *S), ``score`` its reduction (1,).

    Args:
        keys: the network's output, one key.
        reduction: from maps (B, 1, *S) to scores (B, 1).
        allow_missing_keys: leave samples without the key as they are.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reduction: Callable[[Tensor], Tensor] = mean_score,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name one map, got {self.keys}.")
        self.reduction = reduction

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the named fields to a sample."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            sample[Keys.MAP] = sample[key]
            sample[Keys.SCORE] = self.reduction(sample[key][None])[0]
        return sample


ScoreMapD = ScoreMapDict = ScoreMapd
