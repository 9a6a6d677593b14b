# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from monai.networks.nets import DenseNet121
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from monai_anomaly.networks.nets import ConvolutionalEncoder, EncoderClassifier, MaskedAutoencoder


def transformer(dims: int = 2) -> MaskedAutoencoder:
    torch.manual_seed(3)
    small = {"hidden_size": 12, "num_layers": 1, "num_heads": 2, "decoder_hidden_size": 12}
    return MaskedAutoencoder(dims, 1, (16, 24, 16)[:dims], 8, **small, decoder_num_layers=1, decoder_num_heads=2)


def convolutions() -> nn.Sequential:
    """Two layers, one of which counts what it has seen in training mode."""
    torch.manual_seed(4)
    return nn.Sequential(nn.Conv2d(1, 5, 3, 4, 1), nn.BatchNorm2d(5))


def images(number: int = 3, dims: int = 2) -> Tensor:
    return torch.rand(number, 1, *(16, 24, 16)[:dims], generator=torch.Generator().manual_seed(1)) * 2 - 1


def slow_features(tokens: Tensor, pool: str, patches: int) -> Tensor:
    """What the head must see, one image and one number at a time."""
    rows = []
    for image in tokens.tolist():
        first = len(image) - patches
        used = {"mean": image[first:], "mean_all": image, "cls": image[:1]}[pool]
        rows.append([math.fsum(token[i] for token in used) / len(used) for i in range(len(image[0]))])
    return torch.tensor(rows)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("pool", ["mean", "mean_all", "cls"])
