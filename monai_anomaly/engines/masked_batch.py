# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..functional.masking import num_kept, random_kept
from ..networks.maps.masked_map import MaskedNetwork
from ..utils import Keys, derive_seed
from .batch import prepare_image_batch


class MaskedBatch:
    """Images and the patches of them that a masked autoencoder is shown: the ``prepare_batch`` of its training.

    Every image gets masks of its own, anew each time.

    Args:
        network: the autoencoder, for the number of its patches.
        mask_ratio: share of patches removed: 0.75 (default) in MAE and AMAE, 0.9 in the pre-training of Xiao et al.
        num_masks: masks an image L: 1 (default) in MAE, 2 in the second stage of AMAE.
        seed: None (default) draws from PyTorch's random state. A number draws the same for the same images in each
            pass, so that the losses of two validations can be compared.

    Raises:
        ValueError: when a number is outside its range.
    """

    def __init__(
        self, network: MaskedNetwork, mask_ratio: float = 0.75, num_masks: int = 1, seed: int | None = None
    ) -> None:
        num_kept(network.num_patches, mask_ratio)  # refuses a ratio that leaves nothing
        if num_masks < 1:
            raise ValueError(f"num_masks must be at least 1, got {num_masks!r}")
        self.num_patches = network.num_patches
        self.mask_ratio = mask_ratio
        self.num_masks = num_masks
        self.seed = seed

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
        """Images (B, C, *S), the same as targets, and ``kept`` (B, L, V) for the network.

        Args:
            batchdata: batch with ``image``, and with ``index`` where there is a seed.
            device: where to move it.
            non_blocking: as in ``Tensor.to``.
            kwargs: further arguments of ``Tensor.to``.
        """
        image, target = prepare_image_batch(batchdata, device, non_blocking, **kwargs)
        kept = random_kept(len(image) * self.num_masks, self.num_patches, self.mask_ratio, self._generator(batchdata))
        return image, target, (), {"kept": kept.unflatten(0, (-1, self.num_masks)).to(image.device)}

    def _generator(self, batchdata: dict[str, Any]) -> torch.Generator | None:
        if self.seed is None:
            return None
        return torch.Generator().manual_seed(derive_seed(self.seed, *map(int, batchdata[Keys.INDEX])))
