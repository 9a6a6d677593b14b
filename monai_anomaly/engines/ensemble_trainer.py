# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import Tensor
from torch.utils.data import DataLoader

from ..networks.blocks.ensemble import NetworkEnsemble
from ..utils import Keys, unwrap
from .batch import prepare_image_batch

logger = logging.getLogger(__name__)


class EnsembleTrainer(SupervisedTrainer):
    """Trains the members of an ensemble one after the other in one run, each repelled from those before it.

    Of ``max_epochs`` epochs in all, epoch e (from 0) trains member ``e * N // max_epochs``. Earlier members are frozen
    in evaluation mode. Which member learns follows from the epoch alone, so one checkpoint of network, optimizer and
    trainer is enough to go on after a kill.

    One optimizer over all parameters is as good as a fresh one for each member: its state for a parameter is made at
    the first gradient that the parameter receives, and parameters without gradient are skipped. The state of finished
    members is dropped, so the checkpoint does not grow.

    Where the training images are not augmented, the frozen members' features are computed once for the whole data set
    when a member's turn begins; otherwise for every batch, without gradient.

    Args:
        args: as in MONAI's ``SupervisedTrainer``; the network is a :class:`NetworkEnsemble`, possibly wrapped for
            distributed training with ``find_unused_parameters=True``; the data set yields ``image`` and ``index``.
        cache_features: keep the frozen members' features of all training images in memory; None decides by the data
            set's ``is_random``.
        kwargs: as in ``SupervisedTrainer``.

    Raises:
        ValueError: when the network is no ensemble or there are fewer epochs than members.
    """

    def __init__(self, *args: Any, cache_features: bool | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("prepare_batch", prepare_image_batch)
        kwargs.setdefault("decollate", False)
        # gradients that are None, not zero, are what keeps the optimizer's hands off the frozen members
        kwargs["optim_set_to_none"] = True
        super().__init__(*args, **kwargs)
        ensemble = unwrap(self.network)
        if not isinstance(ensemble, NetworkEnsemble):
            raise ValueError(f"EnsembleTrainer trains a NetworkEnsemble, got {type(ensemble).__name__}.")
        if self.state.max_epochs < len(ensemble.members):
            raise ValueError(
                f"{len(ensemble.members)} members need at least as many epochs, got {self.state.max_epochs}."
            )
        self.ensemble = ensemble
        dataset = getattr(self.data_loader, "dataset", None)
        self.cache_features = not getattr(dataset, "is_random", True) if cache_features is None else cache_features
        self._prepare_image = self.prepare_batch
        self.prepare_batch = self._prepare_with_features
        self._member: int | None = None
        self._senior_features: Tensor | None = None
        self.add_event_handler(Events.EPOCH_STARTED, EnsembleTrainer._begin_epoch)

    def member_of_epoch(self, epoch: int) -> int:
        """Index of the member that epoch ``epoch`` (from 1) trains."""
        return (epoch - 1) * len(self.ensemble.members) // self.state.max_epochs

    @staticmethod
    def _begin_epoch(engine: Engine) -> None:
        assert isinstance(engine, EnsembleTrainer)
        member = engine.member_of_epoch(engine.state.epoch)
        if member != engine._member:
            engine._begin_member(member)

    def _begin_member(self, index: int) -> None:
        logger.info("training member %d of %d", index + 1, len(self.ensemble.members))
        self._member = index
        self.ensemble.activate(index)
        for senior in self.ensemble.members[:index]:
            for parameter in senior.parameters():
                parameter.grad = None
                self.optimizer.state.pop(parameter, None)
        self._senior_features = self._features_of_dataset() if index and self.cache_features else None

    def _features_of_dataset(self) -> Tensor:
        """Features of the frozen members for every training image in the order of the data set, (J, N, ...)."""
        loader = self.data_loader
        if not isinstance(loader, DataLoader):
            raise ValueError(f"cache_features needs a DataLoader over a data set, got {type(loader).__name__}.")
        # a generator of its own, because a loader draws a seed: a resumed run would be one draw ahead of an unbroken
        # one
        in_order = DataLoader(
            loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn, generator=torch.Generator()
        )
        features = []
        for batch in in_order:
            image, _ = self._prepare_image(batch, self.state.device, self.non_blocking, **self.to_kwargs)
            features.append(self.ensemble.features_of_seniors(image))
        return torch.cat([batch for batch in features if batch is not None], dim=1)

    def _prepare_with_features(
        self, batchdata: dict[str, Any], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor | None]]:
        image, target = self._prepare_image(batchdata, *args, **kwargs)
        features = self._senior_features
        if features is not None:
            features = features[:, torch.as_tensor(batchdata[Keys.INDEX], device=features.device)]
        return image, target, (), {"senior_features": features}
