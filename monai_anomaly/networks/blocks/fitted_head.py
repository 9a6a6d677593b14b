# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class FittedHead(nn.Module):
    """What is fitted to the features of healthy images in one pass, without gradients, and then measures distances.

    ``fit_batch`` for every batch, ``merge`` where several processes saw a share of the images each, ``finish`` at the
    end; then ``forward``. Everything fitted is in buffers, so ``state_dict()`` carries it at any moment, and
    memory does not grow with the number of images. Buffers of the result have the shape that ``allocate`` gives them,
    before and after the fit; those needed only while fitting are empty before and after.

    Subclasses set ``working`` and implement ``_allocate``, ``_fit``, ``_merge``, ``_finish`` and ``forward``.
    """

    working: ClassVar[tuple[str, ...]] = ()
    """Names of the buffers that are needed only while fitting."""
    finished: Tensor
    num_images: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("finished", torch.tensor(False))
        self.register_buffer("num_images", torch.tensor(0))
        self._is_finished = False  # what `finished` says, for forward: a trace cannot ask a tensor
        self._is_allocated = False

    def allocate(self, channels: int, grid: Sequence[int] = ()) -> None:
        """Give the buffers of the result their shape, so that a checkpoint fits. Without it, ``fit_batch`` does so.

        Args:
            channels: length D of a feature vector.
            grid: cells *G of the feature maps; none for features of whole images.
        """
        if channels < 1 or any(cells < 1 for cells in grid):
            raise ValueError(f"channels and grid must be positive, got {channels} and {tuple(grid)}.")
        self._allocate(channels, tuple(grid))
        self._is_allocated = True

    @torch.no_grad()
    def fit_batch(self, features: Tensor) -> None:
        """Take in the features (B, D, *G) of healthy images.

        Raises:
            RuntimeError: after ``finish``.
        """
        if self._is_finished:
            raise RuntimeError(f"{type(self).__name__} is fitted already: fit a new one instead.")
        if features.ndim < 2:
            raise ValueError(f"features must be (B, D, *G), got shape {tuple(features.shape)}.")
        if not self._is_allocated:
            self.allocate(features.shape[1], features.shape[2:])
        self._fit(features.detach())
        self.num_images += len(features)

    @torch.no_grad()
    def merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Become the fit of all images that several processes saw.

        Args:
            states: their ``state_dict()``, before ``finish``, in the order of their ranks, this process's own among
                them. One that saw no image counts for nothing.
        """
        used = [state for state in states if int(state["num_images"]) > 0]
        if any(bool(state["finished"]) for state in used):
            raise RuntimeError("a fit that is finished cannot be merged: merge before finish().")
        if used:
            device = self.finished.device
            # copies: a state may be this head's own, and is as it was afterwards
            self._merge([{name: value.to(device, copy=True) for name, value in state.items()} for state in used])
            self.num_images = torch.tensor(sum(int(state["num_images"]) for state in used), device=device)
            self._is_allocated = True

    @torch.no_grad()
    def finish(self) -> None:
        """End the fit: compute what is needed to measure, drop what is not. Nothing happens the second time.

        Raises:
            RuntimeError: when no image was seen.
        """
        if self._is_finished:
            return
        if int(self.num_images) == 0:
            raise RuntimeError(f"{type(self).__name__} saw no image: call fit_batch with healthy images first.")
        self._finish()
        for name in self.working:
            setattr(self, name, getattr(self, name).new_empty(0))
        self.finished.fill_(True)
        self._is_finished = True

    def _check_finished(self) -> None:
        if not self._is_finished:
            raise RuntimeError(f"{type(self).__name__} is not fitted: call fit_batch and finish, or load a checkpoint.")

    def _allocate(self, channels: int, grid: tuple[int, ...]) -> None:
        raise NotImplementedError

    def _fit(self, features: Tensor) -> None:
        raise NotImplementedError

    def _merge(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        """Take the shapes of a checkpoint for buffers that have none of their own yet or that change while fitting."""
        for name, own in self._buffers.items():
            given = state_dict.get(prefix + name)
            if own is not None and isinstance(given, Tensor) and (name in self.working or own.numel() == 0):
                setattr(self, name, torch.empty_like(given, device=own.device))
        super()._load_from_state_dict(state_dict, prefix, *others)
        self._is_finished = bool(self.finished)
        self._is_allocated = self._is_allocated or int(self.num_images) > 0
