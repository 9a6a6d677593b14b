# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_anomaly.functional import l2_error, mask_of_kept, patchify, random_kept, unpatchify
from monai_anomaly.inferers import ReconstructionInferer
from monai_anomaly.networks.blocks import MaskedOutput, NetworkFolds
from monai_anomaly.networks.maps import InterDiscrepancyMap, MaskedReconstructionMap, MaskSets, mean_reconstruction
from monai_anomaly.networks.nets import MaskedAutoencoder

member = partial(
    MaskedAutoencoder,
    spatial_size=16,
    patch_size=4,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    decoder_hidden_size=16,
    decoder_num_layers=1,
    decoder_num_heads=2,
    network_channels=3,
    mean=0.5,
    std=0.25,
)
VISIBLE = ("exclude", "predict", "paste")
T = 16


def images(batch: int = 2) -> Tensor:
    return 2 * torch.rand(batch, 1, 16, 16, generator=torch.Generator().manual_seed(batch)) - 1


def pair() -> NetworkFolds:
    return NetworkFolds(member, 2).eval()


def slow_mean(network: Any, image: Tensor, kept: Tensor, visible: str) -> Tensor:
    """Patch by patch, one mask at a time."""
    outputs = [network(image, kept[:, number : number + 1]) for number in range(kept.shape[1])]
    patches = outputs[0].target.clone()
    for b in range(len(image)):
        for t in range(T):
            drawn = [(o.prediction[b, 0, t], bool(o.mask[b, 0, t])) for o in outputs]
            if visible == "exclude":
                chosen = [p for p, removed in drawn if removed] or [p for p, _ in drawn]
            elif visible == "paste":
                chosen = [p if removed else outputs[0].target[b, t] for p, removed in drawn]
            else:
                chosen = [p for p, _ in drawn]
            patches[b, t] = torch.stack(chosen).mean(0)
    return network.to_image(patches)


@pytest.mark.parametrize("visible", VISIBLE)
def test_mean_reconstruction_is_that_of_the_slow_formula(visible: str) -> None:
    torch.manual_seed(0)
    network = member()
    # patch 0 is never masked: the place where nothing trained is to be had
    kept = torch.tensor([[[0, 1, 2, 3], [0, 4, 5, 6], [0, 1, 7, 8]]])
    mean = mean_reconstruction(network, images(), kept, visible)
    torch.testing.assert_close(mean, slow_mean(network, images(), kept, visible), rtol=1e-5, atol=1e-5)


class Oracle(nn.Module):
    """Predicts its input plus the number of the mask, so that every mean is known."""

    num_patches = 4

    def forward(self, image: Tensor, kept: Tensor) -> MaskedOutput:
        target = patchify(image, (2, 2))
        steps = 1.0 + torch.arange(kept.shape[1]).reshape(1, -1, 1, 1)
        return MaskedOutput(target.unsqueeze(1) + steps, target, mask_of_kept(kept, 4).expand(len(image), -1, -1))

    def to_image(self, patches: Tensor) -> Tensor:
        return unpatchify(patches, (2, 2), (2, 2), 1)


@pytest.mark.parametrize(
    ("visible", "added"), [("exclude", [2.0, 1.0, 1.5, 1.5]), ("predict", [1.5] * 4), ("paste", [1.0, 0.5, 1.5, 0.0])]
)
def test_what_stands_where_patches_were_shown(visible: str, added: list[float]) -> None:
    # patch 0 is masked in the second set only, 1 in the first only, 2 in both, 3 in neither
    kept = torch.tensor([[[0, 3], [1, 3]]])
    image = torch.zeros(1, 1, 4, 4)
    mean = mean_reconstruction(Oracle(), image, kept, visible)
    assert patchify(mean, (2, 2))[0, :, 0].tolist() == added


@pytest.mark.parametrize("visible", VISIBLE)
def test_map_of_one_network_is_its_error(visible: str) -> None:
    network = member()
    block = MaskedReconstructionMap(network, visible=visible)
    output = block.predict(images())
    expected = mean_reconstruction(network, images(), block.masks.kept, visible).detach()
    assert torch.equal(output.reconstruction, expected) and output.reconstruction.shape == (2, 1, 16, 16)
    torch.testing.assert_close(output.anomaly_map, (images() - expected).abs().mean(1, keepdim=True))
    assert torch.equal(block(images()), output.anomaly_map) and not output.anomaly_map.requires_grad
    squared = MaskedReconstructionMap(network, visible=visible, error=l2_error)
    torch.testing.assert_close(squared(images()), (images() - expected).square())


