# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""How two groups of autoencoders, of which one has seen unlabeled images too, disagree about an image (DDAD)."""

from __future__ import annotations

from typing import List  # noqa: UP035 - TorchScript reads it

import torch
from torch import Tensor, nn

from ...utils import accept_only_whole_weights
from ..blocks.folds import NetworkFolds
from .anomaly_map import MapOutput, sample_deviation

DISCREPANCY_SCORES = ("inter", "intra", "rec", "refined_dual", "refined_intra")
REFINED_SCORES = ("refined_dual", "refined_intra")


class DiscrepancyMap(nn.Module):
    """Where an ensemble that knows healthy images disagrees with itself, or with one that knows unlabeled ones as well.

    The first K networks are the module of the normal distribution (module B in the paper), trained on healthy images;
    the others are the module of the unknown distribution (module A), trained on healthy and unlabeled ones. With
    ``f_k`` the reconstructions of an image x by the former, ``g_k`` those by the latter, and deviations taken with
    K - 1 in the denominator, as in the authors' code:

    - ``"inter"``: ``|mean_k g_k - mean_k f_k|``, the inter-discrepancy;
    - ``"intra"``: ``std_k f_k``, the intra-discrepancy, which needs no unlabeled image;
    - ``"rec"``: ``(x - mean_k f_k)^2``, the reconstruction error of the normal module;
    - ``"refined_dual"``: what a refiner makes of the inter- and the intra-discrepancy, in this order;
    - ``"refined_intra"``: what it makes of the intra-discrepancy alone.

    Networks that predict a variance give the forms refined by the uncertainty of the image: ``"rec"`` is divided by the
    mean variance of the normal module, ``"inter"`` and ``"intra"`` by its root, before a refiner sees them as well.
    Maps of several channels are averaged over them. Networks that are not ``present`` are left out.

    Args:
        network: the networks of both modules.
        score: one of :data:`DISCREPANCY_SCORES`.
        num_normal: number K of networks of the normal module; None (default): half of all, at least one. 3 of 6 in the
            paper.
        refiner: turns maps (B, 1 or 2, *S) into logits of healthy and anomalous (B, 2, *S), see
            :class:`monai_anomaly.networks.nets.RefinementNet`; None (default): there is none.

    Raises:
        ValueError: when the score is unknown, needs networks or a refiner that are not there, the refiner is of another
            number of maps, or the networks are not to be asked all at once.

    Reference:
        Y. Cai, H. Chen, X. Yang, Y. Zhou, K.-T. Cheng: "Dual-Distribution Discrepancy for Anomaly Detection in Chest
        X-rays", MICCAI 2022; "Dual-distribution discrepancy with self-supervised refinement for anomaly
        detection in medical images", Medical Image Analysis 2023.
    """

    def __init__(
        self,
        network: NetworkFolds,
        score: str = "inter",
        num_normal: int | None = None,
        refiner: nn.Module | None = None,
    ) -> None:
        super().__init__()
        accept_only_whole_weights(self)
        count = len(network.members)
        num_normal = max(1, count // 2) if num_normal is None else num_normal
        network.require_all_at_once(type(self).__name__)
        if score not in DISCREPANCY_SCORES:
            raise ValueError(f"score must be one of {DISCREPANCY_SCORES}, got {score!r}.")
        if not 1 <= num_normal <= count:
            raise ValueError(f"num_normal must be from 1 to {count}, the number of networks, got {num_normal!r}.")
        if score in REFINED_SCORES and refiner is None:
            raise ValueError(f"score {score!r} needs a refiner: give one, or use one of {DISCREPANCY_SCORES[:3]}.")
        num_maps = 2 if score == "refined_dual" else 1
        taken = getattr(refiner, "in_channels", num_maps)
        if score in REFINED_SCORES and taken != num_maps:
            raise ValueError(f"score {score!r} needs a refiner with in_channels={num_maps}, got one with {taken!r}.")
        self.network = network
        self.score = score
        self.num_normal = num_normal
        self.refiner = refiner
        self.refined = score in REFINED_SCORES
        self.uses_unlabeled = score in ("inter", "refined_dual")
        self.uses_deviation = score in ("intra", "refined_dual", "refined_intra")
        _check_numbers(score, num_normal, count - num_normal, self.uses_unlabeled, self.uses_deviation, "; there are")
        self.refiner_present: Tensor  # whether the refiner has been trained, as ``present`` says it of the networks
        self.register_buffer("refiner_present", torch.tensor(refiner is not None))

    @torch.jit.unused
    def check_members(self) -> None:
        """Refuse to score without the trained networks that the score needs.

        Raises:
            ValueError: naming what is missing, and the remedy.
        """
        present = self.network.present.tolist()
        normal, unlabeled = sum(present[: self.num_normal]), sum(present[self.num_normal :])
        _check_numbers(
            self.score, normal, unlabeled, self.uses_unlabeled, self.uses_deviation, "; of those trained there are"
        )

    @torch.jit.unused
    def check_refiner(self) -> None:
        """Refuse to score with a refiner that has not been trained.

        Raises:
            ValueError: naming the remedy.
        """
        if self.refined and not bool(self.refiner_present):
            raise ValueError(
                f"score {self.score!r} needs a trained refiner, and these weights hold none: train it with "
                f"refine.json after the networks, or use one of the scores {DISCREPANCY_SCORES[:3]}."
            )

    @torch.jit.export
    def predict(self, image: Tensor) -> MapOutput:
        """Map and mean reconstruction of the normal module for images (B, C, *S)."""
        if not torch.jit.is_scripting():
            self.check_refiner()
        maps, mean = self.compare(image)
        if self.refined and self.refiner is not None:
            maps = torch.softmax(self.refiner(maps), 1)[:, 1:]
        return MapOutput(maps, mean)

    def compare(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Maps that the score is made of, (B, 1 or 2, *S), and the mean reconstruction of the normal module.

        Args:
            image: (B, C, *S).
        """
        if not torch.jit.is_scripting():
            self.check_members()
        normal, unlabeled, variances = self._ask(image)
        stacked = torch.stack(normal)  # (K, B, C, *S)
        mean = stacked.mean(0)
        maps: list[Tensor] = []
        if self.score == "rec":
            maps.append((image - mean).square())
        if self.uses_unlabeled:
            maps.append((torch.stack(unlabeled).mean(0) - mean).abs())
        if self.uses_deviation:
            maps.append(sample_deviation(stacked))
        if len(variances) > 0:
            variance = torch.stack(variances).mean(0)
            scale = variance if self.score == "rec" else variance.sqrt()
            maps = [one / scale for one in maps]
        return torch.cat([one.mean(1, keepdim=True) for one in maps], 1), mean

    def _ask(self, image: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Reconstructions by both modules, as far as the score needs them, and variances by the normal one."""
        normal: list[Tensor] = []
        unlabeled: list[Tensor] = []
        variances: list[Tensor] = []
        # asked as a whole, since the value of a part is not known while a graph is made; in the words of TorchScript
        present: List[bool] = self.network.present.tolist()  # noqa: UP006
        for index, member in enumerate(self.network.members):
            if present[index] and (index < self.num_normal or self.uses_unlabeled):
                output = member(image)
                if index < self.num_normal:
                    normal.append(output.reconstruction)
                    log_variance = output.log_variance  # a local name, because TorchScript narrows no fields
                    if log_variance is not None:
                        variances.append(torch.exp(log_variance))
                else:
                    unlabeled.append(output.reconstruction)
        return normal, unlabeled, variances

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, *S) of images (B, C, *S)."""
        return self.predict(image).anomaly_map


def _check_numbers(
    score: str, normal: int, unlabeled: int, uses_unlabeled: bool, uses_deviation: bool, there_are: str
) -> None:
    """Refuse a score for which there are too few networks."""
    least = 2 if uses_deviation else 1
    if normal >= least and (unlabeled > 0 or not uses_unlabeled):
        return
    needed = f"{least} or more networks of the normal module (the first folds)"
    also = " and one or more of the module that has seen unlabeled images (the last folds)" if uses_unlabeled else ""
    raise ValueError(
        f"score {score!r} needs {needed}{also}{there_are} {normal} and {unlabeled}: train more folds, or use another "
        f"of the scores {DISCREPANCY_SCORES}."
    )
