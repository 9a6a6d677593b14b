# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Networks whose output is the anomaly map: one tensor in, one tensor out, and so exportable by TorchScript."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...functional.errors import l2_error, variance_weighted_error
from ...utils import accept_only_whole_weights
from ..blocks.ensemble import NetworkEnsemble

ENSEMBLE_SCORES = ("ens", "unc", "dsu")


class MapOutput(NamedTuple):
    """An anomaly map (B, 1, *S), larger = more abnormal, and the reconstruction it came from (B, C, *S)."""

    anomaly_map: Tensor
    reconstruction: Tensor


class ReconstructionMap(nn.Module):
    """Error between an image and its reconstruction, averaged over channels.

    A network that predicts a variance is scored by the variance-weighted error ``exp(-s) (x - mu)^2`` (Mao et al.,
    2020) whatever ``error`` says.

    Args:
        network: returns fields ``reconstruction`` and ``log_variance``, as :class:`AutoencoderOutput` does.
        error: un-reduced error of (prediction, target), such as :func:`monai_anomaly.functional.l1_error`.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.maps import ReconstructionMap
        >>> from monai_anomaly.networks.nets import DenseAutoencoder
        >>> network = ReconstructionMap(DenseAutoencoder(spatial_size=32, hidden_channels=8)).eval()
        >>> network(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(self, network: nn.Module, error: Callable[[Tensor, Tensor], Tensor] = l2_error) -> None:
        super().__init__()
        accept_only_whole_weights(self)
        self.network = network
        self.error = error

    def predict(self, image: Tensor) -> MapOutput:
        """Map and reconstruction of images (B, C, *S)."""
        output = self.network(image)
        log_variance = output.log_variance  # a local name, because TorchScript narrows no fields
        if log_variance is not None:
            error = variance_weighted_error(output.reconstruction, log_variance, image)
        else:
            error = self.error(output.reconstruction, image)
        return MapOutput(error.mean(1, keepdim=True), output.reconstruction)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, *S) of images (B, C, *S)."""
        return self.predict(image).anomaly_map


class EnsembleMap(nn.Module):
    """How much an ensemble of autoencoders errs or disagrees at each pixel: the scores of D2UE Table 2.

    Over the K members (those trained so far), with deviations taken with K - 1 in the denominator:

    - ``"ens"``: error of the mean reconstruction, ``(x - mean_k f_k)^2``;
    - ``"unc"``: disagreement of the outputs, ``std_k f_k`` (Eq. 5), the intra-discrepancy of DDAD;
    - ``"dsu"``: dual-space uncertainty ``std_k(|f_k - x| * grad_x L_k)`` (Eq. 6), where ``L_k`` is the mean absolute
      error of member k over the image's pixels.

    For members that predict a variance all three are divided by its mean over the members (``ens``) or the root of it
    (``unc``, ``dsu``), and ``L_k`` is the variance-weighted squared error. Differs from the paper's wording, as its
    authors' code does: the output ``|f_k - x|`` is not normalized. While the first member is the only one trained,
    there is no disagreement: zeros.

    Args:
        network: the ensemble.
        score: one of :data:`ENSEMBLE_SCORES`.

    Raises:
        ValueError: when ``score`` is unknown, or compares members and there is one only.

    Reference:
        Gu et al., MICCAI 2024, Eqs. 5-6; Y. Cai, H. Chen, X. Yang, Y. Zhou, K.-T. Cheng: "Dual-Distribution Discrepancy
        for Anomaly Detection in Chest X-rays", MICCAI 2022.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.blocks import NetworkEnsemble
        >>> from monai_anomaly.networks.maps import EnsembleMap
        >>> from monai_anomaly.networks.nets import DenseAutoencoder
        >>> ensemble = NetworkEnsemble(lambda: DenseAutoencoder(spatial_size=32, hidden_channels=8), num_members=2)
        >>> EnsembleMap(ensemble, score="unc").eval()(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 1, 32, 32])
    """

    def __init__(self, network: NetworkEnsemble, score: str = "dsu") -> None:
        super().__init__()
        accept_only_whole_weights(self)
        if score not in ENSEMBLE_SCORES:
            raise ValueError(f"score must be one of {ENSEMBLE_SCORES}, got {score!r}.")
        if score != "ens" and len(network.members) == 1:
            raise ValueError(f"score {score!r} compares members: give two or more, or use the score 'ens' for one.")
        self.network = network
        self.score = score

    @torch.jit.export
    def predict(self, image: Tensor) -> MapOutput:
        """Map and mean reconstruction of images (B, C, *S).

        Works whatever the caller's gradient mode is, ``torch.inference_mode`` included, and leaves no graph behind.
        """
        if torch.jit.is_scripting():  # TorchScript knows neither of the two blocks below
            grad_enabled = torch.is_grad_enabled()
            torch.set_grad_enabled(self.score == "dsu")
            output = self._score(image)
            torch.set_grad_enabled(grad_enabled)
        else:
            with torch.inference_mode(False), torch.set_grad_enabled(self.score == "dsu"):
                # autograd refuses inference tensors, so one is copied
                output = self._score(image.clone() if image.is_inference() else image)
        return output

    def _score(self, image: Tensor) -> MapOutput:
        """Map and mean reconstruction.

        The gradient of ``"dsu"`` is taken for the sum over the batch of each image's own error. Samples do not interact
        in evaluation mode, so this is every image's own gradient.
        """
        image = image.detach()
        reconstructions: list[Tensor] = []
        variances: list[Tensor] = []
        gradients: list[Tensor] = []
        active = int(self.network.num_active)
        for index, member in enumerate(self.network.members):
            if index < active:
                x = image.detach().requires_grad_(self.score == "dsu")
                output = member(x)
                log_variance = output.log_variance
                if log_variance is not None:
                    error = variance_weighted_error(output.reconstruction, log_variance, x)
                    variances.append(torch.exp(log_variance).detach())
                else:
                    error = torch.abs(output.reconstruction - x)
                if self.score == "dsu":
                    gradient = torch.autograd.grad([error.flatten(1).mean(1).sum()], [x])[0]
                    assert gradient is not None
                    gradients.append(gradient)
                reconstructions.append(output.reconstruction.detach())
        stacked = torch.stack(reconstructions)  # (K, B, C, *S)
        mean = stacked.mean(0)
        if self.score == "ens":
            error_map = (image - mean).square()
        elif self.score == "unc":
            error_map = sample_deviation(stacked)
        else:
            error_map = sample_deviation((stacked - image).abs() * torch.stack(gradients))
        if len(variances) > 0:
            variance = torch.stack(variances).mean(0)
            error_map = error_map / (variance if self.score == "ens" else variance.sqrt())
        return MapOutput(error_map.mean(1, keepdim=True), mean)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, *S) of images (B, C, *S)."""
        return self.predict(image).anomaly_map


def sample_deviation(values: Tensor) -> Tensor:
    """Sample standard deviation over the first axis; zero for one member.

    Written out, because ``Tensor.std`` over a leading axis of this few entries takes many times as long on a CPU.
    The first entry is taken off before the mean is, so that equal values deviate by exactly nothing.
    """
    offsets = values - values[0]
    deviations = offsets - offsets.mean(0)
    return (deviations.square().sum(0) / max(values.shape[0] - 1, 1)).sqrt()