def test_discrepancy_is_that_of_the_mean_reconstructions_in_intensities_up_to_one() -> None:
    block = InterDiscrepancyMap(pair())
    a, b = (mean_reconstruction(m, images(), block.masks.kept).detach() for m in block.network.members)
    output = block.predict(images())
    torch.testing.assert_close(output.anomaly_map, (((a + 1) / 2) - ((b + 1) / 2)).abs().mean(1, keepdim=True))
    assert torch.equal(output.reconstruction, a)
    assert torch.equal(block(images()), output.anomaly_map) and output.anomaly_map.shape == (2, 1, 16, 16)


@pytest.mark.parametrize("visible", VISIBLE)
def test_identical_modules_differ_nowhere(visible: str) -> None:
    folds = pair()
    folds[1].load_state_dict(folds[0].state_dict())
    assert (InterDiscrepancyMap(folds, visible=visible)(images()) == 0).all()


def test_identical_modules_with_different_masks_would_differ() -> None:
    network = member().eval()
    with torch.no_grad():
        one, other = (mean_reconstruction(network, images(), MaskSets(T, seed=seed).kept) for seed in (0, 1))
    assert (one - other).abs().mean() > 1e-3


def test_different_modules_differ() -> None:
    assert InterDiscrepancyMap(pair())(images()).mean() > 1e-3


def test_both_modules_are_shown_the_same_patches() -> None:
    block, shown = InterDiscrepancyMap(pair()), []
    for network in block.network.members:
        network.register_forward_pre_hook(lambda module, arguments: shown.append(arguments[1]))
    block(images())
    assert len(shown) == 2 and torch.equal(shown[0], shown[1]) and shown[0].shape == (1, 4, 4)


@pytest.mark.parametrize("kind", [InterDiscrepancyMap, MaskedReconstructionMap])
def test_a_map_does_not_depend_on_the_batch(kind: Any) -> None:
    block = kind(pair() if kind is InterDiscrepancyMap else member())
    together = block(images(3))
    for number in range(3):
        torch.testing.assert_close(block(images(3)[[number]])[0], together[number], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("missing", "name"), [(0, "A"), (1, "B")])
def test_a_pair_without_one_of_its_modules_is_refused(missing: int, name: str) -> None:
    block = InterDiscrepancyMap(pair())
    block.network.keep([1 - missing])
    with pytest.raises(ValueError, match=f"module {name} of the pair has not been trained"):
        block(images())


@pytest.mark.parametrize("members", [1, 3])
def test_other_numbers_of_modules_are_refused(members: int) -> None:
    with pytest.raises(ValueError, match=f"must have 2 members, modules A and B, got {members}"):
        InterDiscrepancyMap(NetworkFolds(member, members))


@pytest.mark.parametrize("setting", [{"max_asked": 1}, {"max_asked": 2}, {"one_at_a_time": True}])
def test_modules_that_are_not_asked_together_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="InterDiscrepancyMap compares all trained networks at once: leave max_asked"):
        InterDiscrepancyMap(NetworkFolds(member, 2, **setting))


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="the network takes images of shape"):
        InterDiscrepancyMap(pair())(torch.zeros(1, 1, 20, 16))


def test_masks_follow_from_the_seed_and_are_no_weights() -> None:
    torch.manual_seed(1)
    first = MaskSets(196, seed=3)
    torch.manual_seed(2)
    assert torch.equal(MaskSets(196, seed=3).kept, first.kept) and first.kept.shape == (1, 4, 49)
    assert not torch.equal(MaskSets(196, seed=4).kept, first.kept)
    assert not first.state_dict()
    assert MaskSets(196, 2, 0.9).kept.shape == (1, 2, 19)


