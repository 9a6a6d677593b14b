# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.transforms import RandomizableTransform
from monai.utils import TransformBackends
from torch import Tensor

from .anomaly import RandAnomaly, corrupt_one
from .dictionary import RandAnomalyd
from .plan import Plan, Sources


class RandAnomalyMixture(RandomizableTransform):
    """One of several corruptions, drawn anew for every image, or none.

    Args:
        tasks: the corruptions, each with its own settings; their random states are not used.
        probs: probability of each, in the same order, summing to 1; None (default): all alike.
        p_clean: probability that an image is left as it is, default 0; 0.2 in the image-conditioned diffusion paper.

    Raises:
        ValueError: when there is no task, or the probabilities do not fit.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self, tasks: Sequence[RandAnomaly], probs: Sequence[float] | None = None, p_clean: float = 0.0
    ) -> None:
        if not 0 <= p_clean <= 1:
            raise ValueError(f"p_clean must be in [0, 1], got {p_clean!r}")
        RandomizableTransform.__init__(self, 1 - p_clean)
        if not tasks:
            raise ValueError("tasks holds no corruption")
        for task in tasks:
            if not isinstance(task, RandAnomaly):
                raise ValueError(
                    f"tasks must be single corruptions, got {type(task).__name__}: give those of a mixture"
                )
        probs = [1 / len(tasks)] * len(tasks) if probs is None else list(probs)
        if len(probs) != len(tasks) or not (min(probs) >= 0 and abs(sum(probs) - 1) <= 1e-6):
            raise ValueError(f"probs must be {len(tasks)} numbers >= 0 with sum 1, got {probs!r}")
        self.tasks = list(tasks)
        self.probs = probs

    @property
    def dims(self) -> tuple[int, ...]:
        """Spatial dimensions that all corruptions are defined for."""
        return tuple(sorted(set.intersection(*(set(task.dims) for task in self.tasks))))

    @property
    def needs_source(self) -> bool:
        """Whether one of the corruptions pastes from other images, and has none of its own."""
        return any(task.needs_source for task in self.tasks)

    def __call__(
        self,
        img: NdarrayOrTensor,
        foreground: NdarrayOrTensor | None = None,
        source: NdarrayOrTensor | None = None,
    ) -> dict[str, Any]:
        """Corrupt one image, see :meth:`RandAnomaly.__call__`."""
        return corrupt_one(self, img, foreground, source)

    def plan(
        self,
        rng: np.random.RandomState,
        image: Tensor,
        foreground: NdarrayOrTensor | None = None,
        sources: Sources | None = None,
    ) -> Plan:
        """Draw a corruption and its anomalies."""
        clean = rng.rand() >= self.prob
        chosen = int(rng.choice(len(self.tasks), p=self.probs))
        if clean:
            return Plan([], self.tasks[chosen].task, chosen)
        task = self.tasks[chosen]
        plan = task.plan(rng, image, foreground, sources)
        return Plan(plan.patches, plan.task, chosen)

    def apply(self, images: Tensor, plans: Sequence[Plan]) -> dict[str, Tensor]:
        """Make the drawn anomalies, the images of each corruption at once."""
        rows = [[row for row, plan in enumerate(plans) if plan.branch == branch] for branch in range(len(self.tasks))]
        parts = [
            task.apply(images[chosen], [plans[row] for row in chosen])
            for task, chosen in zip(self.tasks, rows, strict=True)
            if chosen
        ]
        order = np.argsort([row for chosen in rows for row in chosen])
        index = torch.from_numpy(order).to(images.device)
        return {key: torch.cat([part[key] for part in parts])[index] for key in parts[0]}


class RandAnomalyMixtured(RandAnomalyd):
    """Dictionary version of :class:`RandAnomalyMixture`."""

    corruption = RandAnomalyMixture


RandAnomalyMixtureD = RandAnomalyMixtureDict = RandAnomalyMixtured
