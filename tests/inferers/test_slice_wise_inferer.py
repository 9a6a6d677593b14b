# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer, SliceInferer
from monai.networks.nets import DiffusionModelUNet
from monai.transforms import Resize
from torch import Tensor, nn

from monai_anomaly.functional import max_score
from monai_anomaly.inferers import (
    EnsembleInferer,
    ReconstructionInferer,
    RestorationInferer,
    SliceWiseInferer,
    in_plane_size,
)
from monai_anomaly.inferers.slice_wise_inferer import is_constant
from monai_anomaly.networks.blocks import NetworkEnsemble, NetworkFolds
from monai_anomaly.networks.maps import DiffusionMap, DiffusionSampler
from monai_anomaly.networks.nets import DenseAutoencoder

AXES = (0, 1, 2)


def volumes(*shape: int, seed: int = 0) -> Tensor:
    """Random volumes in [-1, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def slice_of(volume: Tensor, axis: int, place: int) -> Tensor:
    """One slice (B, C, *P), by plain indexing."""
    index: list[Any] = [slice(None)] * volume.ndim
    index[axis + 2] = place
    return volume[tuple(index)]


class Network(nn.Module):
    """A healthy version of an image that depends on where its pixels are, and a record of what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.given: list[Any] = []

    def forward(self, image: Tensor) -> Tensor:
        self.batches.append(len(image))
        healthy: Tensor = image.mean((2, 3), keepdim=True) - 0.3 * image.flip(2).roll(1, 3)
        return healthy


def restore(image: Tensor, network: Network, *args: Any) -> dict[str, Tensor]:
    """An inferer of images with all that one may give."""
    network.given.append(args)
    healthy = network(image)
    difference = (image - healthy).abs()
    return {
        "anomaly_map": difference.mean(1, keepdim=True),
        "reconstruction": healthy,
        "spread": difference.amax(1, keepdim=True),
        "score": torch.full((len(image), 1), -1.0),
    }


