# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Masked autoencoders as networks whose output is the anomaly map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ...functional.errors import l1_error
from ...functional.masking import mask_of_kept, num_kept, partition_kept, random_kept
from ...utils import accept_only_whole_weights
from ..blocks.folds import NetworkFolds
from ..blocks.outputs import MaskedOutput
from .anomaly_map import MapOutput

SAMPLERS = ("random", "partition")


class MaskedNetwork(Protocol):
    """What the maps ask of a network; :class:`monai_anomaly.networks.nets.MaskedAutoencoder` is one."""

    num_patches: int

    def __call__(self, image: Tensor, kept: Tensor) -> MaskedOutput:
        """Reconstruct images from the kept patches."""

    def to_image(self, patches: Tensor) -> Tensor:
        """Images of patches."""


class MaskSets(nn.Module):
    """Sets of patches that are shown to a masked autoencoder, drawn once.

    They are the same for every image and for every network with the same number of patches, so a score depends neither
    on what else is in a batch, nor on the order of the images, nor on the number of processes. They are held in the
    buffer ``kept`` (1, L, V), which is not saved with the weights, since it follows from the arguments.

    Args:
        num_patches: number T of patches of an image.
        num_masks: number L of sets; in AMAE 4 in tests and 2 in training.
        mask_ratio: share of patches removed; 0.75 (default) in AMAE.
        sampler: ``"random"`` (default): sets are independent draws. A patch that all of them would show, which happens
            with the probability ``(1 - mask_ratio)^L``, 0.0039 by default, is removed from one of them instead of
            another patch that is removed more than once: nothing trained is said of a patch that is always shown, and
            here it would be the same patch in every image. ``"partition"``: every patch is shown in exactly one of the
            sets, for which the ratio must be 1 - 1 / L.
        seed: seed of the draws.

    Raises:
        ValueError: when the arguments are out of range or do not fit each other.
    """

    def __init__(
        self,
        num_patches: int,
        num_masks: int = 4,
        mask_ratio: float = 0.75,
        sampler: str = "random",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if num_masks < 1:
            raise ValueError(f"num_masks must be at least 1, got {num_masks!r}")
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {SAMPLERS}, got {sampler!r}")
        shown = num_kept(num_patches, mask_ratio)
        if sampler == "partition" and shown * num_masks != num_patches:
            raise ValueError(
                f"the sampler 'partition' shows every one of {num_patches} patches once, but {num_masks} masks with "
                f"mask_ratio {mask_ratio!r} show {num_masks} x {shown}: set mask_ratio to 1 - 1 / num_masks and "
                "num_masks to a divisor of the number of patches"
            )
        generator = torch.Generator().manual_seed(seed)
        self.kept: Tensor
        kept = (
            partition_kept(1, num_patches, num_masks, generator)[0]
            if sampler == "partition"
            else _each_removed(random_kept(num_masks, num_patches, mask_ratio, generator), num_patches, generator)
        )
        self.register_buffer("kept", kept.unsqueeze(0), persistent=False)


def _each_removed(kept: Tensor, num_patches: int, generator: torch.Generator) -> Tensor:
    """The same sets (L, V) of kept patches with as few exchanges as let every patch be removed from one of them.

    Where the sets remove fewer patches than there are, no patch is removed twice. Nothing is drawn where no exchange is
    needed.
    """
    removed = mask_of_kept(kept, num_patches).bool()
    for patch in torch.nonzero(~removed.any(0)).flatten().tolist():
        places = torch.nonzero(removed & (removed.sum(0) > 1))  # (set, patch) that may be shown instead
        if len(places):
            number, other = places[torch.randint(len(places), (1,), generator=generator)][0].tolist()
            removed[number, patch], removed[number, other] = True, False
    return torch.nonzero(~removed)[:, 1].reshape(kept.shape)


def _predicted(output: MaskedOutput) -> Tensor:
    return output.prediction.float().mean(1)


def _pasted(output: MaskedOutput) -> Tensor:
    mask = output.mask.unsqueeze(-1)
    return (mask * output.prediction + (1 - mask) * output.target.unsqueeze(1)).mean(1)


def _excluded(output: MaskedOutput) -> Tensor:
    mask = output.mask.unsqueeze(-1)
    count = mask.sum(1)
    mean = (mask * output.prediction).sum(1) / count.clamp(min=1)
    return torch.where(count > 0, mean, _predicted(output))


VISIBLE: dict[str, Callable[[MaskedOutput], Tensor]] = {
    "exclude": _excluded,
    "predict": _predicted,
    "paste": _pasted,
}


def mean_reconstruction(network: MaskedNetwork, image: Tensor, kept: Tensor, visible: str = "exclude") -> Tensor:
    """Mean over several masks of what a masked autoencoder makes of images.

    Args:
        network: the autoencoder.
        image: (B, C, *S), in [-1, 1].
        kept: numbers of the patches shown, (B, L, V) or (1, L, V).
        visible: what stands where a patch was shown, for which the network was not trained: ``"exclude"`` (default;
            the mean is over the masks that removed the patch, and where none did, as with ``"predict"``), ``"predict"``
            (what the network predicts, the paper's wording) or ``"paste"`` (the image itself).

    Returns:
        (B, C, *S), in the intensities of the image.

    Raises:
        ValueError: when ``visible`` is unknown.
    """
    _check_visible(visible)
    return network.to_image(VISIBLE[visible](network(image, kept)))


class MaskedReconstructionMap(nn.Module):
    """Error between an image and the mean of its reconstructions under several masks, averaged over channels.

    The baseline "MAE Rec." of AMAE, for a network trained on normal images.

    Args:
        network: a :class:`monai_anomaly.networks.nets.MaskedAutoencoder`.
        num_masks: see :class:`MaskSets`, as the next three are.
        mask_ratio: share of patches removed.
        sampler: how the masks are drawn.
        seed: seed of the draws.
        visible: see :func:`mean_reconstruction`.
        error: un-reduced error of (prediction, target), by default the absolute difference.

    Raises:
        ValueError: when an argument is out of range, or weights of the network alone are loaded: the bundle
            ``mae_pretrain`` writes them where it was trained with ``norm_pix``, so that its predictions are no images.

    Reference:
        B. Bozorgtabar, D. Mahapatra, J.-P. Thiran: "AMAE: Adaptation of Pre-trained Masked Autoencoder for
        Dual-Distribution Anomaly Detection in Chest X-Rays", MICCAI 2023.
    """

    def __init__(
        self,
        network: nn.Module,
        num_masks: int = 4,
        mask_ratio: float = 0.75,
        sampler: str = "random",
        seed: int = 0,
        visible: str = "exclude",
        error: Callable[[Tensor, Tensor], Tensor] = l1_error,
    ) -> None:
        super().__init__()
        _check_visible(visible)
        self.network = network
        self.masks = MaskSets(cast(MaskedNetwork, network).num_patches, num_masks, mask_ratio, sampler, seed)
        self.visible = visible
        self.error = error
        self.register_load_state_dict_pre_hook(_refuse_network_alone)
        accept_only_whole_weights(self)

    @torch.no_grad()
    def predict(self, image: Tensor) -> MapOutput:
        """Map and mean reconstruction of images (B, C, *S) in [-1, 1]."""
        mean = mean_reconstruction(cast(MaskedNetwork, self.network), image, self.masks.kept, self.visible)
        return MapOutput(self.error(mean, image).mean(1, keepdim=True), mean)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, *S) of images (B, C, *S)."""
        return self.predict(image).anomaly_map


def _refuse_network_alone(module: nn.Module, state_dict: dict[str, Tensor], *others: Any) -> None:
    own = cast(MaskedReconstructionMap, module).network.state_dict()
    if state_dict and all(key in own for key in state_dict):
        raise ValueError(
            "these are weights of a masked autoencoder without a map, as the converter of published weights writes "
            "them and a pre-training with norm_pix, after which predictions are no images and a map shows nothing: "
            "take them for --start_weights, or train without norm_pix"
        )


class InterDiscrepancyMap(nn.Module):
    """How much two masked autoencoders differ, one trained on normal images and one on abnormal ones (AMAE).

    ``|mean_l A_l - mean_l B_l|`` over L masks, in intensities of [0, 1], averaged over channels. Both are shown the
    same patches; otherwise the map would show the masks too.

    Args:
        network: the two of them: module A (normal) first, module B (abnormal) second.
        num_masks: see :class:`MaskSets`, as the next three are.
        mask_ratio: share of patches removed.
        sampler: how the masks are drawn.
        seed: seed of the draws.
        visible: see :func:`mean_reconstruction`.

    Raises:
        ValueError: when an argument is out of range, there are not two networks, or they are not to be asked both at
            once; when called, if one of them has not been trained.

    Reference:
        see :class:`MaskedReconstructionMap`.
    """

    def __init__(
        self,
        network: NetworkFolds,
        num_masks: int = 4,
        mask_ratio: float = 0.75,
        sampler: str = "random",
        seed: int = 0,
        visible: str = "exclude",
    ) -> None:
        super().__init__()
        accept_only_whole_weights(self)
        _check_visible(visible)
        if len(network.members) != 2:
            raise ValueError(f"network must have 2 members, modules A and B, got {len(network.members)}")
        network.require_all_at_once(type(self).__name__)
        self.network = network
        num_patches = cast(MaskedNetwork, network[0]).num_patches
        self.masks = MaskSets(num_patches, num_masks, mask_ratio, sampler, seed)
        self.visible = visible

    @torch.no_grad()
    def predict(self, image: Tensor) -> MapOutput:
        """Map, and mean reconstruction by module A, of images (B, C, *S) in [-1, 1].

        Raises:
            ValueError: when one of the modules has not been trained.
        """
        present = self.network.present.tolist()
        if not all(present):
            missing = " and ".join(name for name, there in zip("AB", present, strict=True) if not there)
            raise ValueError(
                f"module {missing} of the pair has not been trained, and there is no discrepancy without it: train it, "
                "or score by the reconstruction of module A alone (MaskedReconstructionMap)"
            )
        means = [
            mean_reconstruction(cast(MaskedNetwork, member), image, self.masks.kept, self.visible)
            for _, member in self.network.each(image.device)
        ]
        return MapOutput((means[0] - means[1]).abs().mean(1, keepdim=True) / 2, means[0])

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 1, *S) of images (B, C, *S)."""
        return self.predict(image).anomaly_map


def _check_visible(visible: str) -> None:
    if visible not in VISIBLE:
        raise ValueError(f"visible must be one of {tuple(VISIBLE)}, got {visible!r}")
