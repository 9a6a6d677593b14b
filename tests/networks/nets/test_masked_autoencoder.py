# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from reference_mae import published_table
from torch import Tensor, nn

from monai_anomaly.functional import mask_of_kept, patchify, random_kept
from monai_anomaly.losses import MaskedReconstructionLoss
from monai_anomaly.networks.nets import MaskedAutoencoder

SMALL = {
    "spatial_size": (16, 24),
    "patch_size": 4,
    "hidden_size": 24,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_hidden_size": 12,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
}
T = 24


def small(**changes: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(**SMALL | changes).eval()


def images(batch: int = 3, channels: int = 1, size: tuple[int, ...] = (16, 24)) -> Tensor:
    return 2 * torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(5)) - 1


def sets(batch: int = 1, num_masks: int = 4, num_patches: int = T) -> Tensor:
    kept = random_kept(batch * num_masks, num_patches, 0.75, torch.Generator().manual_seed(6))
    return kept.unflatten(0, (batch, num_masks))


def test_published_size_has_2867_thousand_parameters() -> None:
    network = MaskedAutoencoder(network_channels=3)
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2) == 28.67
    assert network.num_patches == 196 and network.grid == (14, 14) and network.patch_size == (16, 16)


def test_shapes_of_the_output() -> None:
    output = small()(images(), sets(3))
    assert output.prediction.shape == (3, 4, T, 16)
    assert output.target.shape == (3, T, 16)
    assert torch.equal(output.mask, mask_of_kept(sets(3), T))
    assert torch.equal(output.target, patchify(images(), (4, 4)))


def test_stacked_masks_equal_a_loop_over_them() -> None:
    network, kept = small(), sets(3)
    stacked = network(images(), kept).prediction
    for number in range(4):
        alone = network(images(), kept[:, number : number + 1]).prediction[:, 0]
        torch.testing.assert_close(stacked[:, number], alone, rtol=1e-5, atol=1e-6)


def test_an_image_is_independent_of_its_batch() -> None:
    network, kept = small(), sets(3)
    together = network(images(), kept).prediction
    for number in range(3):
        alone = network(images()[number : number + 1], kept[number : number + 1]).prediction[0]
        torch.testing.assert_close(together[number], alone, rtol=1e-5, atol=1e-6)


def test_one_choice_of_patches_may_serve_all_images() -> None:
    network, kept = small(), sets(1)
    shared, told = network(images(), kept), network(images(), kept.repeat(3, 1, 1))
    assert all(torch.equal(a, b) for a, b in zip(shared, told, strict=True))


def test_the_order_of_the_kept_patches_does_not_matter() -> None:
    network, kept = small(), sets(1)
    torch.testing.assert_close(
        network(images(), kept.flip(2)).prediction, network(images(), kept).prediction, rtol=1e-5, atol=1e-6
    )


def test_removed_patches_are_not_seen() -> None:
    network, kept = small(), sets(3)
    image = images().requires_grad_()
    network(image, kept[:, :1]).prediction.square().sum().backward()
    assert image.grad is not None
    seen = patchify(image.grad, (4, 4)).abs().sum(-1) > 0
    assert torch.equal(seen, mask_of_kept(kept[:, 0], T) == 0)


def test_every_trained_parameter_gets_a_gradient() -> None:
    network = small(network_channels=3).train()  # as distributed training demands
    MaskedReconstructionLoss()(network(images(), sets(3))).backward()
    assert not [name for name, p in network.named_parameters() if p.requires_grad != (p.grad is not None)]


def test_tokens_are_those_of_the_encoder_with_all_patches_shown() -> None:
    network, image = small(), images().requires_grad_()
    tokens = network.tokens(image)
    assert tokens.shape == (3, 1 + T, 24)
    tokens[:, 0].square().sum().backward()
    assert image.grad is not None and (patchify(image.grad, (4, 4)).abs().sum(-1) > 0).all()
    assert tokens.mean(-1).abs().max() < 1e-5, "after the last layer normalization"


def test_positions_are_fixed_tables_as_published_for_images_that_are_no_squares() -> None:
    network = small()
    for table, width in (
        (network.vit.patch_embedding.position_embeddings, 24),
        (network.vit.decoder_pos_embedding, 12),
    ):
        assert not table.requires_grad
        torch.testing.assert_close(table.data, published_table(4, 6, width)[:, 1:], rtol=0, atol=1e-5)


def test_layers_are_set_as_published() -> None:
    network = MaskedAutoencoder(spatial_size=32, hidden_size=96, num_heads=2)
    layers = [module for module in network.modules() if isinstance(module, nn.LayerNorm | nn.Linear | nn.Conv2d)]
    assert {layer.eps for layer in layers if isinstance(layer, nn.LayerNorm)} == {1e-6}
    assert all(layer.bias is not None for layer in layers if isinstance(layer, nn.Linear))
    projection = network.vit.patch_embedding.patch_embeddings.weight
    bound = (6 / (16 * 16 + 96)) ** 0.5  # Xavier, uniform, of the flattened kernel
    assert 0.99 * bound < projection.abs().max() <= bound
    assert projection.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert network.vit.mask_tokens.std().item() == pytest.approx(0.02, rel=0.2)


