# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..utils import Keys, plain_tensor
from .dataset import AnomalyDataset, EpochDataset, EpochSampler


class Encoder(Protocol):
    """What makes features of images, such as :class:`monai_anomaly.networks.nets.EncoderClassifier`."""

    def features(self, image: Tensor) -> Tensor | list[Tensor]:
        """Features (B, ...) of images (B, C, *S), one tensor or several."""


class EncodedDataset(EpochDataset):
    """Features of an :class:`AnomalyDataset`'s images, made once.

    For a network that is trained on a frozen one: an epoch takes no corruption and no encoder. The random transform is
    drawn for ``variants`` epochs, which then come again and again: with fewer variants than epochs a network sees less
    variety than it would of the data set itself. Images that are the same in every epoch need one variant.

    A sample holds ``features``: a tensor (..., or 2, ... where two tensors of a sample are encoded), or a list of them
    where the encoder makes several; ``index``; and ``target`` where the data set has it. Where the ``image`` alone is
    encoded, it has that, too.

    Args:
        dataset: images with the ``keys``, and ``target``, which is 1 where an image is corrupted.
        network: what encodes: ``features(image)`` of images (B, C, *S) are the same each time.
        variants: number R of epochs to draw, at least 1. All features are held in memory: ``4 R N`` bytes for each of
            an image's features.
        batch_size: images to encode at a time.
        num_workers: processes that make the images.
        device: where to encode; the features are held in the main memory.
        progress: whether to show a progress bar.
        keys: of a sample, what to encode; default: what an image was before its corruption, and the image.

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
        keys: Sequence[str] = (Keys.CLEAN, Keys.IMAGE),
    ) -> None:
        if variants < 1:
            raise ValueError(f"variants must be at least 1, got {variants!r}")
        if not getattr(network, "frozen", True):
            raise ValueError(
                f"variants must be 0 with an encoder that is trained too, got {variants!r}: give variants=0, "
                "in a bundle --variants 0 or --keep_features False"
            )
        self.source = dataset
        self.variants = variants
        self.keys = list(keys)
        sampler = EpochSampler(dataset, shuffle=False, num_replicas=1, rank=0)
        # a generator of its own: a loader draws a seed, and the state of the run must not know of this work
        loader = DataLoader(dataset, batch_size, sampler=sampler, num_workers=num_workers, generator=torch.Generator())
        encoded, targets = [], []
        for variant in tqdm(range(variants), "encoding", unit="variant", disable=not progress):
            sampler.set_epoch(variant)
            for batch in loader:
                encoded.append(_encode(batch, network, self.keys, device))
                targets.append(torch.as_tensor(batch.get(Keys.TARGET, ())))
        self.is_list = isinstance(encoded[0], list)
        parts = zip(*map(_as_list, encoded), strict=True)
        self.features = [torch.cat(part).unflatten(0, (variants, -1)) for part in parts]  # each (R, N, ...)
        self.targets = torch.cat(targets).reshape(variants, -1)  # (R, N), or (R, 0) without targets

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: int) -> dict[str, Any]:
        epoch, index = self._epoch_and_index(key)
        variant = epoch % self.variants
        features = [part[variant, index] for part in self.features]
        sample = {Keys.FEATURES: features if self.is_list else features[0], Keys.INDEX: index}
        if self.targets.shape[1]:
            sample[Keys.TARGET] = self.targets[variant, index]
        if self.keys == [Keys.IMAGE]:
            sample[Keys.IMAGE] = self.source[variant * len(self) + index][Keys.IMAGE]
        return sample

    @property
    def data(self) -> Any:
        """The items as given to the data set."""
        return self.source.data

    @property
    def is_random(self) -> bool:
        """Whether a sample differs between epochs."""
        return self.source.is_random and self.variants > 1


@torch.no_grad()
def _encode(
    batch: dict[str, Any], network: Encoder, keys: Sequence[str], device: str | torch.device
) -> Tensor | list[Tensor]:
    """Features of a batch, (B, ...), or (B, number of keys, ...): a tensor, or a list of them."""
    told = [network.features(plain_tensor(batch[key]).to(device)) for key in keys]
    joined = [
        (torch.stack(parts, 1) if len(keys) > 1 else parts[0]).cpu() for parts in zip(*map(_as_list, told), strict=True)
    ]
    return joined if isinstance(told[0], list) else joined[0]


def _as_list(features: Tensor | list[Tensor]) -> list[Tensor]:
    return features if isinstance(features, list) else [features]


def encode_dataset(dataset: AnomalyDataset, network: Encoder, variants: int = 16, **kwargs: Any) -> EpochDataset:
    """Features of a data set (:class:`EncodedDataset`), or with ``variants`` 0 the data set itself: nothing is kept."""
    return EncodedDataset(dataset, network, variants, **kwargs) if variants else dataset
