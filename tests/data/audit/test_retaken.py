# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, rotate, shift

from monai_anomaly.data.audit.image_digest import digest_item
from monai_anomaly.data.audit.items import AuditItem
from monai_anomaly.data.audit.retaken import RETAKEN, describe_details, find_retaken, registered_similarity


def _scene(seed: int) -> np.ndarray:
    """A bright disk that all share, with a texture of its own at two scales."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 160)] * 2, indexing="ij"))
    inside = gaussian_filter(((grid**2).sum(0) < 0.8).astype(float), 1)
    parts = [gaussian_filter(rng.normal(size=(160, 160)), sigma) for sigma in (3, 8)]
    values = inside * (120 + sum(20 * part / part.std() for part in parts))
    return np.asarray(values.clip(0, 255))


def _again(scene: np.ndarray) -> np.ndarray:
    """Taken again: shifted by 5 %, turned by one degree, under another light."""
    moved = shift(rotate(scene, 1, reshape=False, order=1), (8, -5), order=1)
    return np.asarray(255 * (moved.clip(0, 255) / 255) ** 1.3)


def _items(folder: Path, section: str, pictures: list[np.ndarray]) -> list[AuditItem]:
    items = []
    for number, picture in enumerate(pictures):
        file = folder / f"{section}{number}.png"
        Image.fromarray(picture.astype(np.uint8)).save(file)
        item = AuditItem(section, {"image": str(file), "patient": f"{section}{number}"})
        item.digest = digest_item(item.item)
        items.append(item)
    return items


def test_finds_scenes_taken_again_and_nothing_else(tmp_path: Path) -> None:
    scenes = [_scene(seed) for seed in range(12)]
    items = _items(tmp_path, "unlabeled", scenes[:8])
    items += _items(tmp_path, "testing", [_again(scenes[3]), *scenes[8:10]])
    items += _items(tmp_path, "validation", [*scenes[10:], _again(scenes[5])])
    items += _items(tmp_path, "training", [scenes[0]])
    testing, validation = find_retaken(items, num_workers=2)
    assert (testing["section"], testing["seen_in"], validation["section"]) == ("testing", "unlabeled", "validation")
    for record, file, other in ((testing, "testing0", "unlabeled3"), (validation, "validation2", "unlabeled5")):
        (pair,) = record["pairs"]
        assert (Path(pair["file"]).stem, Path(pair["other"]).stem) == (file, other)
        assert pair["similarity"] >= RETAKEN
    # what is not found is far below
    assert [len(record["pairs"]) for record in find_retaken(items, threshold=0.6)] == [1, 1]
    assert find_retaken(items[:8]) == find_retaken(items[8:]) == []


def test_similarity_equals_the_largest_of_all_shifts() -> None:
    left, right = describe_details(torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0)))
    expected = max(float((left * right.roll((-dy, -dx), (0, 1))).sum()) for dy in range(-3, 4) for dx in range(-3, 4))
    assert float(registered_similarity(left[None], right[None], 3)) == pytest.approx(expected, abs=1e-6)
    moved = left.roll((2, -3), (0, 1))
    assert float(registered_similarity(left[None], moved[None], 3)) == pytest.approx(1, abs=1e-5)
    assert float(registered_similarity(left[None], moved[None], 2)) < 0.9


def test_brightness_and_contrast_do_not_count() -> None:
    images = torch.tensor(np.stack([_scene(seed)[:128, :128] for seed in range(3)]))
    torch.testing.assert_close(describe_details(images), describe_details(0.5 * images + 9), atol=1e-3, rtol=0)
