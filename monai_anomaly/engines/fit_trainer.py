# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents, Trainer
from monai.utils import CommonKeys
from torch import Tensor
from torch.utils.data import DataLoader

from ..metrics.gather import gather_rows
from ..utils import unwrap
from .batch import prepare_image_batch

logger = logging.getLogger(__name__)
_MOST_AXES = 8


class Fitted(Protocol):
    """What is fitted: a network that takes images in one batch after the other, and needs no gradient for it."""

    def fit_batch(self, image: Tensor) -> None:
        """Take in the images (B, C, *S) of one batch."""

    def merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Become one of what several processes have taken in, their ``state_dict`` in the order of their ranks."""

    def finish(self) -> None:
        """End the fit; a second call changes nothing."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """All that was taken in."""


class FitTrainer(Trainer):
    """Shows a network every training image, without gradient, optimizer or loss: what memories and Gaussians need.

    The images come in a fixed order, each process seeing its share. After the last batch the states of all processes
    are gathered and every process merges them in the order of the ranks, so that all hold the same network, and ends
    the fit; handlers that were given see the finished network at the end of the last epoch. A run that goes on after a
    kill (:class:`monai_anomaly.handlers.FitCheckpoint`) leaves out the batches that its network has taken in already,
    without loading them.

    Like those of MONAI's trainers, its output has a ``loss``, since experiment trackers ask for one: zero, since
    nothing is minimized.

    Args:
        device: where the network is.
        train_data_loader: batches with ``image``, without shuffling; its ``sampler`` is an
            :class:`monai_anomaly.data.EpochSampler`.
        network: what is fitted; it has ``fit_batch``, ``merge`` and ``finish``, see :class:`Fitted`.
        max_epochs: passes over the images, at least 1; default 1: without random transforms another pass has nothing
            new to show, but counts every image again, which changes the shrinkage of a Gaussian.
        prepare_batch: from a batch to input and target; the input is what the network is shown.
        train_handlers: handlers.
        non_blocking: whether the images are moved to the device asynchronously.

    Raises:
        ValueError: when the network cannot be fitted, or there is no image or fewer than one for each process.

    Example:
        >>> import torch
        >>> from monai.transforms import EnsureTyped
        >>> from monai_anomaly.data import AnomalyDataset, EpochSampler
        >>> from monai_anomaly.engines import FitTrainer
        >>> class Largest(torch.nn.Module):
        ...     value = 0.0
        ...     def fit_batch(self, image): self.value = max(self.value, float(image.max()))
        ...     def merge(self, states): pass
        ...     def finish(self): pass
        >>> items = [{"image": torch.full((1, 4, 4), float(i))} for i in range(5)]
        >>> dataset = AnomalyDataset(items, EnsureTyped("image"), progress=False)
        >>> loader = torch.utils.data.DataLoader(dataset, 2, sampler=EpochSampler(dataset, shuffle=False))
        >>> trainer = FitTrainer(torch.device("cpu"), loader, Largest())
        >>> trainer.run()
        >>> trainer.network.value
        4.0
    """

    def __init__(
        self,
        device: torch.device | str,
        train_data_loader: DataLoader,
        network: Any,
        max_epochs: int = 1,
        prepare_batch: Callable[..., Any] = prepare_image_batch,
        train_handlers: Sequence[Any] | None = None,
        non_blocking: bool = False,
    ) -> None:
        missing = [name for name in ("fit_batch", "merge", "finish") if not hasattr(unwrap(network), name)]
        if missing:
            raise ValueError(
                f"network must have fit_batch, merge and finish, but {type(unwrap(network)).__name__} lacks "
                f"{', '.join(missing)}: train it with another trainer."
            )
        if max_epochs < 1:
            raise ValueError(f"max_epochs must be at least 1, got {max_epochs}.")
        if len(train_data_loader) == 0:
            raise ValueError("a process has no image to fit: give more training images, or use fewer processes.")
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            non_blocking=non_blocking,
            prepare_batch=prepare_batch,
            decollate=False,
        )
        self.network = network
        self._fitted: Fitted = unwrap(network)
        self._is_finished = False
        self.add_event_handler(Events.EPOCH_STARTED, FitTrainer._leave_out_seen)
        # before the handlers that were given, which validate what is finished here
        self.add_event_handler(Events.EPOCH_COMPLETED, FitTrainer._finish)
        self.add_event_handler(Events.COMPLETED, FitTrainer._finish)
        if train_handlers is not None:
            self._register_handlers(train_handlers)

    def _iteration(self, engine: Engine, batchdata: dict[str, Any]) -> dict[str, Any]:
        """Take in one batch."""
        image, _ = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        with torch.no_grad():
            self._fitted.fit_batch(image)
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return {CommonKeys.LOSS: torch.zeros(())}

    @staticmethod
    def _leave_out_seen(engine: Engine) -> None:
        assert isinstance(engine, FitTrainer)
        batches = engine.state.iteration % engine.state.epoch_length
        loader: Any = engine.data_loader
        sampler = getattr(loader, "sampler", None)
        if sampler is not None and hasattr(sampler, "start"):
            sampler.start = batches * loader.batch_size
        elif batches:
            raise ValueError(
                f"a fit that goes on after {batches} batches needs a sampler that can leave them out, got "
                f"{type(sampler).__name__}: give the loader an EpochSampler, or start anew."
            )

    @staticmethod
    def _finish(engine: Engine) -> None:
        """Merge and end the fit, once, when all images were shown; a run may have been complete when it was resumed."""
        assert isinstance(engine, FitTrainer)
        all_shown = engine.state.iteration >= engine.state.max_epochs * engine.state.epoch_length
        if engine._is_finished or not all_shown:
            return
        with torch.no_grad():
            if idist.get_world_size() > 1:
                engine._fitted.merge(gather_states(engine._fitted.state_dict()))
            engine._fitted.finish()
        engine._is_finished = True


def gather_states(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The ``state_dict`` of every process, in the order of the ranks; shapes may differ, names and types may not.

    Args:
        state: that of this process.
    """
    states: list[dict[str, Tensor]] = [{} for _ in range(idist.get_world_size())]
    for name, value in state.items():
        for gathered, part in zip(states, _gather_tensors(value), strict=True):
            gathered[name] = part
    return states


def _gather_tensors(value: Tensor) -> list[Tensor]:
    """One tensor of each process; bytes are sent, because backends do not know all types."""
    head = torch.zeros(1, _MOST_AXES + 2, dtype=torch.int64, device=value.device)
    content = value.detach().contiguous().reshape(-1).view(torch.uint8)
    head[0, : value.ndim] = torch.tensor(value.shape, dtype=torch.int64)
    head[0, -2], head[0, -1] = value.ndim, content.numel()
    heads = gather_rows(head).tolist()
    contents = gather_rows(content)
    parts = contents.split([int(row[-1]) for row in heads])
    return [part.clone().view(value.dtype).reshape(row[: int(row[-2])]) for part, row in zip(parts, heads, strict=True)]
