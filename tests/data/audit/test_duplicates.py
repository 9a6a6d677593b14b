# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from monai_anomaly.data.audit import duplicates
from monai_anomaly.data.audit.duplicates import THRESHOLD, DuplicateSearch, foreground_boxes


def _pictures(n: int, axes: int = 2, seed: int = 0) -> np.ndarray:
    """Random smooth textures in a bright ellipse that all share."""
    rng = np.random.default_rng(seed)
    side = {2: 64, 3: 32}[axes]
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, side)] * axes, indexing="ij"))
    inside = gaussian_filter((grid**2).sum(0) < 0.7, 1, output=np.float64)
    texture = [gaussian_filter(rng.normal(size=[side] * axes), side / 20) for _ in range(n)]
    return np.stack([inside * (100 + 40 * t / t.std()) for t in texture]).clip(0)


def _stretched(image: np.ndarray, factor: float) -> np.ndarray:
    longer = zoom(image, [factor] + [1] * (image.ndim - 1), order=1)
    first = (len(longer) - len(image)) // 2
    return longer[first : first + len(image)]


CHANGES = {
    "mirrored": lambda x: np.flip(x, 1),
    "mirrored along the other axis": lambda x: np.flip(x, 0),
    "turned by 90 degrees": lambda x: np.rot90(x, 1),
    "turned by 180 degrees": lambda x: np.rot90(x, 2, (0, x.ndim - 1)),
    "turned by 270 degrees": lambda x: np.rot90(x, 3, (x.ndim - 2, x.ndim - 1)),
    "transposed": lambda x: x.swapaxes(0, 1),
    "transposed and turned half way": lambda x: np.rot90(x.swapaxes(0, 1), 2),
    "turned, less contrast, noisy": lambda x: 30 + 0.4 * np.rot90(x) + np.random.default_rng(1).normal(0, 1, x.shape),
    "stretched": lambda x: _stretched(x, 1.06),
    "less contrast": lambda x: 30 + 0.4 * x,
    "gamma": lambda x: 255 * (x / 255) ** 1.5,
    "sharpened": lambda x: x + 1.0 * (x - gaussian_filter(x, 1)),
    "noisy": lambda x: x + np.random.default_rng(1).normal(0, 3, x.shape),
    "mirrored, stretched, brighter": lambda x: 1.2 * np.flip(_stretched(x, 1.05), 1) + 10,
}


def _search(originals: np.ndarray, copies: np.ndarray) -> tuple[DuplicateSearch, torch.Tensor, torch.Tensor]:
    search = DuplicateSearch(torch.tensor(np.concatenate([originals, copies])))
    return search, torch.arange(len(originals), len(originals) + len(copies)), torch.arange(len(originals))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("change", CHANGES)
def test_finds_changed_copies_and_nothing_else(change: str, axes: int) -> None:
    originals = _pictures(40, axes)
    copies = np.stack([CHANGES[change](x) for x in originals[:10]])
    search, queries, references = _search(originals, np.concatenate([copies, _pictures(10, axes, seed=9)]))
    found = search.find(queries, references)
    assert found.reference[:10].tolist() == list(range(10))
    assert float(found.similarity[:10].min()) >= THRESHOLD
    assert found.matches.tolist() == [1] * 10 + [0] * 10
    assert float(found.similarity[10:].max()) < 0.8


