# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from monai.config import KeysCollection

from ...utils import Keys
from ..checks import check_choice
from .foreground import AboveMinimum, AnatomyMask, AnatomyMaskd
from .lungs import LungMask


class WholeImage(AnatomyMask):
    """Mask that is the whole image."""

    def find(self, image: np.ndarray) -> np.ndarray:
        """Return the mask (*S) of an image (C, *S)."""
        return np.ones(image.shape[1:], dtype=bool)


NAMED_MASKS: dict[str, Callable[..., AnatomyMask]] = {
    "lungs": LungMask,
    "above_minimum": AboveMinimum,
    "whole_image": WholeImage,
}


class NamedMaskd(AnatomyMaskd):
    """Writes where the object of an image is, found by a method that is chosen by its name, as in a configuration.

    Args:
        keys: key of the image, one.
        name: ``"lungs"`` (:class:`LungMask`), ``"above_minimum"`` (:class:`AboveMinimum`) or ``"whole_image"``.
        mask_key: where the mask goes; default ``"foreground"``.
        allow_missing_keys: whether a sample without the image passes through.
        kwargs: arguments of the method.

    Raises:
        ValueError: when there is no such method.
    """

    def __init__(
        self,
        keys: KeysCollection = Keys.IMAGE,
        name: str = "lungs",
        mask_key: str = Keys.FOREGROUND,
        *,
        allow_missing_keys: bool = False,
        **kwargs: Any,
    ) -> None:
        check_choice("name", name, tuple(NAMED_MASKS))
        super().__init__(keys, NAMED_MASKS[name](**kwargs), mask_key=mask_key, allow_missing_keys=allow_missing_keys)


NamedMaskD = NamedMaskDict = NamedMaskd
