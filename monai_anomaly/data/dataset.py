# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import ignite.distributed as idist
import torch
from monai.data import CacheDataset
from monai.transforms import Compose, Randomizable, Transform, apply_transform
from monai.transforms.traits import RandomizableTrait
from torch.utils.data import Dataset, DistributedSampler

from ..utils import Keys, callable_name, derive_seed


class EpochDataset(Dataset):
    """Samples that may differ between epochs: item ``epoch * len(dataset) + index`` is one sample in one epoch."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        """Yield every sample once, as in epoch 0 (an index past the end means another epoch, not the end)."""
        return (self[index] for index in range(len(self)))

    def _epoch_and_index(self, key: int) -> tuple[int, int]:
        """Epoch and place of a sample; a negative key counts from the end, as in epoch 0."""
        size = len(self)
        if key < -size:
            raise IndexError(f"index {key} is out of range for {size} items")
        return divmod(key if key >= 0 else key + size, size)


class AnomalyDataset(EpochDataset):
    """Samples of one section: the deterministic part cached in memory, the random part drawn anew and reproducibly.

    The random transform of a sample gets a state seeded from (seed, epoch, index), so a sample does not depend on the
    number of workers or processes, on the order of samples, or on whether the run was resumed. The epoch arrives in the
    key that :class:`EpochSampler` yields, ``epoch * len(dataset) + index``; a plain index means epoch 0.

    Args:
        data: items, e.g. from ``load_datalist``.
        transform: deterministic transform(s), run once an item and cached (MONAI's ``CacheDataset``).
        random_transform: transform(s) applied at each access, e.g. augmentation or synthetic anomalies; None: none.
        seed: seed of the random transform, 0 or more; default 0.
        cache_num: at most that many items are cached, the rest is loaded at each access; default all.
        num_workers: threads that fill the cache; default 1.
        progress: whether to show a progress bar while the cache is filled; default True.
        fixed: whether every epoch draws what epoch 0 does, as a validation wants that is compared with the one before;
            default False.

    Raises:
        ValueError: when ``data`` is empty, ``seed`` is negative, or ``transform`` holds a random transform.

    Example:
        >>> from monai_anomaly.data import AnomalyDataset, load_datalist, sample_dir
        >>> from monai_anomaly.transforms import LoadImageCheckedd
        >>> items = load_datalist(f"{sample_dir()}/datalist.json", "training", limit=2)
        >>> dataset = AnomalyDataset(items, LoadImageCheckedd("image"), progress=False)
        >>> len(dataset), dataset[0]["image"].ndim, dataset[1]["index"]
        (2, 3, 1)
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Sequence[Callable[..., Any]] | Callable[..., Any],
        random_transform: Sequence[Callable[..., Any]] | Callable[..., Any] | None = None,
        seed: int = 0,
        cache_num: int = sys.maxsize,
        num_workers: int | None = 1,
        progress: bool = True,
        fixed: bool = False,
    ) -> None:
        if len(data) == 0:
            raise ValueError("data holds no item: give a section with items")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed!r}")
        deterministic = _composed(transform)
        if draws := _random_parts(deterministic):
            raise ValueError(f"transform is cached and must not be random, got {draws}: give these as random_transform")
        self.random_transform = _composed(random_transform) if random_transform else None
        self.seed = seed
        self.fixed = fixed
        self.cache = CacheDataset(
            data, deterministic.flatten(), cache_num=cache_num, num_workers=num_workers, progress=progress
        )

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, key: int) -> Any:
        epoch, index = self._epoch_and_index(key)
        item = {name: _copied(value) for name, value in self.cache[index].items()}  # what is cached must stay as it is
        item[Keys.INDEX] = index
        if self.random_transform is None:
            return item
        self.random_transform.set_random_state(seed=derive_seed(self.seed, 0 if self.fixed else epoch, index))
        return apply_transform(self.random_transform, item, map_items=False)

    @property
    def data(self) -> Sequence[Any]:
        """The items as given, before any transform."""
        return self.cache.data

    @property
    def is_random(self) -> bool:
        """Whether a sample differs between epochs; if not, what is computed from it may be kept."""
        return self.random_transform is not None and not self.fixed and bool(_random_parts(self.random_transform))


class EpochSampler(DistributedSampler):
    """Distribute the samples of an :class:`EpochDataset` over the processes and tell it the epoch.

    With ``shuffle`` (training) every process gets the same number of samples, the shortage filled with repeated ones.
    Without (evaluation) every sample comes exactly once over all processes, so their numbers may differ by one.
    MONAI's engines call ``set_epoch`` at the start of each epoch. A process group, if any, must exist before.

    ``start`` is the number of this process's samples that the next epoch leaves out, 0 unless a run goes on inside an
    epoch (:class:`monai_anomaly.engines.FitTrainer`).

    Args:
        dataset: the dataset.
        shuffle: whether to draw a new order each epoch, from (seed, epoch); default True.
        seed: seed of the order; default 0.
        num_replicas: number of processes; None (default): of the process group, 1 without one.
        rank: number of this process; None (default): of the process group, 0 without one.

    Raises:
        ValueError: when the dataset is of another kind.
    """

    def __init__(
        self,
        dataset: EpochDataset,
        shuffle: bool = True,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        if not isinstance(dataset, EpochDataset):
            raise ValueError(
                f"dataset must be an EpochDataset such as AnomalyDataset, which reads the epoch, "
                f"got {type(dataset).__name__}"
            )
        replicas = idist.get_world_size() if num_replicas is None else num_replicas
        # the base class adds the epoch to the seed: neighboring seeds would share their orders
        super().__init__(dataset, replicas, idist.get_rank() if rank is None else rank, shuffle, derive_seed(seed))
        if not shuffle:
            self.num_samples = len(range(self.rank, len(dataset), self.num_replicas))
            self.total_size = len(dataset)
        self.start = 0

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)  # type: ignore[arg-type]
        indices = super().__iter__() if self.shuffle else iter(range(self.rank, size, self.num_replicas))
        return (self.epoch * size + index for index in islice(indices, self.start, None))


def _copied(value: Any) -> Any:
    return value.clone() if type(value) is torch.Tensor else copy.deepcopy(value)


def _composed(transform: Any) -> Compose:
    return transform if isinstance(transform, Compose) else Compose(transform)


def _random_parts(transform: Any) -> list[str]:
    """Return the names of the transforms that may draw: MONAI's random ones, and callables nothing is known of."""
    if type(transform) is Compose:
        return [name for part in transform.transforms for name in _random_parts(part)]
    inner = getattr(transform, "transforms", None) if type(transform).__module__.startswith("monai.") else None
    if isinstance(transform, (Randomizable, RandomizableTrait)) or inner:
        return [type(transform).__name__]
    return [] if isinstance(transform, Transform) else [callable_name(transform)]
