# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor, PersistentDataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Rand2DElasticd
from PIL import Image
from scipy import ndimage
from skimage import exposure, filters, measure, morphology, segmentation

from monai_anomaly.transforms.anatomy import LungMask, LungMaskd

CENTERS, RADII = ((0.5, 0.32), (0.5, 0.68)), (0.25, 0.1)


def ellipse(shape: tuple[int, int], center: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    rows, columns = np.indices(shape)
    height, width = shape
    rows = (rows - center[0] * height) / (radii[0] * height)
    columns = (columns - center[1] * width) / (radii[1] * width)
    return np.asarray(rows**2 + columns**2 <= 1)


def chest(shape: tuple[int, int] = (256, 256)) -> tuple[np.ndarray, np.ndarray]:
    """A bright body on black with two dark lungs, and the lungs."""
    body = ellipse(shape, (0.5, 0.5), (0.45, 0.42))
    lungs = ellipse(shape, CENTERS[0], RADII) | ellipse(shape, CENTERS[1], RADII)
    return np.where(lungs, 0.15, np.where(body, 0.8, 0.0)).astype(np.float32)[None], lungs


def dilated(mask: np.ndarray) -> np.ndarray:
    """Each pixel that has one of the mask among itself and its eight neighbors."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    shifted = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.logical_or.reduce(shifted)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def found(image: np.ndarray, **settings: object) -> np.ndarray:
    return np.asarray(LungMask(**settings)(image)[0])  # type: ignore[arg-type]


def real(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("L"))[None]


@pytest.mark.parametrize("shape", [(256, 256), (200, 260)])
def test_two_dark_ellipses_in_a_bright_body_are_found_dilated_by_a_pixel(shape: tuple[int, int]) -> None:
    image, lungs = chest(shape)
    mask = LungMask()(image)
    assert mask.dtype == torch.bool and mask.shape == (1, *shape)
    assert np.array_equal(mask[0], dilated(lungs))
    assert not mask[0][image[0] == 0].any()


def with_small_region_at_a_lung() -> tuple[np.ndarray, np.ndarray, tuple[slice, slice]]:
    """A chest with a thin dark line along the edge of a lung, and the box of what becomes of it."""
    image, lungs = chest()
    line = np.zeros_like(lungs)
    for step in range(40):
        line[58 + step : 61 + step, 98 + step // 2 : 101 + step // 2] = True
    assert dilated(line).sum() < 400 and not (dilated(dilated(line)) & dilated(lungs)).any()
    image[0][line] = 0.15
    return image, lungs, (slice(57, 101), slice(97, 121))


def test_a_small_region_is_deleted_and_what_lies_in_its_box_is_not() -> None:
    image, lungs, box = with_small_region_at_a_lung()
    assert dilated(lungs)[box].any()
    assert np.array_equal(found(image), dilated(lungs))


def test_published_deletes_the_box() -> None:
    image, lungs, box = with_small_region_at_a_lung()
    expected = dilated(lungs)
    expected[box] = False
    assert np.array_equal(found(image, compat="anatpaste"), expected)
    plain, _ = chest()
    assert np.array_equal(found(plain, compat="anatpaste"), found(plain))


def test_regions_that_touch_at_a_corner_are_one() -> None:
    image, lungs = chest()
    squares = np.zeros_like(lungs)
    squares[110:124, 112:126] = squares[126:140, 128:142] = True  # dilated, 256 pixels each
    image[0][squares] = 0.15
    assert np.array_equal(found(image, min_area=500), dilated(lungs | squares))
    assert np.array_equal(found(image, min_area=520), dilated(lungs))


def test_intensity_units_and_number_of_channels_do_not_matter() -> None:
    image = chest()[0] * np.linspace(0.9, 1, 256, dtype=np.float32)
    expected = found(image)
    eight_bits = np.round(image * 255).astype(np.uint8)
    assert expected.any()
    assert np.array_equal(found(image * 4 - 3), expected)
    assert np.array_equal(found(eight_bits), found(eight_bits / 255))
    assert np.array_equal(found(eight_bits.astype(np.int16) * 16 - 1000), found(eight_bits))
    assert np.array_equal(found(np.concatenate([image * 0.5, image * 2, image * 0.5])), expected)


def test_inverted_radiograph() -> None:
    image, lungs = chest()
    assert np.array_equal(found(1 - image, invert=True), dilated(lungs))
    assert dice(found(1 - image), lungs) < 0.3


def test_a_region_that_touches_the_edge_is_none() -> None:
    image, lungs = chest()
    touching = image.copy()
    touching[0, 127:130, :80] = 0.15
    left = lungs & (np.arange(256) < 128)
    assert np.array_equal(found(touching), dilated(lungs & ~left))


@pytest.mark.parametrize(("opening", "lungs_found"), [(3, 2), (1, 1)])
def test_opening_grows_with_the_image_and_cuts_bridges_to_the_edge(opening: float, lungs_found: int) -> None:
    image = chest((768, 768))[0]
    image[0, 380:387, :240] = 0.15  # 7 of 768 pixels: less than 3 of 256
    assert measure.label(found(image, opening=opening)).max() == lungs_found


def test_smallest_region_grows_with_the_image() -> None:
    for size in (128, 512):
        image, lungs = chest((size, size))
        largest = measure.regionprops(measure.label(dilated(lungs)))[0].area * 256**2 / size**2
        assert found(image, min_area=largest * 0.9).any()
        assert not found(image, min_area=largest * 1.1).any()


@pytest.mark.parametrize("image", [np.zeros((1, 32, 32)), np.full((3, 16, 24), 7), np.ones((1, 1, 1)), np.eye(5)[None]])
def test_image_without_lungs(image: np.ndarray) -> None:
    mask = LungMask()(image)
    assert mask.shape == (1, *image.shape[1:]) and not mask.any()


def test_meta_data_stay_and_the_input_is_not_changed() -> None:
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.from_numpy(chest()[0]), affine=affine)
    before = image.clone()
    mask = LungMask()(image)
    assert isinstance(mask, MetaTensor) and torch.equal(mask.affine, affine)
    assert torch.equal(image, before) and torch.equal(mask, LungMask()(image))


def test_errors_say_what_and_where() -> None:
    broken = torch.ones(1, 8, 8)
    broken[0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r'key "x-ray": image \(no file\) holds NaN or infinite values'):
        LungMaskd("x-ray")({"x-ray": broken})
    with pytest.raises(
        ValueError, match=r"LungMask is defined for 2D images \(C, \*S\), got one of shape \(1, 8, 8, 8\)"
    ):
        LungMask()(torch.ones(1, 8, 8, 8))
    with pytest.raises(ValueError, match=r"compat must be one of \(None, 'anatpaste'\), got 'upd'"):
        LungMask(compat="upd")
    with pytest.raises(ValueError, match=r"clahe_clip must be in \(0, 1\], got 0"):
        LungMask(clahe_clip=0)
    for settings in ({"opening": 0}, {"min_area": -1}, {"reference_size": 0}):
        with pytest.raises(ValueError, match="must be above 0 and min_area 0 or more"):
            LungMask(**settings)


def published_steps(image: np.ndarray) -> np.ndarray:
    """The published steps with scikit-image throughout, small regions deleted by their label."""
    gray = exposure.equalize_adapthist(image[0], clip_limit=0.01)
    mask = (gray <= filters.threshold_otsu(gray)) & (gray > 0)
    square = np.ones((3, 3), dtype=bool)
    mask = morphology.dilation(segmentation.clear_border(morphology.opening(mask, square)), square)
    labels = measure.label(mask, connectivity=2)
    for region in measure.regionprops(labels):
        if region.area < 400 * mask.size / 256**2:
            mask = mask & (labels != region.label)
    return np.asarray(mask)


@pytest.mark.parametrize("seed", range(40))
def test_blobs_agree_with_scikit_image_step_by_step(seed: int) -> None:
    blobs = ndimage.gaussian_filter(np.random.RandomState(seed).rand(64, 80), 2.0)
    blobs = (blobs - blobs.min()) / (blobs.max() - blobs.min())
    assert np.array_equal(found(blobs[None]), published_steps(blobs[None]))


def test_real_radiographs_agree_with_scikit_image_step_by_step(shared_data: Path) -> None:
    paths = sorted((shared_data / "cxr" / "lungs" / "images").glob("*.png"))[:8]
    for path in paths:
        image = real(path)
        differ = found(image) != published_steps(image)
        assert differ.sum() <= 5  # intensities are rounded to 2 ** 14 steps from another scale


def test_real_lungs_are_found_for_the_most_part(shared_data: Path) -> None:
    folder = shared_data / "cxr" / "lungs"
    values, precisions = [], []
    for path in sorted((folder / "images").glob("*.png"))[::6]:
        truth, mask = real(folder / "masks" / path.name)[0] > 0, found(real(path))
        values.append(dice(mask, truth))
        precisions.append((mask & truth).sum() / max(mask.sum(), 1))
    assert np.mean(values) > 0.5 and np.median(precisions) > 0.9


def test_lungs_of_healthy_people_are_of_plausible_size(shared_data: Path) -> None:
    folder = shared_data / "cxr"
    rows = (folder / "index.csv").read_text().splitlines()
    paths = [line.split(",")[0] for line in rows if ",train_normal," in line and ",nih," in line][:200:10]
    shares = [found(real(folder / path)).mean() for path in paths]
    assert len(shares) == 20 and 0.1 < np.median(shares) < 0.35 and max(shares) < 0.5


@pytest.mark.parametrize("kind", ["cache", "persistent"])
def test_datasets_of_monai_find_each_mask_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        image, _ = chest((64, 64 + number))
        Image.fromarray((image[0] * 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
    calls = []
    find = LungMask.find
    monkeypatch.setattr(LungMask, "find", lambda self, image: (calls.append(1), find(self, image))[1])
    load = [LoadImaged("image"), EnsureChannelFirstd("image"), LungMaskd("image")]
    random = Rand2DElasticd(["image", "foreground"], spacing=(20, 20), magnitude_range=(1, 2), prob=1.0)
    items = [{"image": str(tmp_path / f"{number}.png")} for number in range(3)]
    if kind == "cache":
        dataset = CacheDataset(items, Compose([*load, random]), num_workers=0, progress=False)
    else:
        dataset = PersistentDataset(items, Compose([*load, random]), cache_dir=tmp_path / "cache")
    for _ in range(3):
        samples = [dataset[number] for number in range(3)]
    assert len(calls) == 3
    assert all(sample["foreground"].any() for sample in samples)


def test_small_image_still_has_an_opening_of_three_pixels() -> None:
    image, lungs = chest((96, 96))
    assert np.array_equal(found(image, min_area=0), ndimage.binary_dilation(lungs, np.ones((3, 3))))
