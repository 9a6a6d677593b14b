# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from monai.networks.blocks import TransformerBlock
from monai.networks.nets import MaskedAutoEncoderViT
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from ...functional.masking import mask_of_kept
from ...functional.patches import patchify, unpatchify
from ...utils import accept_only_whole_weights, accept_weights_of_wrapper
from ..blocks.outputs import MaskedOutput


class MaskedAutoencoder(nn.Module):
    """Vision transformer that reconstructs an image from a few of its patches (MAE).

    It is MONAI's ``MaskedAutoEncoderViT`` (attribute ``vit``) with the settings of the published networks: biases in
    the attention, a constant of 1e-6 in layer normalization, weights drawn by Xavier's rule, position embeddings fixed.
    Which patches are shown is told by the caller, so that two networks can be shown the same. The defaults are ViT-S/16
    with the decoder of 2 blocks of width 512 of Xiao et al., as in AMAE: 28.67 million parameters with 3 channels.

    Args:
        spatial_dims: 2 (default) or 3.
        in_channels: channels C of an image, default 1.
        spatial_size: size of an image in pixels, one number for all axes or one an axis; default 224.
        patch_size: size of a patch, by which the image must be divisible; default 16.
        hidden_size: width of the encoder; divisible by 4 in 2D and by 6 in 3D, because of the position embedding.
        num_layers: blocks of the encoder.
        num_heads: attention heads of the encoder.
        mlp_dim: hidden width of the encoder's perceptrons; None (default): 4 times its width.
        decoder_hidden_size: width of the decoder, divisible as that of the encoder (in 3D 512 is not: take 528).
        decoder_num_layers: blocks of the decoder, default 2; 8 by He et al.
        decoder_num_heads: attention heads of the decoder.
        decoder_mlp_dim: hidden width of the decoder's perceptrons; None (default): 4 times its width.
        network_channels: channels the transformer works on; None (default): those of an image. 3 with one channel in:
            gray is repeated, as for weights trained on color images.
        mean: mean of the intensities in [0, 1], one number or one a network channel, with which images in [-1, 1] are
            normalized inside, ``((x + 1) / 2 - mean) / std``; None (default): images are taken as they are.
        std: their standard deviation.

    Raises:
        ValueError: when the sizes do not fit each other.

    Reference:
        K. He, X. Chen, S. Xie, Y. Li, P. Dollar, R. Girshick: "Masked Autoencoders Are Scalable Vision Learners", CVPR
        2022. J. Xiao, Y. Bai, A. Yuille, Z. Zhou: "Delving into Masked Autoencoders for Multi-Label Thorax Disease
        Classification", WACV 2023. B. Bozorgtabar, D. Mahapatra, J.-P. Thiran: "AMAE: Adaptation of Pre-trained Masked
        Autoencoder for Dual-Distribution Anomaly Detection in Chest X-Rays", MICCAI 2023.

    Example:
        >>> import torch
        >>> from monai_anomaly.networks.nets import MaskedAutoencoder
        >>> small = {"hidden_size": 24, "num_heads": 3, "decoder_hidden_size": 24, "decoder_num_heads": 3}
        >>> network = MaskedAutoencoder(spatial_size=32, patch_size=8, num_layers=1, **small)
        >>> network.num_patches
        16
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        spatial_size: Sequence[int] | int = 224,
        patch_size: Sequence[int] | int = 16,
        hidden_size: int = 384,
        num_layers: int = 12,
        num_heads: int = 6,
        mlp_dim: int | None = None,
        decoder_hidden_size: int = 512,
        decoder_num_layers: int = 2,
        decoder_num_heads: int = 16,
        decoder_mlp_dim: int | None = None,
        network_channels: int | None = None,
        mean: Sequence[float] | float | None = None,
        std: Sequence[float] | float | None = None,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
        self.in_channels = in_channels
        self.network_channels = in_channels if network_channels is None else network_channels
        if in_channels not in (1, self.network_channels):
            raise ValueError(
                f"network_channels must be {in_channels} for images of {in_channels} channels, got "
                f"{network_channels!r}: only one channel can be repeated"
            )
        self.spatial_size: tuple[int, ...] = ensure_tuple_rep(spatial_size, spatial_dims)
        self.patch_size: tuple[int, ...] = ensure_tuple_rep(patch_size, spatial_dims)
        axes = list(zip(self.spatial_size, self.patch_size, strict=True))
        if any(patch < 1 or size < patch or size % patch for size, patch in axes):
            raise ValueError(
                f"spatial_size {self.spatial_size} must be divisible by patch_size {self.patch_size}, both positive"
            )
        _check_widths("", spatial_dims, hidden_size, num_heads)
        _check_widths("decoder_", spatial_dims, decoder_hidden_size, decoder_num_heads)
        self.grid = tuple(size // patch for size, patch in axes)
        self.num_patches = math.prod(self.grid)
        self.hidden_size = hidden_size
        with without_meshgrid_warning():
            self.vit = MaskedAutoEncoderViT(
                in_channels=self.network_channels,
                img_size=self.spatial_size,
                patch_size=self.patch_size,
                hidden_size=hidden_size,
                mlp_dim=mlp_dim or 4 * hidden_size,
                num_layers=num_layers,
                num_heads=num_heads,
                decoder_hidden_size=decoder_hidden_size,
                decoder_mlp_dim=decoder_mlp_dim or 4 * decoder_hidden_size,
                decoder_num_layers=decoder_num_layers,
                decoder_num_heads=decoder_num_heads,
                spatial_dims=spatial_dims,
                qkv_bias=True,
            )
        _as_published(self.vit)
        self._set_normalization(mean, std)
        accept_weights_of_wrapper(self, "network.")  # the name of a network in the map around it
        accept_only_whole_weights(self)

    def forward(self, image: Tensor, kept: Tensor) -> MaskedOutput:
        """Reconstruct images from some of their patches, all sets of an image in one batch.

        Args:
            image: (B, C, *S), in [-1, 1].
            kept: numbers of the patches that are shown, (B, L, V) for L sets an image, or (1, L, V): the same for all
                images; 1 <= V < T. See :mod:`monai_anomaly.functional.masking`. That they are different ones from 0 to
                T - 1 is not checked, since looking at them would make the device wait.

        Raises:
            ValueError: when the images have another size than the network, or the shape of ``kept`` does not fit them.
        """
        x = self._network_input(image)
        if not torch.jit.is_tracing():
            self._check_kept(kept, x.shape[0])
        kept = kept.expand(x.shape[0], -1, -1)
        embedded = self.vit.patch_embedding(x)
        shown = _of_each_set(embedded, kept)
        predicted = self._decode(self._encode(shown), kept.flatten(0, 1))
        mask = mask_of_kept(kept, self.num_patches)
        return MaskedOutput(predicted.unflatten(0, (-1, kept.shape[1])), patchify(x, self.patch_size), mask)

    def tokens(self, image: Tensor) -> Tensor:
        """What the encoder makes of whole images (B, C, *S), after its last normalization: (B, 1 + T, d), cls first."""
        encoded: Tensor = self.vit.blocks(self.embed(image))
        return encoded

    def embed(self, image: Tensor) -> Tensor:
        """What goes into the encoder's first block for whole images (B, C, *S): tokens (B, 1 + T, d), cls first."""
        return _with_first(self.vit.cls_token, self.vit.patch_embedding(self._network_input(image)))

    def to_image(self, patches: Tensor) -> Tensor:
        """Turn patches (B, T, P) as the network predicts them into images (B, C, *S) of the intensities of its input.

        Undoes the cut into patches, the normalization and, by the mean, the repetition of channels.
        """
        image = unpatchify(patches.float(), self.patch_size, self.grid, self.network_channels)
        if self.normalizes:
            image = 2 * (image * self.std + self.mean) - 1
        if self.network_channels != self.in_channels:
            image = image.mean(1, keepdim=True)
        return image

    def _network_input(self, image: Tensor) -> Tensor:
        expected = (self.in_channels, *self.spatial_size)
        if not torch.jit.is_tracing() and tuple(image.shape[1:]) != expected:
            raise ValueError(
                f"the network takes images of shape (B, {', '.join(map(str, expected))}), got {tuple(image.shape)}: "
                "resize the images, or build the network with their spatial_size and in_channels"
            )
        image = image.expand(-1, self.network_channels, *self.spatial_size)
        return ((image + 1) / 2 - self.mean) / self.std if self.normalizes else image

    def _check_kept(self, kept: Tensor, batch: int) -> None:
        if kept.ndim != 3 or kept.shape[0] not in (1, batch):
            raise ValueError(f"kept must have the shape (1 or {batch}, L, V), got {tuple(kept.shape)}")
        if not 1 <= kept.shape[2] < self.num_patches:
            raise ValueError(
                f"kept must show at least 1 and fewer than all {self.num_patches} patches, got {kept.shape[2]}"
            )

    def _encode(self, embedded: Tensor) -> Tensor:
        encoded: Tensor = self.vit.blocks(_with_first(self.vit.cls_token, embedded))
        return encoded

    def _decode(self, encoded: Tensor, kept: Tensor) -> Tensor:
        """Predicted patches (N, T, P) of encoded tokens (N, 1 + V, d) and the numbers (N, V) of their patches."""
        embedded = self.vit.decoder_embed(encoded)
        index = kept.unsqueeze(-1).expand(-1, -1, embedded.shape[-1])
        # in the precision of the tokens, since mixed precision would refuse to put them among others
        blank = self.vit.mask_tokens.to(embedded.dtype).expand(embedded.shape[0], self.num_patches, -1)
        patches = blank.scatter(1, index, embedded[:, 1:]) + self.vit.decoder_pos_embedding
        decoded = self.vit.decoder_blocks(torch.cat([embedded[:, :1], patches], 1))
        predicted: Tensor = self.vit.decoder_pred(decoded[:, 1:])
        return predicted

    def _set_normalization(self, mean: Sequence[float] | float | None, std: Sequence[float] | float | None) -> None:
        """Hold mean and deviation of each channel, not among the weights, since they follow from the arguments."""
        if (mean is None) != (std is None):
            raise ValueError(f"mean and std must be given together, got mean={mean!r} and std={std!r}")
        self.normalizes = mean is not None
        self.mean: Tensor
        self.std: Tensor
        for name, value in (("mean", 0.0 if mean is None else mean), ("std", 1.0 if std is None else std)):
            values = list(value) if isinstance(value, Sequence) else [value]
            wrong = not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0)
            if len(values) not in (1, self.network_channels) or wrong:
                raise ValueError(
                    f"mean and std must have one value or one for each of the {self.network_channels} network "
                    f"channels, all finite, and std be positive, got {name}={value!r}"
                )
            channels = torch.tensor(values, dtype=torch.float32).reshape(-1, *[1] * len(self.grid))
            self.register_buffer(name, channels, persistent=False)


