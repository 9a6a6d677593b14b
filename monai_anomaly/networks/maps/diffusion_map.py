# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Image-conditioned diffusion as a network whose output is the anomaly map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.networks.schedulers import DDPMScheduler
from torch import Tensor, nn

from ...functional.diffusion import PREDICTIONS, denoising_step, diffusion_times, noise_of_velocity, shifted_by_content
from ...functional.errors import feature_error, l1_error, l2_error, ssim_error
from ...utils import accept_only_whole_weights, derive_seed
from ..blocks.folds import NetworkFolds


class RestorationOutput(NamedTuple):
    """An anomaly map (B, 1, *S), the mean of the restorations (B, C, *S), and their deviation (B, 1, *S)."""

    anomaly_map: Tensor
    reconstruction: Tensor
    spread: Tensor


class DiffusionSampler(nn.Module):
    """Makes healthy versions of images by denoising, with the image itself shown to the network at every step.

    An image gets the same noise whatever stands beside it in a batch: it follows from the seed, the number of the
    member and the image's own values.

    Args:
        num_train_timesteps: noise levels of the training, paper's default 1000.
        prediction: what the network predicts, ``"epsilon"`` (default, as in the paper) or ``"velocity"``, see
            :class:`monai_anomaly.engines.NoisedPair`.
        num_steps: network evaluations a restoration; published default 50.
        spacing: see :func:`monai_anomaly.functional.diffusion_times`, published default ``"leading"``.
        start: noise level to begin at, with the image itself noised; 0 (default) begins with noise alone.
        eta: 1 (default) for ancestral sampling, 0 for deterministic sampling, see
            :func:`monai_anomaly.functional.denoising_step`.
        num_samples: restorations an image and member, default 1.
        seed: seed of the noise.
        mixed_precision: whether the network computes in bfloat16, default False.
        recompute_noise: whether the noise of a step is recomputed from its clipped image (default), see
            :func:`monai_anomaly.functional.denoising_step`.

    Raises:
        ValueError: when an argument is outside its range.

    Reference:
        M. Baugh, H. Reynaud, S. N. Marimont, S. Cechnicka, J. P. Mueller, G. Tarroni, B. Kainz: "Image-conditioned
        Diffusion Models for Medical Anomaly Detection", 2024. Differs from its Eq. 2, which is no step of DDPM, as the
        authors' code does.
    """

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        prediction: str = "epsilon",
        num_steps: int = 50,
        spacing: str = "leading",
        start: int = 0,
        eta: float = 1.0,
        num_samples: int = 1,
        seed: int = 0,
        mixed_precision: bool = False,
        recompute_noise: bool = True,
    ) -> None:
        super().__init__()
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {PREDICTIONS}, got {prediction!r}")
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must be in [0, 1], got {eta!r}")
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples!r}")
        self.times = diffusion_times(num_train_timesteps, num_steps, spacing, start)
        self.prediction = prediction
        self.start = start
        self.eta = eta
        self.num_samples = num_samples
        self.seed = seed
        self.mixed_precision = mixed_precision
        self.recompute_noise = recompute_noise
        alphas = DDPMScheduler(num_train_timesteps).alphas_cumprod.float()
        self.alphas: Tensor
        self.register_buffer("alphas", torch.cat([alphas[self.times], torch.ones(1)]), persistent=False)

    def forward(self, network: nn.Module, image: Tensor, member: int = 0) -> Tensor:
        """Restore images.

        Args:
            network: predicts the noise of ``(x_t, image)`` joined along the channels, called as
                ``network(x, timesteps)``.
            image: (B, C, *S), in [-1, 1].
            member: number of the network, from which its noise follows.

        Returns:
            restorations (num_samples, B, C, *S), in [-1, 1].
        """
        rngs = [np.random.RandomState(derive_seed(self.seed, member, i)) for i in range(self.num_samples)]
        condition = image.repeat(self.num_samples, *[1] * (image.ndim - 1))
        noisy = _noise(rngs, image)
        if self.start:
            noisy = self.alphas[0].sqrt() * condition + (1 - self.alphas[0]).sqrt() * noisy
        for step, time in enumerate(self.times):
            predicted = self._predict(network, torch.cat([noisy, condition], 1), time)
            if self.prediction == "velocity":
                predicted = noise_of_velocity(predicted, noisy, self.alphas[step])
            fresh = _noise(rngs, image) if self.eta and step + 1 < len(self.times) else None
            levels = self.alphas[step], self.alphas[step + 1]
            noisy = denoising_step(noisy, predicted, *levels, fresh, self.eta, recompute_noise=self.recompute_noise)
        return noisy.unflatten(0, (self.num_samples, -1))

    def _predict(self, network: nn.Module, joined: Tensor, time: int) -> Tensor:
        times = torch.full_like(joined[:, 0].flatten(1)[:, 0], time).long()
        with torch.autocast(joined.device.type, torch.bfloat16, enabled=self.mixed_precision):
            predicted: Tensor = network(joined, times)
        return predicted.float()


