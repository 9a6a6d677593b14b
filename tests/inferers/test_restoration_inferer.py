# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from monai.data import MetaTensor
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monai_anomaly.functional import max_score
from monai_anomaly.inferers import RestorationInferer, restoration_inferer
from monai_anomaly.networks.blocks import NetworkFolds
from monai_anomaly.networks.maps import DiffusionMap, DiffusionSampler

IMAGES = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
STEPS, MEMBERS = 2, 2


class Counted(DiffusionModelUNet):
    """A denoiser that knows how many images it was asked for, and may break."""

    asked = 0
    breaks_at = -1

    def __init__(self, norm_num_groups: int = 8, num_head_channels: int = 8) -> None:
        super().__init__(
            spatial_dims=2,
            in_channels=2,
            out_channels=1,
            channels=(8, 8),
            attention_levels=(False, True),
            num_res_blocks=1,
            num_head_channels=num_head_channels,
            norm_num_groups=norm_num_groups,
        )
        for parameter in self.parameters():  # its last layers start at zero
            nn.init.normal_(parameter, std=0.25)

    def forward(self, x: Tensor, timesteps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        Counted.asked += len(x)
        if Counted.asked > Counted.breaks_at >= 0:
            raise KeyboardInterrupt
        return super().forward(x, timesteps, *args, **kwargs)


@pytest.fixture(autouse=True)
def nothing_asked_yet() -> None:
    Counted.asked, Counted.breaks_at = 0, -1


def _network(
    residual: str = "l1", background: float | None = None, member: Callable[[], nn.Module] = Counted, **sampling: Any
) -> DiffusionMap:
    sampler = DiffusionSampler(**{"num_steps": STEPS, **sampling})
    return DiffusionMap(NetworkFolds(member, MEMBERS), sampler, residual, background)


def _asked(number: int) -> int:
    """How often the members are asked for the restorations of a number of images."""
    return number * STEPS * MEMBERS


def _assert_same(mine: dict[str, Tensor], theirs: dict[str, Tensor], exact: bool = True) -> None:
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=0, atol=0 if exact else 1e-4)


@pytest.mark.parametrize("cached", [True, False])
def test_maps_scores_restorations_and_spread(cached: bool, tmp_path: Path) -> None:
    network = _network(residual="ssim", background=0.1)
    expected = network.eval().predict(IMAGES)
    result = RestorationInferer(cache_dir=tmp_path if cached else None)(IMAGES, network)
    assert set(result) == {"anomaly_map", "score", "reconstruction", "spread"}
    assert all(v.dtype == torch.float32 and not v.requires_grad for v in result.values())
    for key in ("anomaly_map", "reconstruction", "spread"):
        assert torch.equal(result[key], getattr(expected, key))
    by_hand = [sum(m.flatten().tolist()) / 256 for m in expected.anomaly_map]
    assert result["score"].shape == (4, 1) and result["score"][:, 0].tolist() == pytest.approx(by_hand, rel=1e-4)
    top = RestorationInferer(max_score, tmp_path if cached else None)(IMAGES, network)["score"]
    assert torch.equal(top[:, 0], expected.anomaly_map.flatten(1).amax(1))


@pytest.mark.parametrize("cached", [True, False])
def test_result_of_an_image_does_not_depend_on_its_batch(cached: bool, tmp_path: Path) -> None:
    network = _network(background=0.0)
    together = RestorationInferer()(IMAGES, network)
    inferer = RestorationInferer(cache_dir=tmp_path if cached else None)
    for rows in ([0], [2, 1], [3, 0, 2]):
        _assert_same(inferer(IMAGES[rows], network), {k: v[rows] for k, v in together.items()}, exact=False)


@pytest.mark.parametrize("training", [True, False])
def test_scores_in_evaluation_mode_and_returns_to_the_mode_before(training: bool) -> None:
    network = _network(residual="features")
    expected = RestorationInferer()(IMAGES, network.eval())
    network.train(training)
    modes = [module.training for module in network.modules()]
    _assert_same(RestorationInferer()(IMAGES, network), expected)
    assert [module.training for module in network.modules()] == modes and torch.is_grad_enabled()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _assert_same(RestorationInferer()(MetaTensor(IMAGES), network), expected)


