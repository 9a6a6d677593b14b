# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from ignite.engine import Engine, Events
from torch import nn

from .member_loader import MapOfFolds


class MemberStart:
    """Lets a training start from the weights of the first member of an ensemble that is asked.

    It belongs after the handler that loads the ensemble and before :class:`TrainingCheckpoint`, which puts a resumed
    run's own weights in their place.

    Args:
        network: network that is trained, of the kind of the members.
        teacher: the map around the ensemble.
    """

    def __init__(self, network: nn.Module, teacher: MapOfFolds) -> None:
        self.network = network
        self.teacher = teacher

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Engine) -> None:
        if engine.state.iteration == 0:  # a trainer that goes on keeps what it has learned
            folds = self.teacher.network
            self.network.load_state_dict(folds[folds.asked()[0]].state_dict())
