# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The contracts of the architecture, held by every method: recipes are discovered, none is listed here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fitted_networks import SMALL_FIT, is_fitted, ready, skip_volumes
from monai.bundle import ConfigParser
from torch import Tensor

from monai_anomaly.bundle.build import bundle_files, recipe_names

SIZES = {2: [32, 48], 3: [16, 32, 16]}
# what makes networks small: each recipe reads those that it has
SMALL: dict[str, Any] = {
    "hidden_channels": 8,
    "channels": [8, 8],
    "attention_levels": [False, True],
    "num_folds": 2,
    "num_steps": 3,
    **SMALL_FIT,
}


def parser_of(name: str, dims: int, config: str = "train", channels: int = 1) -> ConfigParser:
    """The configuration of a bundle, made small."""
    parser = ConfigParser(bundle_files(name)[f"configs/{config}.json"])
    parser.update({"spatial_size": SIZES[dims], "in_channels": channels, "device": "cpu", **SMALL})
    return parser


def training_loss(parser: ConfigParser, network: Any, image: Tensor) -> Tensor:
    """Loss of one training step on a batch, the network asked as the trainer of this recipe asks it."""
    torch.manual_seed(2)  # what a step draws is the same each time
    corrupted = (torch.arange(len(image)) > 0).long()
    batch = {"image": image + 0.1 * (image > 0), "clean": image, "label": (image > 0).float()}
    batch |= {"index": torch.arange(len(image)), "target": corrupted}
    prepare, inferer = (parser.get_parsed_content(name) for name in ("prepare_batch", "train#inferer"))
    inputs, targets, *more = prepare(batch)
    args, kwargs = more or ((), {})
    loss: Tensor = parser.get_parsed_content("loss")(inferer(inputs, network, *args, **kwargs), targets)
    return loss


def exported(network: torch.nn.Module, image: Tensor) -> Any:
    """TorchScript of a network, scripted or else traced, as MONAI exports one."""
    try:
        return torch.jit.script(network)
    except Exception:  # torch.jit raises many kinds
        return torch.jit.trace(network, image, check_trace=False)


@pytest.fixture(params=[(name, dims) for name in recipe_names() for dims in SIZES], ids=lambda p: f"{p[0]}-{p[1]}d")
def method(request: pytest.FixtureRequest) -> tuple[ConfigParser, Tensor]:
    """Every method in 2D and 3D, with a batch of images."""
    name, dims = request.param
    torch.manual_seed(0)
    parser = parser_of(name, dims)
    skip_volumes(parser, dims)
    if "same_start" in str(parser["network_def"]):  # as long as they are alike, the map of their difference is zero
        draw = torch.Generator().manual_seed(3)
        for parameter in parser.get_parsed_content("network_def").parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=draw)
    ready(parser)
    return parser, torch.rand(5, 1, *SIZES[dims], generator=torch.Generator().manual_seed(1)) * 2 - 1


def skip_fitted(parser: ConfigParser) -> None:
    """Leave a test of trainings out."""
    if is_fitted(parser):
        pytest.skip("a fit has neither loss nor gradient; tests/engines/test_fit_trainer.py is about it")


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in nested tuples."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for item in value if item is not None for tensor in tensors_of(item)]


def test_network_returns_a_tensor_or_named_fields(method: tuple[ConfigParser, Tensor]) -> None:
    parser, image = method
    skip_fitted(parser)
    outputs: list[Any] = []
    network = parser.get_parsed_content("network").train()
    network.register_forward_hook(lambda module, given, output: outputs.append(output))
    training_loss(parser, network, image)
    output = outputs[0]
    assert isinstance(output, Tensor) or hasattr(output, "_fields")
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(output))


def test_loss_takes_what_the_network_returned_and_trains_it(method: tuple[ConfigParser, Tensor]) -> None:
    parser, image = method
    skip_fitted(parser)
    network = parser.get_parsed_content("network").train()
    optimizer = parser.get_parsed_content("optimizer")
    values = []
    for _ in range(8):
        optimizer.zero_grad(set_to_none=True)
        value = training_loss(parser, network, image)
        assert value.ndim == 0
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert min(values[-3:]) < values[0]


def test_inferer_keeps_its_contract(method: tuple[ConfigParser, Tensor]) -> None:
    parser, image = method
    network = parser.get_parsed_content("scored_network").train()
    inferer = parser.get_parsed_content("validate#inferer")
    result = inferer(image, network)
    assert network.training
    assert result["anomaly_map"].shape == (5, 1, *image.shape[2:])
    assert result["score"].shape == (5, 1)
    for tensor in result.values():
        assert tensor.dtype == torch.float32 and not tensor.requires_grad and torch.isfinite(tensor).all()
    assert result["anomaly_map"].std() > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_result_of_an_image_does_not_depend_on_its_batch(method: tuple[ConfigParser, Tensor]) -> None:
    parser, image = method
    network = parser.get_parsed_content("scored_network").train()
    inferer = parser.get_parsed_content("validate#inferer")
    together = inferer(image, network)
    with torch.no_grad():
        alone = inferer(image[3:4], network)
    for key, value in alone.items():
        torch.testing.assert_close(together[key][3:4], value, rtol=1e-4, atol=1e-4 * float(value.abs().max()))


def test_inference_network_is_one_tensor_in_one_tensor_out_and_agrees(method: tuple[ConfigParser, Tensor]) -> None:
    parser, image = method
    network_def = parser.get_parsed_content("network_def").eval()
    inferer = parser.get_parsed_content("validate#inferer")
    expected = inferer(image, parser.get_parsed_content("scored_network"))["anomaly_map"]
    torch.testing.assert_close(network_def(image).detach(), expected)
    alone = exported(network_def, image[:2])
    torch.testing.assert_close(alone(image).detach(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("name", recipe_names())
def test_train_and_inference_configurations_share_their_weights(name: str) -> None:
    keys = [
        parser_of(name, 2, config).get_parsed_content("network_def").state_dict().keys()
        for config in ("train", "inference")
    ]
    assert keys[0] == keys[1] and len(keys[0]) > 0


@pytest.mark.parametrize("name", recipe_names())
def test_images_of_several_channels(name: str) -> None:
    parser = parser_of(name, 2, channels=3)
    ready(parser)
    image = torch.rand(4, 3, *SIZES[2])
    result = parser.get_parsed_content("validate#inferer")(image, parser.get_parsed_content("scored_network"))
    assert result["anomaly_map"].shape == (4, 1, *SIZES[2])
