# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

from ...utils import Keys
from .anomaly import RandAnomaly


class RandAnomalyd(MapTransform, Randomizable):
    """Dictionary version of a corruption: reads the image, and writes it and all that is known of its anomaly.

    Subclasses name their array version in ``corruption``; it gets the arguments that are not listed here.

    Args:
        keys: key of the image, one.
        corruption: the array version, a :class:`RandAnomaly` or a mixture; a subclass makes its own.
        foreground_key: key of the mask (1, *S) where anomalies may be; None (default): none is read. A sample without
            it has none.
        source_key: key of an image to paste from; None (default): the corruption has its own sources.
        clean_key: where the image before goes; default ``"clean"``.
        label_key: where the label goes; default ``"label"``.
        support_key: where the support goes; default ``"support"``.
        target_key: where 0 or 1 goes; default ``"target"``.
        task_key: where the number of the corruption goes; default ``"task"``.
        params_key: where the drawn numbers go as JSON; default ``"params"``.
        allow_missing_keys: whether a sample without the image passes through.
        kwargs: arguments of the array version.
    """

    backend = RandAnomaly.backend
    corruption: ClassVar[Callable[..., Any] | None] = None

    def __init__(
        self,
        keys: KeysCollection = Keys.IMAGE,
        corruption: Any = None,
        *,
        foreground_key: str | None = None,
        source_key: str | None = None,
        clean_key: str = Keys.CLEAN,
        label_key: str = Keys.LABEL,
        support_key: str = Keys.SUPPORT,
        target_key: str = Keys.TARGET,
        task_key: str = Keys.TASK,
        params_key: str = Keys.PARAMS,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"keys must name one image, got {self.keys}")
        maker = type(self).corruption
        if (corruption is None) == (maker is None):
            raise ValueError(
                "give corruption= to RandAnomalyd, and to its subclasses the arguments of the array version"
            )
        if corruption is not None and kwargs:
            raise ValueError(f"a ready corruption takes no more arguments, got {sorted(kwargs)}")
        self.transform = corruption if maker is None else maker(**kwargs)
        self.foreground_key = foreground_key
        self.source_key = source_key
        self.names = {
            Keys.CLEAN: clean_key,
            Keys.LABEL: label_key,
            Keys.SUPPORT: support_key,
            Keys.TARGET: target_key,
            Keys.TASK: task_key,
            Keys.PARAMS: params_key,
        }

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> RandAnomalyd:
        """Set the random state of the corruption."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the sample with its image corrupted; its other images are left alone."""
        d = dict(data)
        for key in self.key_iterator(d):
            self.refuse_results(key, d)
            if self.source_key is not None and self.source_key not in d:
                raise ValueError(f'key "{key}": the sample has no "{self.source_key}", the image to paste from')
            try:
                result = self.transform(
                    d[key],
                    None if self.foreground_key is None else d.get(self.foreground_key),
                    None if self.source_key is None else d[self.source_key],
                )
            except ValueError as error:
                raise ValueError(f'key "{key}": {error}') from error
            d[key] = result.pop(Keys.IMAGE)
            d.update({self.names[name]: value for name, value in result.items()})
        return d

    def refuse_results(self, key: Hashable, data: Mapping[Hashable, Any]) -> None:
        """Raise a ValueError where a sample holds a clean image: it may have been corrupted before."""
        if self.names[Keys.CLEAN] in data:
            raise ValueError(
                f'key "{key}": the sample already holds "{self.names[Keys.CLEAN]}"; if it was corrupted before, take '
                "OneOf or RandAnomalyMixture for one of several corruptions, else set clean_key to another name"
            )


RandAnomalyD = RandAnomalyDict = RandAnomalyd
