# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_anomaly.engines import MaskedBatch

NETWORK = SimpleNamespace(num_patches=12)


def batch(indices: tuple[int, ...] = (4, 1, 7)) -> dict[str, object]:
    images = torch.stack([torch.full((1, 6, 8), float(i)) for i in indices])
    return {"image": MetaTensor(images, meta={"a": 1}), "index": torch.tensor(indices)}


def kept_of(masks: MaskedBatch, indices: tuple[int, ...] = (4, 1, 7)) -> Tensor:
    return masks(batch(indices), "cpu")[3]["kept"]


@pytest.mark.parametrize(("num_masks", "ratio", "visible"), [(1, 0.75, 3), (2, 0.75, 3), (3, 0.9, 1), (2, 0.5, 6)])
def test_every_image_gets_different_patches_of_its_own(num_masks: int, ratio: float, visible: int) -> None:
    torch.manual_seed(0)
    masks = MaskedBatch(NETWORK, ratio, num_masks)
    image, target, args, kwargs = masks(batch(), "cpu", True)
    assert type(image) is Tensor and target is image and args == () and list(kwargs) == ["kept"]
    assert torch.equal(image, batch()["image"])
    seen = []
    for _ in range(4):
        kept = kept_of(masks)
        assert kept.shape == (3, num_masks, visible) and kept.dtype == torch.int64
        for row in kept.flatten(0, 1).tolist():
            assert len(set(row)) == visible and set(row) <= set(range(12))
            seen.append(tuple(sorted(row)))
    assert len(set(seen)) > 8, "anew for each image, mask and batch"


def test_without_a_seed_the_state_of_the_run_decides() -> None:
    masks = MaskedBatch(NETWORK)
    torch.manual_seed(5)
    first, second = kept_of(masks), kept_of(masks)
    torch.manual_seed(5)
    assert torch.equal(kept_of(masks), first) and not torch.equal(first, second)


def test_a_seed_draws_the_same_for_the_same_images() -> None:
    state = torch.random.get_rng_state()
    first = kept_of(MaskedBatch(NETWORK, num_masks=4, seed=3))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(9)  # whatever a training has drawn since
    again = MaskedBatch(NETWORK, num_masks=4, seed=3)
    assert torch.equal(kept_of(again), first) and torch.equal(kept_of(again), first)
    assert not torch.equal(kept_of(again, (4, 1, 8)), first), "other images, other masks"
    assert not torch.equal(kept_of(MaskedBatch(NETWORK, num_masks=4, seed=4)), first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_masks": 0}, "num_masks must be at least 1, got 0"),
        ({"mask_ratio": 0.95}, "mask_ratio"),
        ({"mask_ratio": 1.5}, "1.5"),
    ],
)
def test_wrong_arguments(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedBatch(NETWORK, **arguments)  # type: ignore[arg-type]