def test_network_wrapped_for_distributed_training(tmp_path: Path) -> None:
    network = _network()
    expected = RestorationInferer()(IMAGES, network)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        _assert_same(RestorationInferer()(IMAGES, DistributedDataParallel(network)), expected)
    finally:
        dist.destroy_process_group()


def test_a_second_call_computes_nothing_and_gives_the_same(tmp_path: Path) -> None:
    network, inferer = _network(num_samples=2), RestorationInferer(cache_dir=tmp_path / "kept" / "here")
    first = inferer(IMAGES, network)
    assert Counted.asked == 2 * _asked(4)
    _assert_same(first, RestorationInferer()(IMAGES, network))
    Counted.asked = 0
    _assert_same(inferer(IMAGES, network), first)
    # in another process, other batches, other order
    _assert_same(RestorationInferer(cache_dir=tmp_path / "kept" / "here")(IMAGES, copy.deepcopy(network)), first)
    _assert_same(inferer(IMAGES[[2, 0]], network), {key: value[[2, 0]] for key, value in first.items()})
    assert Counted.asked == 0
    assert len(list((tmp_path / "kept" / "here").iterdir())) == 4


def test_results_of_older_rules_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, inferer = _network(residual="ssim"), RestorationInferer(cache_dir=tmp_path)
    monkeypatch.setattr(restoration_inferer, "RESULTS", restoration_inferer.RESULTS - 1)
    inferer(IMAGES, network)
    monkeypatch.undo()
    Counted.asked = 0
    inferer(IMAGES, network)
    assert Counted.asked == _asked(4)


def test_only_images_that_are_not_there_are_computed(tmp_path: Path) -> None:
    network, inferer = _network(), RestorationInferer(cache_dir=tmp_path)
    inferer(IMAGES[[1, 3]], network)
    Counted.asked = 0
    result = inferer(IMAGES, network)
    assert Counted.asked == _asked(2)
    _assert_same(result, RestorationInferer()(IMAGES, network), exact=False)
    Counted.asked = 0
    changed = IMAGES.clone()
    changed[2, 0, 5, 5] += 1e-6
    inferer(changed, network)
    assert Counted.asked == _asked(1), "an image is known by all of its values"


CHANGES: dict[str, Callable[[DiffusionMap], DiffusionMap]] = {
    "steps": lambda network: _network(num_steps=3),
    "spacing": lambda network: _network(spacing="trailing"),
    "start": lambda network: _network(start=500),
    "eta": lambda network: _network(eta=0.5),
    "samples": lambda network: _network(num_samples=2),
    "seed": lambda network: _network(seed=1),
    "prediction": lambda network: _network(prediction="velocity"),
    "precision": lambda network: _network(mixed_precision=True),
    "levels of the training": lambda network: _network(num_train_timesteps=500),
    "residual": lambda network: _network(residual="l2"),
    "background": lambda network: _network(background=0.0),
    "groups": lambda network: _weights_of(network, _network(member=partial(Counted, norm_num_groups=4))),
    "heads": lambda network: _weights_of(network, _network(member=partial(Counted, num_head_channels=4))),
}


def _weights_of(network: DiffusionMap, other: DiffusionMap) -> DiffusionMap:
    other.load_state_dict(network.state_dict())
    return other


@pytest.mark.parametrize("name", CHANGES)
def test_other_settings_are_computed_again(name: str, tmp_path: Path) -> None:
    network, inferer = _network(), RestorationInferer(cache_dir=tmp_path)
    first = inferer(IMAGES[:1], network)
    Counted.asked = 0
    changed = CHANGES[name](network)
    result = inferer(IMAGES[:1], changed)
    assert Counted.asked >= _asked(1)
    _assert_same(result, RestorationInferer()(IMAGES[:1], changed))
    assert any(not torch.equal(result[key], first[key]) for key in first)
    Counted.asked = 0
    _assert_same(inferer(IMAGES[:1], network), first)
    assert Counted.asked == 0, "what was kept before stays"