def test_weights_follow_from_the_seed() -> None:
    first, second = small().state_dict(), small().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = MaskedAutoencoder(**SMALL).state_dict()
    assert not torch.equal(other["vit.blocks.0.attn.qkv.weight"], first["vit.blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize("channels", [1, 3])
def test_normalized_and_repeated_channels_are_undone(channels: int) -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    network = small(in_channels=channels, network_channels=3, mean=mean, std=std)
    image = images(channels=channels)
    target = network(image, sets()).target
    expected = torch.stack([((image[:, c % channels] + 1) / 2 - mean[c]) / std[c] for c in range(3)], 1)
    torch.testing.assert_close(target, patchify(expected, (4, 4)))
    torch.testing.assert_close(network.to_image(target), image)


def test_repeated_channels_come_back_as_their_mean() -> None:
    network = small(network_channels=3, mean=0.5, std=0.5)  # ((x + 1) / 2 - .5) / .5 = x
    patches = torch.stack([torch.full((1, T, 16), value) for value in (0.0, 0.3, 0.9)], -1).flatten(2)
    torch.testing.assert_close(network.to_image(patches), torch.full((1, 1, 16, 24), 0.4))


def test_without_mean_and_std_images_are_taken_as_they_are() -> None:
    network = small()
    torch.testing.assert_close(network.to_image(network(images(), sets()).target), images(), rtol=0, atol=0)


def test_volumes() -> None:
    network = small(spatial_dims=3, spatial_size=(8, 4, 12), patch_size=4)
    assert network.grid == (2, 1, 3) and network.num_patches == 6
    image, kept = images(size=(8, 4, 12)), sets(3, 2, 6)
    output = network(image, kept)
    assert output.prediction.shape == (3, 2, 6, 64)
    torch.testing.assert_close(network.to_image(output.target), image)
    table = network.vit.patch_embedding.position_embeddings.data[0]
    assert len(torch.unique((1e4 * table).round(), dim=0)) == 6, "every position has an embedding of its own"
    MaskedReconstructionLoss()(output).backward()


def test_mixed_precision_trains() -> None:
    network = small().train()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(images(), sets(3))
        loss = MaskedReconstructionLoss()(output)
    loss.backward()
    exact = MaskedReconstructionLoss()(network(images(), sets(3)))
    assert output.prediction.dtype == torch.bfloat16 and loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.02)
    assert network.to_image(output.prediction[:, 0]).dtype == torch.float32


def test_traced_network_takes_other_batches() -> None:
    network, kept = small(network_channels=3, mean=0.5, std=0.25), sets()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(network, (images(2), kept))
        for batch in (1, 3):
            for mine, other in zip(network(images(batch), kept), traced(images(batch), kept), strict=True):
                torch.testing.assert_close(mine, other)


def test_construction_is_quiet() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small()


def test_weights_of_a_map_around_it_load() -> None:
    network, other = small(), MaskedAutoencoder(**SMALL)
    other.load_state_dict({f"network.{key}": value for key, value in network.state_dict().items()})
    assert torch.equal(other.vit.cls_token, network.vit.cls_token)
    assert all(key.startswith("vit.") for key in network.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spatial_dims": 4}, "spatial_dims must be 2 or 3, got 4"),
        ({"spatial_size": (16, 25)}, r"spatial_size \(16, 25\) must be divisible by patch_size \(4, 4\)"),
        ({"hidden_size": 26}, "hidden_size must be divisible by 4 in 2D and by num_heads, got 26"),
        ({"num_heads": 5}, "hidden_size must be divisible by 4 in 2D and by num_heads, got 24 with 5 heads"),
        ({"spatial_dims": 3, "spatial_size": 8, "decoder_hidden_size": 16}, "decoder_hidden_size must be .* 6 in 3D"),
        ({"in_channels": 2, "network_channels": 3}, "network_channels must be 2 for images of 2 channels, got 3"),
        ({"mean": 0.5}, "mean and std must be given together, got mean=0.5 and std=None"),
        ({"mean": 0.5, "std": 0.0}, "std be positive, got std=0.0"),
        ({"mean": float("nan"), "std": 1.0}, "all finite, .* got mean=nan"),
        ({"mean": 0.5, "std": float("nan")}, "all finite, .* got std=nan"),
        ({"mean": 0.5, "std": float("inf")}, "all finite, .* got std=inf"),
        ({"patch_size": 0}, r"divisible by patch_size \(0, 0\), both positive"),
        ({"patch_size": (4, -4)}, r"divisible by patch_size \(4, -4\), both positive"),
        ({"spatial_size": (16, 0)}, r"spatial_size \(16, 0\) must be divisible"),
        ({"decoder_num_heads": 0}, "by decoder_num_heads, got 12 with 0 heads"),
        ({"mean": (0.5, 0.5), "std": 0.2}, "one for each of the 1 network channels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedAutoencoder(**SMALL | changes)


@pytest.mark.parametrize("shape", [(2, 1, 24, 16), (2, 3, 16, 24), (2, 1, 16, 24, 4)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes images of shape \(B, 1, 16, 24\), got .* resize the images"):
        small()(torch.zeros(shape), sets())
    with pytest.raises(ValueError, match=r"takes images of shape \(B, 1, 16, 24\)"):
        small().tokens(torch.zeros(shape))


@pytest.mark.parametrize("kept", [sets(2), sets()[0]])
def test_kept_patches_of_another_batch_are_refused(kept: Tensor) -> None:
    with pytest.raises(ValueError, match=r"kept must have the shape \(1 or 3, L, V\), got"):
        small()(images(), kept)


@pytest.mark.parametrize("number", [0, T, T + 1])
def test_as_many_patches_as_there_are_or_none_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1 and fewer than all {T} patches, got {number}"):
        small()(images(), torch.zeros(1, 2, number, dtype=torch.long))