def test_similarity_equals_the_formula_written_out() -> None:
    """The cosine of centered differences of Gaussians, maximum over views, stretched mirror images and turns."""
    pictures = _pictures(4)
    search = DuplicateSearch(torch.tensor(pictures))
    x = np.arange(64)

    def blur(image: np.ndarray, sigma: float) -> np.ndarray:
        weights = np.exp(-((x[:, None] - x) ** 2) / (2 * sigma**2))
        weights /= weights.sum(1, keepdims=True)
        return (weights @ image @ weights.T).reshape(32, 2, 32, 2).mean((1, 3))

    def look(image: np.ndarray, box: np.ndarray) -> np.ndarray:
        at = [np.clip((a + (b - a) * (x + 0.5) / 64) * 64 - 0.5, 0, 63) for a, b in box]
        rows = np.stack([np.interp(at[0], x, column) for column in image.T], 1)
        return np.stack([np.interp(at[1], x, row) for row in rows])

    def describe(image: np.ndarray, box: np.ndarray) -> np.ndarray:
        band = blur(look(image, box), 1) - blur(look(image, box), 4)
        band = band - band.mean()
        return band / np.linalg.norm(band)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))

    whole = np.array([[0.0, 1.0], [0.0, 1.0]])
    factors = [(1, 1), (0.93, 1), (1.07, 1), (1, 0.93), (1, 1.07), (0.93, 0.93), (1.07, 1.07)]
    stretched = [np.array([[0.5 - s / 2, 0.5 + s / 2] for s in f]) for f in factors]
    cut = foreground_boxes(torch.tensor(pictures)).numpy()
    views = [([whole] * 4, stretched), (list(cut), None)]
    expected = np.full((4, 4), -1.0)
    for boxes, stretches in views:
        shared = np.mean([describe(p, b) for p, b in zip(pictures, boxes, strict=True)], 0) * 4 / 36
        for i in range(4):
            for j in range(4):
                for number, box in enumerate(stretches or [boxes[j]]):
                    right = describe(pictures[j], box)
                    poses = [right, right[::-1], right[:, ::-1]]
                    if number == 0:
                        turns = [np.rot90(right, k) for k in range(1, 4)]
                        poses += [*turns, right.T, right[::-1, ::-1].T]
                    for pose in poses:
                        value = cosine(describe(pictures[i], boxes[i]) - shared, pose - shared)
                        expected[i, j] = max(expected[i, j], value)
    every = torch.arange(4)
    np.testing.assert_allclose(search.similarities(every, every).numpy(), expected, atol=1e-4)


def test_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    originals = _pictures(9)
    whole = DuplicateSearch(torch.tensor(originals)).find(torch.arange(4), torch.arange(4, 9))
    monkeypatch.setattr(duplicates, "_BLOCK", 2)
    blocks = DuplicateSearch(torch.tensor(originals)).find(torch.arange(4), torch.arange(4, 9))
    assert torch.equal(whole.reference, blocks.reference) and torch.equal(whole.matches, blocks.matches)
    torch.testing.assert_close(whole.similarity, blocks.similarity)


def test_foreground_box() -> None:
    images = torch.full((2, 64, 64), -1000.0)
    images[0, 16:48, 8:24] = 50.0
    boxes = foreground_boxes(images)
    assert boxes[0].tolist() == [[0.25, 0.75], [0.125, 0.375]]
    assert boxes[1].tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match=r"got \(3, 64, 32\)"):
        DuplicateSearch(torch.zeros(3, 64, 32))
    with pytest.raises(ValueError, match=r"threshold must be between 0 and 1, got 1\.5"):
        DuplicateSearch(torch.zeros(3, 64, 64), 1.5)
    with pytest.raises(ValueError, match="at least one position"):
        DuplicateSearch(torch.zeros(3, 64, 64)).find(torch.arange(2), torch.arange(0))


def _real(folder: Path, index: str, key: str, value: str) -> tuple[torch.Tensor, np.ndarray]:
    with open(folder / index, newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row[key] == value]
    images = [np.asarray(Image.open(folder / row["image"]).resize((64, 64), Image.Resampling.BOX)) for row in rows]
    return torch.tensor(np.stack(images), dtype=torch.float32), np.array([row["patient"] for row in rows])


def _similarities(thumbnails: torch.Tensor) -> np.ndarray:
    every = torch.arange(len(thumbnails))
    return DuplicateSearch(thumbnails).similarities(every, every).numpy()


def test_real_copies_are_found(shared_data: Path) -> None:
    """Clusters of copies in the brain tumor set: nearly each copy is found, no other picture is taken for one."""
    thumbnails, clusters = _real(shared_data / "brain", "brain_tumor_mri.csv", "class", "notumor")
    similarity = _similarities(thumbnails)
    same = clusters[:, None] == clusters
    has_copy = same.sum(1) > 1
    assert has_copy.sum() > 100
    best_copy = np.where(same & ~np.eye(len(same), dtype=bool), similarity, -1).max(1)[has_copy]
    assert (best_copy >= THRESHOLD).all()  # two of them are turned
    assert (similarity[~same] >= THRESHOLD).sum() == 0


def test_real_chest_radiographs_look_alike_but_are_no_copies(shared_data: Path) -> None:
    thumbnails, patients = _real(shared_data / "cxr", "index.csv", "source", "kermany")
    similarity = _similarities(thumbnails)
    assert (similarity[patients[:, None] != patients] >= THRESHOLD).sum() == 0