@contextmanager
def without_meshgrid_warning() -> Iterator[None]:
    """Leave out the warning that MONAI's table of positions raises by its use of ``torch.meshgrid``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
        yield


def _check_widths(prefix: str, spatial_dims: int, width: int, heads: int) -> None:
    divisor = 2 * spatial_dims  # a sine and a cosine for each axis
    if heads < 1 or width < 1 or width % divisor or width % heads:
        raise ValueError(
            f"{prefix}hidden_size must be divisible by {divisor} in {spatial_dims}D and by {prefix}num_heads, got "
            f"{width} with {heads} heads"
        )


def _as_published(vit: MaskedAutoEncoderViT) -> None:
    """Set what MONAI's network does otherwise than the published one."""
    for module in vit.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.data.flatten(1))  # that of a convolution as one of a linear layer
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, TransformerBlock):
            # never called, so that distributed training would wait for its gradient in vain
            module.norm_cross_attn.requires_grad_(False)
    for token in (vit.cls_token, vit.mask_tokens):
        nn.init.normal_(token, std=0.02)


def _of_each_set(embedded: Tensor, kept: Tensor) -> Tensor:
    """Tokens (B L, V, d) of the kept patches (B, L, V) among all of them (B, T, d)."""
    index = kept.unsqueeze(-1).expand(-1, -1, -1, embedded.shape[-1])
    return embedded.unsqueeze(1).expand(-1, kept.shape[1], -1, -1).gather(2, index).flatten(0, 1)


def _with_first(token: Tensor, others: Tensor) -> Tensor:
    return torch.cat([token.expand(others.shape[0], -1, -1), others], 1)
