# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch

from monai_anomaly.functional import mask_of_kept, num_kept, partition_kept, random_kept


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("mask_ratio", "kept"), [(0.75, 49), (0.9, 19)])
def test_published_counts_of_196_patches(mask_ratio: float, kept: int) -> None:
    assert num_kept(196, mask_ratio) == kept
    assert random_kept(3, 196, mask_ratio, seeded()).shape == (3, kept)


@pytest.mark.parametrize(
    ("num_patches", "mask_ratio", "kept"),
    [(100, 0.9, 10), (10, 0.9, 1), *((n, 1 - 1 / p, n // p) for n, p in [(196, 7), (196, 14), (100, 5), (144, 6)])],
)
def test_counts_are_not_one_too_few_by_rounding(num_patches: int, mask_ratio: float, kept: int) -> None:
    assert num_kept(num_patches, mask_ratio) == kept


def test_kept_patches_are_different_ones_of_the_image() -> None:
    kept = random_kept(50, 20, 0.5, seeded())
    assert kept.dtype == torch.long and kept.min() == 0 and kept.max() == 19
    assert (kept.diff(dim=1) > 0).all(), "ascending, and so without repetition"


def test_every_patch_is_kept_equally_often() -> None:
    kept = random_kept(8000, 16, 0.75, seeded())
    share = torch.bincount(kept.flatten(), minlength=16) / 8000
    torch.testing.assert_close(share, torch.full((16,), 0.25), rtol=0, atol=0.02)  # 4 standard errors


def test_a_patch_is_never_masked_in_four_draws_with_probability_0039() -> None:
    masks = mask_of_kept(random_kept(4 * 4000, 196, 0.75, seeded()), 196).reshape(4000, 4, 196)
    share = (masks.sum(1) == 0).float().mean().item()
    assert share == pytest.approx(0.25**4, abs=4 * (0.25**4 / (4000 * 196)) ** 0.5)
    assert round(0.25**4, 4) == 0.0039


def test_draws_follow_from_the_generator_alone() -> None:
    first = random_kept(4, 30, 0.5, seeded(7))
    torch.rand(3)
    assert torch.equal(random_kept(4, 30, 0.5, seeded(7)), first)
    assert not torch.equal(random_kept(4, 30, 0.5, seeded(8)), first)


def test_a_seeded_generator_leaves_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    random_kept(4, 30, 0.5, seeded())
    partition_kept(4, 30, 3, seeded())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_a_generator_the_global_one_is_used() -> None:
    torch.manual_seed(3)
    first = random_kept(2, 30, 0.5)
    torch.manual_seed(3)
    assert torch.equal(random_kept(2, 30, 0.5), first)


def test_parts_keep_every_patch_exactly_once() -> None:
    kept = partition_kept(5, 196, 4, seeded())
    assert kept.shape == (5, 4, 49)
    assert (mask_of_kept(kept, 196).sum(1) == 3).all(), "shown once, masked in the three others"
    assert not torch.equal(kept[0], kept[1])


def test_mask_is_one_where_a_patch_was_removed() -> None:
    kept = torch.tensor([[[0, 2], [1, 3]]])
    assert mask_of_kept(kept, 4).tolist() == [[[0, 1, 0, 1], [1, 0, 1, 0]]]


@pytest.mark.parametrize("mask_ratio", [0.0, 1.0, -0.5, 2.0])
def test_ratios_out_of_range_are_refused(mask_ratio: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \(0, 1\), got"):
        num_kept(196, mask_ratio)


@pytest.mark.parametrize("mask_ratio", [0.9, 1e-17])
def test_ratios_that_leave_nothing_or_everything_are_refused(mask_ratio: float) -> None:
    with pytest.raises(ValueError, match="of 4 patches: at least one must be kept and at least one removed"):
        num_kept(4, mask_ratio)


@pytest.mark.parametrize("parts", [0, 1, 3])
def test_parts_that_do_not_divide_are_refused(parts: int) -> None:
    with pytest.raises(ValueError, match="divide the 196 patches"):
        partition_kept(1, 196, parts)