def test_the_same_levels_of_another_schedule_are_others(tmp_path: Path) -> None:
    inferer = RestorationInferer(cache_dir=tmp_path)
    networks = [_network(num_train_timesteps=count, start=500) for count in (1000, 500)]
    assert networks[0].sampler.times == networks[1].sampler.times
    first, second = (inferer(IMAGES[:1], network) for network in networks)
    assert not torch.equal(first["reconstruction"], second["reconstruction"])


def test_other_weights_and_other_members_are_computed_again(tmp_path: Path) -> None:
    network, inferer = _network(), RestorationInferer(cache_dir=tmp_path)
    first = inferer(IMAGES[:1], network)
    with torch.no_grad():
        network.network.members[1].out[2].conv.bias += 1e-3
    second = inferer(IMAGES[:1], network)
    network.network.keep([0])
    third = inferer(IMAGES[:1], network)
    assert Counted.asked == 2 * _asked(1) + _asked(1) // 2
    assert not torch.equal(first["anomaly_map"], second["anomaly_map"])
    assert not torch.equal(second["anomaly_map"], third["anomaly_map"])
    with torch.no_grad():
        network.network.members[1].out[2].conv.bias += 1  # a member that is not asked
    Counted.asked = 0
    _assert_same(inferer(IMAGES[:1], network), third)
    assert Counted.asked == 0


def test_fewer_members_are_other_results(tmp_path: Path) -> None:
    network, inferer = _network(), RestorationInferer(cache_dir=tmp_path)
    both = inferer(IMAGES[:1], network)
    network.network.max_asked = 1
    one = inferer(IMAGES[:1], network)
    network.network.keep([0])
    _assert_same(inferer(IMAGES[:1], network), one)
    assert Counted.asked == _asked(1) + _asked(1) // 2, "the member alone had been asked before"
    assert not torch.equal(both["anomaly_map"], one["anomaly_map"])


def test_equal_weights_as_another_member_are_computed_again(tmp_path: Path) -> None:
    network, inferer = _network(), RestorationInferer(cache_dir=tmp_path)
    network.network.members[1].load_state_dict(network.network.members[0].state_dict())
    results = []
    for member in (0, 1):
        network.network.keep([member])
        results.append(inferer(IMAGES[:1], network)["reconstruction"])
    assert not torch.equal(*results), "a member has noise of its own"


def test_images_of_equal_values_and_another_shape_are_others(tmp_path: Path) -> None:
    network, inferer = _network(), RestorationInferer(cache_dir=tmp_path)
    for shape in ((16, 16), (8, 32), (32, 8)):
        result = inferer(torch.full((1, 1, *shape), -1.0), network)
        assert result["anomaly_map"].shape == (1, 1, *shape)


def test_an_image_twice_in_a_batch(tmp_path: Path) -> None:
    network, inferer = _network(), RestorationInferer(cache_dir=tmp_path)
    result = inferer(IMAGES[[1, 1, 0]], network)
    assert all(torch.equal(value[0], value[1]) for value in result.values())
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_run_keeps_the_batches_before(tmp_path: Path) -> None:
    network, inferer = _network(), RestorationInferer(cache_dir=tmp_path)
    Counted.breaks_at = _asked(2) + 1
    with pytest.raises(KeyboardInterrupt):
        for rows in ([0, 1], [2, 3]):
            inferer(IMAGES[rows], network)
    Counted.asked, Counted.breaks_at = 0, -1
    result = inferer(IMAGES, network)
    assert Counted.asked == _asked(2)
    _assert_same(result, RestorationInferer()(IMAGES, network), exact=False)


def test_a_batch_killed_while_it_is_written_keeps_what_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, inferer = _network(), RestorationInferer(cache_dir=tmp_path)
    save, written = torch.save, list[Path]()

    def die(value: Any, path: Path) -> None:
        written.append(path)
        if len(written) == 3:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        save(value, path)

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        inferer(IMAGES, network)
    monkeypatch.setattr(torch, "save", save)
    assert len(list(tmp_path.glob("*.pt"))) == 2 and not list(tmp_path.glob(".*"))
    Counted.asked = 0
    _assert_same(inferer(IMAGES, network), RestorationInferer()(IMAGES, network), exact=False)
    assert Counted.asked == _asked(2) + _asked(4)
