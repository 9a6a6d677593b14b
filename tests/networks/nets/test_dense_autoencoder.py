# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_anomaly.networks.blocks import AutoencoderOutput
from monai_anomaly.networks.nets import DenseAutoencoder


def _count(**arguments: object) -> int:
    return sum(p.numel() for p in DenseAutoencoder(**arguments).parameters())  # type: ignore[arg-type]


def test_numbers_of_parameters() -> None:
    """In the literature: 4.487, 4.4875, 4.4876 million with 2048 hidden units, 2.351, 2.3514, 2.3516 with 1024."""
    assert _count() == 4_487_248
    assert _count(predict_variance=True) == 4_487_248 + 16 * 16
    assert _count(memory_slots=25) == 4_487_248 + 25 * 16
    for arguments, millions in (({}, 2.351), ({"predict_variance": True}, 2.3514), ({"memory_slots": 25}, 2.3516)):
        digits = len(str(millions).split(".")[1])
        assert round(_count(hidden_channels=1024, **arguments) / 1e6, digits) == millions


LAYERS = {
    "encoder1": (16, 32),
    "encoder2": (32, 16),
    "encoder3": (64, 8),
    "encoder4": (64, 4),
    "bottleneck": (64, 4),
    "decoder3": (64, 8),
    "decoder2": (32, 16),
    "decoder1": (16, 32),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_feature_layers_of_the_benchmark(layer: str) -> None:
    network = DenseAutoencoder(feature_layer=layer, hidden_channels=8)
    channels, size = LAYERS[layer]
    output = network(torch.rand(2, 1, 64, 64))
    assert output.features.shape == (2, channels, size, size)
    assert output.code.shape == (2, 16)


def test_code_is_the_default_feature_and_comes_before_the_memory() -> None:
    network = DenseAutoencoder(spatial_size=16, hidden_channels=8, latent_channels=5, memory_slots=7).eval()
    output = network(torch.rand(3, 1, 16, 16))
    assert output.features is output.code or torch.equal(output.features, output.code)
    assert output.code.shape == (3, 5) and output.address is not None and output.address.shape == (3, 7)
    assert not torch.allclose(output.code, output.address @ network.memory.slots)


@pytest.mark.parametrize(
    ("spatial_dims", "channels", "size"),
    [(2, 1, (16, 16)), (2, 3, (48, 32)), (3, 1, (16, 32, 16)), (3, 2, (16, 16, 16))],
)
@pytest.mark.parametrize("kind", [{}, {"memory_slots": 4}, {"predict_variance": True}])
def test_shapes(spatial_dims: int, channels: int, size: tuple[int, ...], kind: dict[str, object]) -> None:
    network = DenseAutoencoder(spatial_dims, channels, size, (4, 6, 8, 8), 16, 5, **kind)  # type: ignore[arg-type]
    image = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))
    output = network(image)
    assert isinstance(output, AutoencoderOutput)
    assert output.reconstruction.shape == image.shape
    assert (output.log_variance is not None) == ("predict_variance" in kind)
    assert (output.address is not None) == ("memory_slots" in kind)
    if output.log_variance is not None:
        assert output.log_variance.shape == image.shape
    (output.reconstruction.square().mean() + output.code.sum()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name


def plain_autoencoder(out_channels: int = 1) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and decoder for 32 x 32 images, written layer by layer from the benchmark's description."""
    encoder = nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(32, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 5),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Linear(5, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 32), nn.Unflatten(1, (8, 2, 2)),
        nn.ConvTranspose2d(8, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 4, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.ConvTranspose2d(4, out_channels, 4, 2, 1, bias=False),
    )  # fmt: skip
    return encoder, decoder


def _twin(**kind: object) -> tuple[DenseAutoencoder, nn.Sequential, nn.Sequential]:
    """A network and the plain one with its weights, in the order in which the image passes them."""
    torch.manual_seed(0)
    network = DenseAutoencoder(2, 1, 32, (4, 6, 8, 8), 24, 5, **kind)  # type: ignore[arg-type]
    encoder, decoder = plain_autoencoder(2 if network.predict_variance else 1)
    state = [v for k, v in network.state_dict().items() if not k.startswith("memory.")]
    twins = [*encoder.state_dict().values(), *decoder.state_dict().values()]
    assert [v.shape for v in state] == [v.shape for v in twins]
    with torch.no_grad():
        for source, target in zip(state, twins, strict=True):
            if source.is_floating_point():
                source.add_(0.1 * torch.rand_like(source))  # away from the batch-norm defaults of 0 and 1
            target.copy_(source)
    return network, encoder, decoder


IMAGE = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("training", [False, True])
def test_equal_to_a_plain_network(training: bool) -> None:
    network, encoder, decoder = (module.train(training) for module in _twin())
    output = network(IMAGE)
    code = encoder(IMAGE)
    torch.testing.assert_close(output.code, code, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.reconstruction, decoder(code), atol=1e-5, rtol=1e-5)
    buffers = dict(network.named_buffers())
    plain = [*encoder.buffers(), *decoder.buffers()]
    for mine, theirs in zip(buffers.values(), plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_variance_head() -> None:
    network, encoder, decoder = (module.eval() for module in _twin(predict_variance=True, log_variance_limit=None))
    output, both = network(IMAGE), decoder(encoder(IMAGE))
    torch.testing.assert_close(output.reconstruction, both[:, :1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.log_variance, both[:, 1:], atol=1e-5, rtol=1e-5)


def test_log_variance_is_held_within_its_limit() -> None:
    network = DenseAutoencoder(2, 1, 16, (2, 2, 2, 2), 4, 2, predict_variance=True, log_variance_limit=0.01).eval()
    free = DenseAutoencoder(2, 1, 16, (2, 2, 2, 2), 4, 2, predict_variance=True, log_variance_limit=None).eval()
    with torch.no_grad():
        network.head.weight.mul_(1000)
    free.load_state_dict(network.state_dict())
    image = 10 * torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    held, loose = network(image), free(image)
    assert float(loose.log_variance.detach().abs().max()) > 0.1
    assert torch.equal(held.log_variance, loose.log_variance.clamp(-0.01, 0.01))
    assert torch.equal(held.reconstruction, loose.reconstruction)


def slow_lookup(code: Tensor, slots: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Softmax of the dot products, hard shrinkage and normalization, number by number."""
    addresses, mixes = [], []
    for z in code.double().tolist():
        scores = [math.exp(sum(a * b for a, b in zip(z, slot, strict=True))) for slot in slots.double().tolist()]
        address = [s / sum(scores) for s in scores]
        if threshold > 0:
            address = [max(a - threshold, 0) * a / (abs(a - threshold) + 1e-12) for a in address]
            address = [a / max(sum(address), 1e-12) for a in address]
        addresses.append(address)
        mixes.append([sum(a * s for a, s in zip(address, column, strict=True)) for column in slots.T.double().tolist()])
    return torch.tensor(mixes), torch.tensor(addresses)


def test_memory_lookup_inside_the_network() -> None:
    network, encoder, decoder = (module.eval() for module in _twin(memory_slots=25))
    output = network(IMAGE)
    mix, address = slow_lookup(encoder(IMAGE), network.memory.slots, 0.0025)
    torch.testing.assert_close(output.address, address, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.reconstruction, decoder(mix), atol=1e-4, rtol=1e-4)
    # the weights that exist in no other network are drawn as the benchmark draws them
    slots = DenseAutoencoder(memory_slots=25, hidden_channels=4).memory.slots
    assert slots.shape == (25, 16) and 0.2 < float(slots.abs().max()) <= 1 / 4


@pytest.mark.parametrize("kind", [{}, {"memory_slots": 25}, {"predict_variance": True}])
def test_torchscript(kind: dict[str, object]) -> None:
    network = _twin(**kind)[0].eval()
    scripted = torch.jit.script(network)
    for mine, theirs in zip(network(IMAGE), scripted(IMAGE), strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs)
    with pytest.raises(Exception, match="resize it to the network's size"):
        scripted(IMAGE[..., :16])


def test_an_image_does_not_depend_on_its_batch() -> None:
    network = _twin()[0].eval()
    alone = torch.cat([network(image[None]).reconstruction for image in IMAGE])
    torch.testing.assert_close(alone, network(IMAGE).reconstruction, atol=1e-5, rtol=1e-5)


def test_reconstruction_is_unbounded() -> None:
    network = _twin()[0].eval()
    with torch.no_grad():
        network.head.weight.mul_(100)
    assert float(F.relu(network(IMAGE).reconstruction).max()) > 1 and float(network(IMAGE).reconstruction.min()) < -1


def test_errors() -> None:
    for arguments, message in (
        ({"spatial_dims": 1}, "2 or 3, got 1"),
        ({"spatial_size": 40}, "multiple of 16, got 40"),
        ({"spatial_size": 0}, "multiple of 16, got 0"),
        ({"spatial_size": (32, 32, 32)}, "2 axes"),
        ({"channels": (4, 4)}, r"four levels, got \(4, 4\)"),
        ({"feature_layer": "z"}, "'code'.* got 'z'"),
        ({"log_variance_limit": 0.0}, "positive or None, got 0.0"),
        ({"memory_slots": 25, "shrink_threshold": 1.0}, "shrink_threshold"),
    ):
        with pytest.raises(ValueError, match=message):
            DenseAutoencoder(hidden_channels=4, **arguments)  # type: ignore[arg-type]
    network = DenseAutoencoder(spatial_size=16, hidden_channels=4)
    for shape in ((2, 1, 32, 32), (2, 3, 16, 16), (1, 16, 16)):
        with pytest.raises(ValueError, match="resize it to the network's size"):
            network(torch.rand(shape))


def test_from_loss_to_code_a_gradient_flows_through_shrinkage() -> None:
    network = DenseAutoencoder(2, 1, 16, (2, 2, 2, 2), 4, 2, memory_slots=5)
    output = network(torch.rand(3, 1, 16, 16))
    (gradient,) = torch.autograd.grad(output.reconstruction.square().sum(), network.memory.slots)
    assert bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) > 0


def test_one_image_is_too_few_to_learn_from() -> None:
    network = DenseAutoencoder(spatial_size=16, hidden_channels=8)
    with pytest.raises(ValueError, match="at least two images in a training batch: raise batch_size"):
        network(torch.zeros(1, 1, 16, 16))
    assert network.eval()(torch.zeros(1, 1, 16, 16)).reconstruction.shape == (1, 1, 16, 16)
