# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import torch
from monai.engines import IterationEvents, SupervisedEvaluator
from monai.engines.utils import DiffusionPrepareBatch
from monai.networks.schedulers import DDPMScheduler
from torch import Tensor, nn

from ..functional.diffusion import PREDICTIONS, min_snr_weight
from ..losses.noise_prediction_loss import NoiseTarget
from ..utils import Keys, derive_seed
from .batch import prepare_restoration_batch


class NoisedPair(DiffusionPrepareBatch):
    """Input and target of a denoiser that sees the image it is to restore: the ``prepare_batch`` of its training.

    The clean image is what noise is added to, the corrupted one goes in beside it, at a noise level drawn for each.

    Args:
        scheduler: noise levels.
        prediction: what the network is to predict, ``"epsilon"`` (default, as in the paper), the noise, or
            ``"velocity"``, ``sqrt(a) eps - sqrt(1 - a) x``, which stays well determined where there is noise alone (T.
            Salimans, J. Ho: "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022).
        noise_offset: standard deviation of a shift of the noise that a whole channel shares, which is part of what the
            network must predict; default 0 (none), 0.1 in the code of the image-conditioned diffusion paper.
        min_snr_gamma: see :func:`monai_anomaly.functional.min_snr_weight`; None (default): all levels count alike, as
            in the paper; 1 in its code.
        seed: None (default) draws from PyTorch's random state, anew each time. A number draws the same for the same
            images in each pass: so that the losses of two validations can be compared.

    Raises:
        ValueError: when a number is outside its range.
    """

    def __init__(
        self,
        scheduler: DDPMScheduler,
        prediction: str = "epsilon",
        noise_offset: float = 0.0,
        min_snr_gamma: float | None = None,
        seed: int | None = None,
    ) -> None:
        if noise_offset < 0:
            raise ValueError(f"noise_offset must be 0 or more, got {noise_offset!r}")
        super().__init__(scheduler.num_train_timesteps, Keys.IMAGE)
        self.noise_offset = noise_offset
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {PREDICTIONS}, got {prediction!r}")
        self.scheduler = scheduler
        self.prediction = prediction
        alphas = scheduler.alphas_cumprod.float()
        self.weights = (
            torch.ones_like(alphas)
            if min_snr_gamma is None
            else min_snr_weight(alphas, min_snr_gamma, prediction == "velocity")
        )
        self.seed = seed

    def __call__(  # type: ignore[override]
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, NoiseTarget, tuple[()], dict[str, Any]]:
        """Clean images, the noise to predict, and what MONAI's ``DiffusionInferer`` needs beside them.

        Args:
            batchdata: batch with ``clean`` and ``image`` (B, C, *S), the latter corrupted or not, and ``index``.
            device: where to move it.
            non_blocking: as in ``Tensor.to``.
            kwargs: further arguments of ``Tensor.to``.
        """
        condition, clean = prepare_restoration_batch(batchdata, device, non_blocking, **kwargs)
        noise, times = self._draw(clean, batchdata)
        wanted = self.get_target(clean, noise, times)
        target = NoiseTarget(wanted, self.weights.to(times.device)[times])
        return clean, target, (), {"noise": noise, "timesteps": times, "condition": condition, "mode": "concat"}

    def _draw(self, clean: Tensor, batchdata: dict[str, Any]) -> tuple[Tensor, Tensor]:
        if self.seed is None:
            return self.get_noise(clean), self.get_timesteps(clean)
        devices = [clean.device] if clean.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(derive_seed(self.seed, *map(int, batchdata[Keys.INDEX])))
            return self.get_noise(clean), self.get_timesteps(clean)

    def get_target(self, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is to predict of images, noise (B, C, *S) and levels (B,)."""
        if self.prediction == "epsilon":
            return noise
        velocity: Tensor = self.scheduler.get_velocity(images, noise, timesteps)
        return velocity

    def get_noise(self, images: Tensor) -> Tensor:
        """Standard normal noise for every pixel, and a shift for every channel."""
        noise = super().get_noise(images)
        if not self.noise_offset:
            return noise
        shape = (*images.shape[:2], *[1] * (images.ndim - 2))
        return noise + self.noise_offset * torch.randn(shape, device=images.device, dtype=images.dtype)


class LossBatch:
    """One step of an evaluator that measures a loss: its ``iteration_update``.

    Args:
        loss: gives one value an image (``reduction="none"``).
    """

    def __init__(self, loss: nn.Module) -> None:
        self.loss = loss

    def __call__(self, engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict[str, Tensor]:
        """Losses of a batch (B,)."""
        inputs, target, args, kwargs = engine.prepare_batch(
            batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs
        )
        autocast = torch.autocast(inputs.device.type, enabled=engine.amp, **engine.amp_kwargs)
        with engine.mode(engine.network), autocast:
            prediction = engine.inferer(inputs, engine.network, *args, **kwargs)
        engine.state.output = {"losses": self.loss(prediction, target).detach()}
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output
