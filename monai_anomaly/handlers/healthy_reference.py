# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from torch import Tensor
from tqdm import tqdm

from ..metrics.gather import gather_rows
from ..utils import Keys, plain_tensor


class HealthyReference:
    """Scores healthy images that are not evaluated, so that a threshold can be chosen before a test image is seen.

    Before the evaluation begins, its own network and inferer score the images. The working point is a quantile of
    these scores; it stands in ``engine.state.working_point``, from where :class:`MetricsWriter` and
    :class:`ReportWriter` take it. Without images there is none, and a report says where its threshold comes from.

    Args:
        data: items with ``image``, from :func:`monai_anomaly.data.healthy_items`.
        transform: transform(s) that make of an item what the network takes.
        batch_size: images of a batch.
        num_workers: processes that load them.
        quantile: share of the healthy images below the working point, between 0 and 1.

    Raises:
        ValueError: when ``quantile`` is not between 0 and 1.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[..., Any],
        batch_size: int = 16,
        num_workers: int = 0,
        quantile: float = 0.95,
    ) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"quantile must be between 0 and 1, got {quantile!r}")
        self.data = list(data)
        self.transform = transform
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.quantile = quantile

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator, after the handler that loads its weights."""
        engine.add_event_handler(Events.STARTED, self._choose)

    def _choose(self, engine: Any) -> None:
        engine.state.working_point = None
        if not self.data:
            return
        scores = gather_rows(self._scores(engine)).double().numpy()
        engine.state.working_point = {
            "threshold": float(np.quantile(scores, self.quantile)),
            "quantile": self.quantile,
            "healthy_images": len(scores),
        }

    def _scores(self, engine: Any) -> Tensor:
        """Scores (N,) of this process's share of the images."""
        share = self.data[idist.get_rank() :: idist.get_world_size()]
        if not share:
            return torch.zeros(0)
        loader = DataLoader(Dataset(share, self.transform), batch_size=self.batch_size, num_workers=self.num_workers)
        scores = []
        device = torch.device(engine.state.device)
        autocast = torch.autocast(device.type, enabled=engine.amp, **engine.amp_kwargs)
        with engine.mode(engine.network), autocast:
            for batch in tqdm(loader, desc="healthy reference", unit="batch", disable=idist.get_rank() != 0):
                image = plain_tensor(batch[Keys.IMAGE]).to(device)
                scores.append(engine.inferer(image, engine.network)[Keys.SCORE].flatten().float().cpu())
        return torch.cat(scores)


def working_point_text(point: Mapping[str, Any]) -> str:
    """Where a working point comes from, for people."""
    return f"{100 * point['quantile']:g}th percentile of {point['healthy_images']} healthy validation images"