def diffusion_map() -> DiffusionMap:
    """A small ensemble with random weights."""
    torch.manual_seed(0)
    member = partial(
        DiffusionModelUNet,
        spatial_dims=2,
        in_channels=2,
        out_channels=1,
        channels=(8, 8),
        attention_levels=(False, True),
        num_res_blocks=1,
        num_head_channels=8,
        norm_num_groups=8,
    )
    network = DiffusionMap(NetworkFolds(member, 2), DiffusionSampler(num_steps=2), "l1")
    for parameter in network.parameters():  # some begin at zero
        nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_slice_gets_what_it_gets_alone(axis: int, batch_size: int) -> None:
    given, network = volumes(2, 3, 5, 6, 7), Network()
    result = SliceWiseInferer(restore, axis, batch_size)(given, network, "more")
    shapes = {"anomaly_map": (2, 1, 5, 6, 7), "reconstruction": (2, 3, 5, 6, 7), "spread": (2, 1, 5, 6, 7)}
    assert {key: tuple(value.shape) for key, value in result.items()} == {**shapes, "score": (2, 1)}
    assert max(network.batches) == min(batch_size, 2 * given.shape[axis + 2]) and set(network.given) == {("more",)}
    assert sum(network.batches) == 2 * given.shape[axis + 2]
    for volume in range(2):
        for place in range(given.shape[axis + 2]):
            alone = restore(slice_of(given, axis, place)[volume : volume + 1], Network())
            for key in shapes:
                torch.testing.assert_close(slice_of(result[key], axis, place)[volume], alone[key][0])
    by_hand = [[float(one.double().mean())] for one in result["anomaly_map"]]
    torch.testing.assert_close(result["score"], torch.tensor(by_hand), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("axis", AXES)
def test_a_diffusion_ensemble_gives_each_slice_what_it_gives_it_alone(axis: int) -> None:
    given, network = volumes(1, 1, 8, 8, 8), diffusion_map()
    result = SliceWiseInferer(RestorationInferer(), axis, 3)(given, network)
    for place in range(8):
        alone = RestorationInferer()(slice_of(given, axis, place), network)
        for key in ("anomaly_map", "reconstruction", "spread"):
            torch.testing.assert_close(slice_of(result[key], axis, place), alone[key], rtol=1e-4, atol=1e-5)
    assert result["spread"].std() > 0 and result["anomaly_map"].std() > 0


def test_a_slice_does_not_depend_on_the_others() -> None:
    given, other, network = volumes(1, 1, 8, 8, 6), volumes(1, 1, 8, 8, 6, seed=1), diffusion_map()
    other[..., 4] = given[..., 4]
    inferer = SliceWiseInferer(RestorationInferer(), 2, 4)
    results = [inferer(volume, network) for volume in (given, other)]
    for key in ("anomaly_map", "reconstruction", "spread"):
        torch.testing.assert_close(results[0][key][..., 4], results[1][key][..., 4], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(results[0][key][..., 3], results[1][key][..., 3])


@pytest.mark.parametrize("axis", AXES)
def test_constant_slices_are_not_shown(axis: int) -> None:
    given = volumes(1, 2, 6, 7, 8)
    full = SliceWiseInferer(restore, axis, 4)(given, Network())
    empty = (0, 1, 4)
    for place in empty:
        slice_of(given, axis, place)[:] = torch.tensor([-1.0, 0.25])[:, None, None]
    network = Network()
    result = SliceWiseInferer(restore, axis, 4)(given, network)
    assert sum(network.batches) == given.shape[axis + 2] - len(empty)
    for place in range(given.shape[axis + 2]):
        if place in empty:
            assert not slice_of(result["anomaly_map"], axis, place).any()
            assert not slice_of(result["spread"], axis, place).any()
            assert torch.equal(slice_of(result["reconstruction"], axis, place), slice_of(given, axis, place))
        else:
            for key in ("anomaly_map", "reconstruction", "spread"):
                torch.testing.assert_close(slice_of(result[key], axis, place), slice_of(full[key], axis, place))


def test_an_empty_volume_has_the_same_maps_and_leaves_its_neighbor_alone() -> None:
    given, network = torch.full((1, 1, 4, 4, 3), -1.0), Network()
    result = SliceWiseInferer(restore)(given, network)
    assert network.batches == [1] and result["score"].tolist() == [[0.0]]
    assert not result["anomaly_map"].any() and not result["spread"].any()
    assert torch.equal(result["reconstruction"], given)
    other = volumes(1, 1, 4, 4, 3)
    together, alone = (SliceWiseInferer(restore)(v, Network()) for v in (torch.cat([given, other]), other))
    assert together.keys() == alone.keys() == result.keys()
    for key, value in alone.items():
        torch.testing.assert_close(together[key][1:], value)
        torch.testing.assert_close(together[key][:1], result[key])


def test_what_is_constant() -> None:
    images = torch.zeros(5, 2, 4, 4)
    images[1, 1] = -0.37
    images[2, 0, 0, 0] = 1e-3
    images[3] = -0.9 + 1e-7 * volumes(2, 4, 4)
    images[4, 0], images[4, 1, 2, 2] = 1.0, 2 / 65535  # a step of 16 bits in the other channel
    assert is_constant(images).tolist() == [True, True, False, True, False]
    resized = Resize([3, 5, -1], mode="area")(torch.full((1, 7, 9, 2), -0.37))
    assert is_constant(resized.movedim(3, 0)).all()


def test_reduction_is_of_the_whole_volume() -> None:
    given = volumes(2, 1, 4, 4, 5)
    result = SliceWiseInferer(restore, reduction=max_score)(given, Network())
    assert result["score"].flatten().tolist() == [float(one.max()) for one in result["anomaly_map"]]


@pytest.mark.parametrize("axis", AXES)
def test_agrees_with_the_slice_inferer_of_monai(axis: int) -> None:
    given, network = volumes(2, 1, 6, 7, 8), Network()
    result = SliceWiseInferer(restore, axis, 3)(given, network)

    def maps(image: Tensor) -> dict[str, Tensor]:
        return {key: value for key, value in restore(image, network).items() if key != "score"}

    expected = SliceInferer(spatial_dim=axis, roi_size=(-1, -1), sw_batch_size=3)(given, maps)
    assert isinstance(expected, dict)
    for key, value in expected.items():
        torch.testing.assert_close(result[key], value)


def test_inferers_of_other_methods() -> None:
    torch.manual_seed(0)
    given, network = volumes(1, 1, 16, 16, 3), DenseAutoencoder(2, 1, 16, (3, 3, 4, 4), 8, 4).eval()
    ensemble = NetworkEnsemble(partial(DenseAutoencoder, 2, 1, 16, (3, 3, 4, 4), 8, 4), 3).eval()
    for inferer, scored in ((ReconstructionInferer(), network), (EnsembleInferer("dsu"), ensemble)):
        result = SliceWiseInferer(inferer, 2, 2)(given, scored)
        assert all(value.dtype == torch.float32 and not value.requires_grad for value in result.values())
        alone = inferer(given[..., 1], scored)
        torch.testing.assert_close(result["anomaly_map"][..., 1], alone["anomaly_map"], rtol=1e-4, atol=1e-6)


def test_one_tensor_stays_one_tensor_without_gradient() -> None:
    given = volumes(2, 2, 4, 5, 6)
    given[0, :, :, 2] = 0.5
    network = nn.Conv2d(2, 1, 3, padding=1)
    result = SliceWiseInferer(SimpleInferer(), axis=1, batch_size=3)(MetaTensor(given), network)
    assert type(result) is Tensor and not result.requires_grad
    for volume in range(2):
        for place in range(5):
            alone = network(given[volume : volume + 1, :, :, place]).detach()
            expected = torch.zeros_like(alone) if (volume, place) == (0, 2) else alone
            torch.testing.assert_close(result[volume, :, :, place], expected[0])


class Killed(Exception):
    """Stands for the end of a process."""


def test_a_killed_volume_goes_on_where_it_was(tmp_path: Path) -> None:
    given, network = volumes(1, 1, 8, 8, 6), diffusion_map()
    given[..., 0] = -1
    expected = SliceWiseInferer(RestorationInferer(), 2, 2)(given, network)
    seen: list[int] = []
    left = [2]

    def count(module: nn.Module, arguments: Any) -> None:
        if left[0] == 0:
            raise Killed
        seen.append(len(arguments[0]))

    # the last of the two denoisers, asked twice (num_steps) a batch
    handle = network.network.members[1].register_forward_pre_hook(count)
    inferer = SliceWiseInferer(RestorationInferer(cache_dir=tmp_path), 2, 2)
    network.network.members[1].register_forward_hook(lambda *_: left.__setitem__(0, left[0] - 1))
    with pytest.raises(Killed):
        inferer(given, network)
    assert seen == [2, 2] and len(list(tmp_path.iterdir())) == 2  # one batch of two slices is kept
    seen.clear()
    left[0] = -1
    resumed = inferer(given, network)
    assert seen == [2, 2, 1, 1] and len(list(tmp_path.iterdir())) == 5
    seen.clear()
    again = SliceWiseInferer(RestorationInferer(cache_dir=tmp_path), 2, 4)(given, network)
    assert seen == []
    handle.remove()
    for key, value in expected.items():
        torch.testing.assert_close(resumed[key], value, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(again[key], resumed[key])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("axis", AXES)
def test_a_slice_that_is_not_finite_is_named(axis: int, bad: float) -> None:
    given, network = volumes(2, 1, 5, 6, 7), Network()
    given[1, 0, 2, 3, 4] = bad
    message = rf"slice {(2, 3, 4)[axis]} along axis {axis} of volume 1 of the batch holds NaN or infinity \(1 such"
    with pytest.raises(ValueError, match=message):
        SliceWiseInferer(restore, axis)(given, network)
    assert network.batches == []


def test_images_of_two_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"volumes \(B, C, X, Y, Z\), got shape \(2, 1, 8, 8\)"):
        SliceWiseInferer(restore)(volumes(2, 1, 8, 8), Network())


@pytest.mark.parametrize("axis", [-1, 3, 1.5, "z", None])
def test_other_axes_are_refused(axis: Any) -> None:
    for make in (partial(SliceWiseInferer, restore), partial(in_plane_size, [8, 8])):
        with pytest.raises(ValueError, match=r"axis must be one of \(0, 1, 2\), got .*slice_axis"):
            make(axis)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_other_batch_sizes_are_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size must be at least 1 slice, got {batch_size}"):
        SliceWiseInferer(restore, batch_size=batch_size)


@pytest.mark.parametrize("axis", AXES)
def test_resizing_in_the_plane_is_that_of_each_slice(axis: int) -> None:
    given = volumes(2, 9, 10, 11)
    size = in_plane_size((4, 6), axis)
    assert size == [[-1, 4, 6], [4, -1, 6], [4, 6, -1]][axis]
    resized = Resize(size, mode="area")(given)
    assert resized.shape[axis + 1] == given.shape[axis + 1]
    for place in range(given.shape[axis + 1]):
        alone = Resize((4, 6), mode="area")(given.select(axis + 1, place))
        torch.testing.assert_close(resized.select(axis + 1, place), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [[8], [8, 8, 8], [8, 0]])
def test_sizes_of_other_networks_are_refused(size: list[int]) -> None:
    with pytest.raises(ValueError, match=r"two numbers that the 2D network was trained with, got \[8.*leave configs/"):
        in_plane_size(size)


def test_progress_is_shown_where_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    SliceWiseInferer(restore)(volumes(1, 1, 4, 4, 3), Network())
    assert "slices" not in capsys.readouterr().err
    SliceWiseInferer(restore, progress=True)(volumes(1, 1, 4, 4, 3), Network())
    assert "slices" in capsys.readouterr().err
