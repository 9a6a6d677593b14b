# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""A masked autoencoder in plain PyTorch from the paper's description, its tensors named as in published checkpoints."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sincos_1d(positions: np.ndarray, width: int) -> np.ndarray:
    angles = positions.reshape(-1, 1) / 10000 ** (np.arange(width // 2, dtype=np.float64) / (width / 2))
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


def published_table(rows: int, columns: int, width: int) -> Tensor:
    """Positions (1, 1 + T, d): zeros, then the column in the first half of the width and the row in the second."""
    row, column = np.divmod(np.arange(rows * columns, dtype=np.float64), columns)
    table = np.concatenate([sincos_1d(column, width // 2), sincos_1d(row, width // 2)], 1)
    return torch.from_numpy(np.concatenate([np.zeros((1, width)), table])).float()[None]


class Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, mlp), "fc2": nn.Linear(mlp, width)})

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn["qkv"](self.norm1(x)).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.attn["proj"](attended.transpose(1, 2).flatten(2))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class ReferenceMae(nn.Module):
    """2D; every tensor random, so that none of them can be left out or mixed up without notice."""

    def __init__(
        self,
        grid: tuple[int, int] = (4, 4),
        patch: int = 8,
        channels: int = 3,
        width: int = 48,
        depth: int = 3,
        heads: int = 3,
        decoder_width: int = 32,
        decoder_depth: int = 2,
        decoder_heads: int = 4,
        mlp_ratio: int = 4,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.pos_embed = nn.Parameter(published_table(*grid, width), requires_grad=False)
        self.decoder_pos_embed = nn.Parameter(published_table(*grid, decoder_width), requires_grad=False)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, width, patch, patch)})
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_embed = nn.Linear(width, decoder_width)
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_width, decoder_heads, mlp_ratio * decoder_width) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_width, patch**2 * channels)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.15, generator=generator)

    def forward(self, image: Tensor, kept: list[int]) -> Tensor:
        """Predicted patches (B, T, P) of images already normalized, shown the patches ``kept``."""
        x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        number = x.shape[1]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x[:, kept]], 1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))
        full = [self.mask_token.expand(len(x), -1, -1)[:, 0]] * number
        for position, place in enumerate(kept):
            full[place] = x[:, 1 + position]
        x = torch.cat([x[:, :1], torch.stack(full, 1)], 1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def encoded(self, image: Tensor) -> Tensor:
        """Tokens (B, 1 + T, d) of whole images."""
        x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
