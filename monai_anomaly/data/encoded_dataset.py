# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..utils import Keys, plain_tensor
from .dataset import AnomalyDataset, EpochDataset, EpochSampler


class Encoder(Protocol):
    """What makes features of images; :class:`monai_anomaly.networks.nets.EncoderClassifier` is one."""

    def features(self, image: Tensor) -> Tensor:
        """Features (B, d) of images (B, C, *S)."""


class EncodedDataset(EpochDataset):
    """Features of an :class:`AnomalyDataset`'s images and of what they were before their corruption, made once.

    For a head that is trained on a frozen encoder: an epoch takes no image, no corruption and no encoder. The random
    transform is drawn for ``variants`` epochs, which then come again and again: with fewer variants than epochs a head
    sees less variety than it would of the data set itself.

    Args:
        dataset: images with ``image`` (C, *S), corrupted where ``target`` is 1, and ``clean``.
        network: what encodes: ``features(image)`` of images (B, C, *S) are (B, d), the same each time.
        variants: number R of epochs to draw, at least 1. All features are held in memory, ``8 R N d`` bytes.
        batch_size: images to encode at a time.
        num_workers: processes that make the images.
        device: where to encode; the features are held in the main memory.
        progress: whether to show a progress bar.

    Raises:
        ValueError: when ``variants`` is not positive, or the encoder is trained too, so that its features change.
    """

    def __init__(
        self,
        dataset: AnomalyDataset,
        network: Encoder,
        variants: int = 16,
        batch_size: int = 64,
        num_workers: int = 0,
        device: str | torch.device = "cpu",
        progress: bool = True,
    ) -> None:
        if variants < 1:
            raise ValueError(f"variants must be at least 1, got {variants!r}")
        if not getattr(network, "frozen", True):
            raise ValueError(
                f"variants must be 0 with an encoder that is trained too, got {variants!r}: give variants=0"
            )
        self.source = dataset
        self.variants = variants
        sampler = EpochSampler(dataset, shuffle=False, num_replicas=1, rank=0)
        # a generator of its own: a loader draws a seed, and the state of the run must not know of this work
        loader = DataLoader(dataset, batch_size, sampler=sampler, num_workers=num_workers, generator=torch.Generator())
        encoded = []
        for variant in tqdm(range(variants), "encoding", unit="variant", disable=not progress):
            sampler.set_epoch(variant)
            encoded += [_encode(batch, network, device) for batch in loader]
        features, targets = (torch.cat(parts).unflatten(0, (variants, -1)) for parts in zip(*encoded, strict=True))
        self.features = features  # (R, N, 2, d)
        self.targets = targets  # (R, N)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: int) -> dict[str, Any]:
        epoch, index = self._epoch_and_index(key)
        variant = epoch % self.variants
        target = self.targets[variant, index]
        return {Keys.FEATURES: self.features[variant, index], Keys.TARGET: target, Keys.INDEX: index}

    @property
    def data(self) -> Any:
        """The items as given to the data set."""
        return self.source.data

    @property
    def is_random(self) -> bool:
        """Whether a sample differs between epochs."""
        return self.source.is_random and self.variants > 1


@torch.no_grad()
def _encode(batch: dict[str, Any], network: Encoder, device: str | torch.device) -> tuple[Tensor, Tensor]:
    """Features (B, 2, d), clean and corrupted, and whether an image is corrupted (B,)."""
    pair = [network.features(plain_tensor(batch[key]).to(device)).cpu() for key in (Keys.CLEAN, Keys.IMAGE)]
    return torch.stack(pair, 1), torch.as_tensor(batch[Keys.TARGET])


def encode_dataset(dataset: AnomalyDataset, network: Encoder, variants: int = 16, **kwargs: Any) -> EpochDataset:
    """Features of a data set (:class:`EncodedDataset`), or with ``variants`` 0 the data set itself: nothing is kept."""
    return EncodedDataset(dataset, network, variants, **kwargs) if variants else dataset