def _noise(rngs: Sequence[np.random.RandomState], image: Tensor) -> Tensor:
    """The next noise of each sample, rotated for each image (B, C, *S), (num_samples B, C, *S)."""
    draws = np.stack([rng.standard_normal(image[0].numel()) for rng in rngs]).astype(np.float32)
    return shifted_by_content(torch.from_numpy(draws), image).flatten(0, 1)


class DiffusionMap(nn.Module):
    """What healthy versions of an image differ from it in, averaged over the members of an ensemble.

    Args:
        network: the denoisers.
        sampler: how they are asked.
        residual: ``"ssim"`` (default; structural dissimilarity), ``"ssim_upd"`` (as published, see ``compat`` of
            :func:`monai_anomaly.functional.ssim_error`), ``"l1"``, ``"l2"``, or ``"features"``: dissimilarity of what
            the encoder of the member sees in both, for lesions of low contrast.
        background: pixels of which no channel is more than this share of the image's range above its minimum count
            as background, and the map is zero there; 0: at the minimum alone, as published for MRI. None (default):
            there is no background.

    Raises:
        ValueError: when the residual is unknown or the background outside [0, 1).

    Reference:
        see :class:`DiffusionSampler`.
    """

    def __init__(
        self,
        network: NetworkFolds,
        sampler: DiffusionSampler,
        residual: str = "ssim",
        background: float | None = None,
    ) -> None:
        super().__init__()
        accept_only_whole_weights(self)
        if residual not in RESIDUALS:
            raise ValueError(f"residual must be one of {tuple(RESIDUALS)}, got {residual!r}.")
        if background is not None and not 0 <= background < 1:
            raise ValueError(f"background must be None or in [0, 1), got {background!r}.")
        self.network = network
        self.sampler = sampler
        self.residual = residual
        self.background = background

    @torch.no_grad()
    def predict(self, image: Tensor) -> RestorationOutput:
        """Map, mean restoration and spread of images (B, C, *S) in [-1, 1]."""
        restorations, maps = [], []
        for index, member in self.network.each(image.device):
            for restoration in self.sampler(member, image, index):
                restorations.append(restoration)
                maps.append(RESIDUALS[self.residual](member, restoration, image).mean(1, keepdim=True))
        stacked = torch.stack(restorations)
        anomaly_map = torch.stack(maps).mean(0)
        if self.background is not None:
            anomaly_map = anomaly_map * above_background(image, self.background)
        spread = stacked.std(0, correction=0).mean(1, keepdim=True)
        return RestorationOutput(anomaly_map, stacked.mean(0), spread)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, *S) of images (B, C, *S)."""
        return self.predict(image).anomaly_map


def above_background(image: Tensor, share: float) -> Tensor:
    """Pixels (B, 1, *S) of which a channel is more than a share of the image's range above that channel's minimum."""
    flat = image.flatten(2)
    shape = (*flat.shape[:2], *[1] * (image.ndim - 2))
    low, high = flat.amin(2).reshape(shape), flat.amax(2).reshape(shape)
    return (image > low + share * (high - low)).any(1, keepdim=True)


def encoder_features(denoiser: nn.Module, image: Tensor) -> list[Tensor]:
    """Outputs of the encoder's levels for a clean image (B, C, *S) that is shown with itself as the condition.

    Args:
        denoiser: MONAI's ``DiffusionModelUNet``.
        image: (B, C, *S).
    """
    features: list[Tensor] = []

    def keep(block: nn.Module, arguments: Any, output: Any) -> None:
        features.append(output[0])

    hooks = [block.register_forward_hook(keep) for block in denoiser.down_blocks]  # type: ignore[union-attr]
    try:
        denoiser(torch.cat([image, image], 1), torch.zeros_like(image[:, 0].flatten(1)[:, 0]).long())
    finally:
        for hook in hooks:
            hook.remove()
    return features


def _feature_residual(denoiser: nn.Module, restoration: Tensor, image: Tensor) -> Tensor:
    restored, own = (encoder_features(denoiser, x) for x in (restoration, image))
    return feature_error(restored, own, image.shape[2:])


def _of_pixels(
    error: Callable[[Tensor, Tensor], Tensor], denoiser: nn.Module, restoration: Tensor, image: Tensor
) -> Tensor:
    return error(restoration, image)


RESIDUALS: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "ssim": partial(_of_pixels, ssim_error),
    "ssim_upd": partial(_of_pixels, partial(ssim_error, compat="upd")),
    "l1": partial(_of_pixels, l1_error),
    "l2": partial(_of_pixels, l2_error),
    "features": _feature_residual,
}