def test_what_the_head_sees(pool: str, dims: int) -> None:
    encoder = transformer(dims)
    network = EncoderClassifier(encoder, pool=pool)
    tokens = encoder.eval().tokens(images(dims=dims)).detach()
    patches = math.prod(n // 8 for n in (16, 24, 16)[:dims])
    assert tokens.shape[1] == patches + 1
    expected = slow_features(tokens, pool, patches)
    torch.testing.assert_close(network.features(images(dims=dims)), expected)
    logits = network(images(dims=dims))
    assert logits.shape == (3, 2)
    torch.testing.assert_close(logits, network.head(expected))
    torch.testing.assert_close(network(expected), logits)


def test_head_is_three_linear_layers_as_wide_as_the_encoder() -> None:
    network = EncoderClassifier(transformer(), activation="RELU")
    linear = [part for part in network.head.modules() if isinstance(part, nn.Linear)]
    assert [(part.in_features, part.out_features) for part in linear] == [(12, 12), (12, 12), (12, 2)]
    features = torch.randn(4, 12)
    value = features
    for part in linear[:-1]:
        value = (value @ part.weight.T + part.bias).clamp_min(0)
    torch.testing.assert_close(network(features), value @ linear[-1].weight.T + linear[-1].bias)
    named = EncoderClassifier(transformer(), [7])
    assert [part.out_features for part in named.head.modules() if isinstance(part, nn.Linear)] == [7, 2]


def test_hidden_layers_are_normalized_on_demand() -> None:
    plain, network = (EncoderClassifier(transformer(), [7, 5], norm=norm, dropout=0.1) for norm in (None, "batch"))
    own = {f"head.hidden_{n}.1.N" for n in (0, 1)}
    assert set(network.state_dict()) - set(plain.state_dict()) == {
        f"{name}.{part}"
        for name in own
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    with torch.no_grad():
        for name in own:
            norm = network.get_submodule(name)
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                values.add_(torch.rand(len(values), generator=torch.Generator().manual_seed(7)))
    features = value = torch.randn(4, 12)
    linear = [part for part in network.head.modules() if isinstance(part, nn.Linear)]
    for number, part in enumerate(linear[:-1]):
        norm = network.get_submodule(f"head.hidden_{number}.1.N")
        value = value @ part.weight.T + part.bias
        value = (value - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
        value = nn.functional.gelu(value)
    expected = value @ linear[-1].weight.T + linear[-1].bias
    torch.testing.assert_close(network.eval()(features), expected)
    assert not torch.equal(network.train()(features), expected), "in training, by the statistics of the batch"


def test_activation_and_dropout_are_those_asked_for() -> None:
    parts = [type(part).__name__ for part in EncoderClassifier(transformer()).head.modules()]
    assert parts.count("GELU") == 2 and not any("Dropout" in part for part in parts)
    network = EncoderClassifier(transformer(), dropout=0.5).train()
    features = torch.ones(1, 12)
    assert not torch.equal(network(features), network(features))
    assert torch.equal(network.eval()(features), network(features))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("kind", ["transformer", "convolutions"])
def test_a_frozen_encoder_stays_as_it_is_and_another_learns(kind: str, frozen: bool) -> None:
    encoder: Any = transformer() if kind == "transformer" else ConvolutionalEncoder(convolutions(), 1, (16, 24))
    network = EncoderClassifier(encoder, frozen=frozen).train()
    before = copy.deepcopy(network.state_dict())
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert (len(trained) == len(list(network.head.parameters()))) is frozen
    optimizer = torch.optim.SGD(trained, 0.5)
    nn.functional.cross_entropy(network(images()), torch.tensor([0, 1, 1])).backward()
    optimizer.step()
    changed = {
        name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == ({"head"} if frozen else {"head", "encoder"})
    assert not network.features(images()).requires_grad or not frozen


def test_only_the_head_of_a_frozen_network_changes_its_mode() -> None:
    network = EncoderClassifier(ConvolutionalEncoder(convolutions(), 1, (16, 24)))
    modules = list(network.encoder.modules())
    assert network.train() is network and network.training and network.head.training
    assert not any(module.training for module in modules)
    with eval_mode(network):
        assert not network.head.training
    assert network.head.training and not any(module.training for module in modules)
    free = EncoderClassifier(ConvolutionalEncoder(convolutions(), 1, (16, 24)), frozen=False).train()
    assert all(module.training for module in free.encoder.modules())


def test_weights_of_the_map_around_it_fit() -> None:
    one, other = (EncoderClassifier(transformer(), [4]) for _ in range(2))
    nn.init.constant_(one.head[0].linear.weight if hasattr(one.head[0], "linear") else next(one.head.parameters()), 0.5)
    other.load_state_dict({f"network.{name}": value for name, value in one.state_dict().items()})
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_tokens_of_convolutions_are_the_places_of_their_last_map() -> None:
    layers = convolutions().eval()
    encoder = ConvolutionalEncoder(layers, 1, (16, 24)).eval()
    assert encoder.hidden_size == 5 and encoder.grid == (4, 6)
    features, tokens = layers(images()), encoder.tokens(images())
    assert tokens.shape == (3, 24, 5)
    for row in range(4):
        for column in range(6):
            torch.testing.assert_close(tokens[:, 6 * row + column], features[:, :, row, column])


def test_making_an_encoder_of_convolutions_leaves_them_as_they_were() -> None:
    layers = convolutions().train()
    before = copy.deepcopy(layers.state_dict())
    encoder = ConvolutionalEncoder(layers, 1, (16, 24))
    assert layers.training and encoder.network is layers
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())


def test_networks_of_monai_give_their_features() -> None:
    network = DenseNet121(2, 3, 2, init_features=4, growth_rate=2, block_config=(1, 1))
    encoder = ConvolutionalEncoder(network, 3, (32, 32)).eval()
    image = torch.rand(2, 3, 32, 32)
    expected = network.eval().features(image)
    assert encoder.hidden_size == expected.shape[1] and encoder.grid == tuple(expected.shape[2:])
    torch.testing.assert_close(encoder.tokens(image), expected.flatten(2).transpose(1, 2))
    assert not any("class_layers" in name for name in encoder.state_dict())
    classifier = EncoderClassifier(encoder)
    torch.testing.assert_close(classifier.features(image), expected.mean((2, 3)))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="pool must be one of .*'mean_all'.*got 'max'"):
        EncoderClassifier(transformer(), pool="max")
    with pytest.raises(ValueError, match=r"norm must be one of \(None, 'batch'\), got 'layer'"):
        EncoderClassifier(transformer(), norm="layer")
    network = EncoderClassifier(ConvolutionalEncoder(convolutions(), 1, (16, 24)), pool="cls")
    with pytest.raises(ValueError, match="ConvolutionalEncoder has none"):
        network(images())


def test_images_and_networks_that_give_other_tokens_are_refused() -> None:
    network = EncoderClassifier(ConvolutionalEncoder(convolutions(), 1, (16, 24)))
    for size in ((32, 24), (12, 24)):  # more tokens would pass for special ones, fewer for patches
        with pytest.raises(ValueError, match=r"tokens instead of \(4, 6\): resize the images, or make the encoder"):
            network(torch.zeros(2, 1, *size))
    pooled = nn.Sequential(convolutions(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"feature map with 2 spatial axes, got one of shape \(1, 5\): give the part"):
        ConvolutionalEncoder(pooled, 1, (16, 24))