@pytest.mark.parametrize(
    ("num_patches", "num_masks", "mask_ratio", "always_shown"),
    [
        (64, 4, 0.75, 0),  # as drawn
        (196, 4, 0.75, 0),
        (784, 4, 0.75, 0),
        (196, 2, 0.75, 0),
        (64, 4, 0.25, 0),  # 4 x 16 are removed, so each once
        (64, 3, 0.25, 16),
        (64, 1, 0.75, 16),
    ],
)
def test_no_patch_is_shown_by_all_random_masks_where_that_can_be(
    num_patches: int, num_masks: int, mask_ratio: float, always_shown: int
) -> None:
    drawn = random_kept(num_masks, num_patches, mask_ratio, torch.Generator().manual_seed(0))
    gaps = int((mask_of_kept(drawn, num_patches).sum(0) == 0).sum())
    assert (gaps == always_shown) is (num_patches == 64 and mask_ratio == 0.75)
    kept = MaskSets(num_patches, num_masks, mask_ratio).kept[0]
    assert kept.shape == drawn.shape and (kept.diff(dim=1) > 0).all()
    assert int((mask_of_kept(kept, num_patches).sum(0) == 0).sum()) == always_shown
    changed = mask_of_kept(kept, num_patches) != mask_of_kept(drawn, num_patches)
    assert int(changed.sum()) == 2 * (gaps - always_shown), "one exchange for each, and no other"
    assert torch.equal(MaskSets(num_patches, num_masks, mask_ratio).kept[0], kept)


def test_partition_shows_every_patch_once() -> None:
    kept = MaskSets(196, sampler="partition").kept
    assert kept.shape == (1, 4, 49)
    assert torch.equal(kept.flatten().sort().values, torch.arange(196))
    assert MaskSets(12, 3, 2 / 3, "partition").kept.shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_masks": 0}, "num_masks must be at least 1, got 0"),
        ({"sampler": "all"}, r"sampler must be one of \('random', 'partition'\), got 'all'"),
        ({"mask_ratio": 1.0}, r"mask_ratio must be in \(0, 1\), got 1.0"),
        ({"sampler": "partition", "num_masks": 2}, "2 masks with mask_ratio 0.75 show 2 x 4: set mask_ratio"),
        ({"visible": "hide"}, "visible must be one of .*, got 'hide'"),
    ],
)
def test_arguments_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    for make in (partial(InterDiscrepancyMap, pair()), partial(MaskedReconstructionMap, member())):
        with pytest.raises(ValueError, match=message):
            make(**changes)
    if "visible" in changes:
        with pytest.raises(ValueError, match=message):
            mean_reconstruction(member(), images(), MaskSets(T).kept, "hide")


@pytest.mark.parametrize("kind", [InterDiscrepancyMap, MaskedReconstructionMap])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_map_is_exported_by_tracing(kind: Any, tmp_path: Any) -> None:
    block = kind(pair() if kind is InterDiscrepancyMap else member()).eval()
    traced = torch.jit.trace(block, images(2))
    torch.jit.save(traced, tmp_path / "map.ts")
    exported = torch.jit.load(tmp_path / "map.ts")
    for batch in (1, 3):
        torch.testing.assert_close(exported(images(batch)), block(images(batch)), rtol=1e-4, atol=1e-5)
    other = "meta"  # stands for all other devices, since every machine has it
    assert traced.to(other)(images().to(other)).device.type == other


def test_weights_of_a_map_are_those_of_its_network() -> None:
    assert all(key.startswith("network.") for key in InterDiscrepancyMap(pair()).state_dict())
    assert all(key.startswith("network.vit.") for key in MaskedReconstructionMap(member()).state_dict())


def test_weights_of_the_network_alone_are_refused() -> None:
    network, block = member(), MaskedReconstructionMap(member())
    with pytest.raises(ValueError, match="without a map, .* a pre-training with norm_pix, .* --start_weights"):
        block.load_state_dict(network.state_dict())
    block.load_state_dict(MaskedReconstructionMap(network).state_dict())
    assert torch.equal(block.network.vit.cls_token, network.vit.cls_token)


def test_an_ordinary_inferer_refuses_a_masked_network() -> None:
    """It has no reconstruction without masks; the map around it is what inferers are to ask."""
    with pytest.raises(TypeError, match="kept"):
        ReconstructionInferer()(images(), member())
