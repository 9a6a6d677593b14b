# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from monai.data import MetaTensor
from PIL import Image

from monai_anomaly.cli.gallery import main
from monai_anomaly.transforms.gallery import CORRUPTIONS, load_image, load_subjects, make_row
from monai_anomaly.transforms.gallery_page import STRONGEST, Row, Subject, contact_sheet, describe, planes, render
from monai_anomaly.transforms.synthesis import anomaly

SMALL = ["--spatial_size", "32", "--seeds", "2"]


def smooth(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """A picture with structure, 8 bits, with a black border."""
    rng = np.random.RandomState(seed)
    coarse = torch.from_numpy(rng.rand(1, 1, *[5] * len(shape)))
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    values = torch.nn.functional.interpolate(coarse, shape, mode=mode)[0, 0].numpy()
    inside = np.zeros(shape, bool)
    inside[(slice(4, -4),) * len(shape)] = True
    return (values * 255 * inside).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    paths = []
    for seed in range(3):
        paths.append(str(tmp_path / f"picture{seed}.png"))
        Image.fromarray(smooth(seed, (40, 48))).save(paths[-1])
    return paths


@pytest.fixture
def volume(tmp_path: Path) -> str:
    path = str(tmp_path / "volume.nii.gz")
    affine = np.diag([-2.0, 2, 4, 1])  # first axis to the left, slices twice as thick
    nib.save(nib.Nifti1Image(smooth(7, (24, 28, 16)).astype(np.float32), affine), path)
    return path


def addresses(html: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/\w+;base64,([A-Za-z0-9+/=]+)", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_the_page_shows_every_corruption_and_needs_nothing_else(pictures: list[str], tmp_path: Path) -> None:
    output, figure = tmp_path / "out" / "gallery.html", tmp_path / "sheet.png"
    arguments = ["--image", *pictures[:2], "--other", pictures[2], "--output", str(output), "--figure", str(figure)]
    assert main([*arguments, *SMALL]) == 0
    html = output.read_text("utf-8")
    assert "<script" not in html and "http" not in html.replace("http-equiv", "")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    for place in (0, 1):
        missing = [name for name in CORRUPTIONS if f'id="{place}-{name}"' not in html]
        assert [name for name in missing if f"<li><b>{name}</b>" not in html] == []
        assert not set(missing) - {"RandAnatPaste"}  # there are no lungs in these
    shown = html.count("<article")
    assert html.count("<img") == shown * 2 * 3  # corrupted, difference, label; two seeds
    sizes = {picture.shape[:2] for picture in addresses(html)}
    assert (27, 32) in sizes and len(addresses(html)) == shown * 2 * 3 + 2  # clean images once each
    assert figure.stat().st_size > 1000
    assert not list(tmp_path.rglob(".partial*"))


def test_pictures_can_be_made_again(pictures: list[str]) -> None:
    subject = load_subjects(pictures, size=[32])[0]
    row = make_row(subject, "RandPoissonBlend", 3)
    for seed, sample in enumerate(row.samples):
        corruption = row.entry.corruption(source=subject.sources["own"], **row.entry.settings)
        again = corruption.set_random_state(seed)(subject.image)
        assert torch.equal(again["image"], sample["image"])
        assert again["params"] == sample["params"]
    assert not torch.equal(row.samples[0]["image"], row.samples[1]["image"])


def handmade(shape: tuple[int, ...], channels: int = 1) -> tuple[Subject, dict[str, Any]]:
    """An image of 0.5 of which one voxel was raised by a quarter of the value range."""
    clean = torch.full((channels, *shape), 0.5)
    image, label = clean.clone(), torch.zeros(1, *shape)
    voxel = tuple(range(2, 2 + len(shape)))
    image[(slice(None), *voxel)] += 0.25
    label[(0, *voxel)] = 0.8
    sample = {"clean": clean, "image": image, "label": label, "support": label > 0, "target": 1, "params": "[]"}
    sample = {k: MetaTensor(v) if isinstance(v, torch.Tensor) else v for k, v in sample.items()}
    return Subject("handmade", MetaTensor(clean), None, {}, []), sample


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_have_rows_first_and_the_stated_colors(channels: int) -> None:
    shown = planes(*handmade((300, 256), channels))  # so large that no line enlarges it
    assert shown["clean"].shape == shown["label"].shape == (256, 300, 3)
    assert (shown["clean"] == 128).all()
    assert shown["corrupted"][3, 2].tolist() == [191, 191, 191]
    heat = np.rint(255 * np.array(colormaps["inferno"](0.25 / STRONGEST)[:3]))
    assert shown["difference"][3, 2].tolist() == heat.tolist()
    assert (np.delete(shown["difference"].reshape(-1, 3), 3 * 300 + 2, 0) == shown["difference"][0, 0]).all()
    weight = 0.75 * 0.8
    expected = np.rint(191.25 * (1 - weight) + weight * np.array([255, 70, 40]))
    assert np.abs(shown["label"][3, 2] - expected).max() <= 1
    assert shown["label"][4, 2].tolist() == [0, 220, 255]  # the line, outside the support
    assert (shown["label"][8:] == 128).all()


def test_small_pictures_are_enlarged_for_the_line() -> None:
    shown = planes(*handmade((30, 20)))
    assert shown["clean"].shape == (20, 30, 3)
    assert shown["label"].shape == (20 * 9, 30 * 9, 3)
    assert (shown["label"][3 * 9 : 4 * 9, 2 * 9 : 3 * 9] != (0, 220, 255)).any(-1).all()


def test_a_volume_is_cut_where_the_anomaly_is() -> None:
    subject, sample = handmade((10, 12, 14))
    picture = planes(subject, sample)["corrupted"]
    assert picture.shape == (2 * (14 + 14), 2 * (10 + 12), 3)  # axial 12 x 10 and sagittal 14 x 12, coronal 14 x 10
    x, y, z = 2, 3, 4
    rows_and_columns = [(12 - 1 - y, x), (14 - 1 - z, 10 + y), (14 + 14 - 1 - z, x)]
    for row, column in rows_and_columns:
        brightness = picture[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean()
        assert brightness > 150, (row, column)
    assert (picture[28:, 20:] == 0).all()


def test_a_volume_is_shown_at_its_true_proportions_and_cropped_to_the_object(volume: str) -> None:
    (subject,) = load_subjects([volume], foreground=["above-minimum"], size=[28])
    assert tuple(subject.image.shape) == (1, 24, 28, 16)
    assert subject.image.affine[0, 0] > 0  # RAS
    row = make_row(subject, "RandCoarseNoise", 1)  # nothing outside the object
    height, width = planes(subject, row.samples[0])["clean"].shape[:2]
    assert (height, width) == (2 * (20 + 2 * 8), 2 * (16 + 20))  # without the border of 4; slices count twice


def test_what_a_corruption_is_not_defined_for_is_listed(volume: str, pictures: list[str]) -> None:
    (subject,) = load_subjects([volume], size=[16])
    flat = make_row(subject, "RandCutPasteScar", 2)
    assert flat.samples == [] and flat.reason == "defined for 2D images, this one is 3D"
    assert "--other" in make_row(subject, "RandPoissonBlend-other", 2).reason
    done: list[int] = []
    make_row(subject, "RandCutPasteScar", 2, done.append)
    assert sum(done) == 2  # the progress bar is complete
    html = render([(subject, [flat])])
    assert "<li><b>RandCutPasteScar</b>: defined for 2D images, this one is 3D</li>" in html
    with pytest.raises(ValueError, match="nothing to draw"):
        contact_sheet([(subject, [flat])])


def test_nothing_changed_is_said() -> None:
    constant = MetaTensor(torch.full((1, 32, 32), 0.5))
    row = make_row(Subject("gray", constant, None, {}, []), "RandSinkDeform", 2)
    assert [sample["target"] for sample in row.samples] == [0, 0]
    assert describe(row.samples[0])[0] == "nothing changed"
    html = render([(Subject("gray", constant, None, {}, []), [row])])
    assert html.count('class="nothing">nothing changed') == 2


def test_the_caption_tells_what_is_measured() -> None:
    _, sample = handmade((10, 10))
    sample["params"] = '[{"corner": [1, 2], "weight": 0.123456}, {"corner": [3, 4], "weight": 1.0}]'
    caption, drawn = describe(sample)
    assert caption == "2 anomalies · 1.0 % of the image · change 0.25, up to 0.25 · label 0.80, up to 0.80"
    assert drawn == "corner (1, 2); weight 0.123\ncorner (3, 4); weight 1"


def test_names_of_files_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "a<b>&.png"
    Image.fromarray(smooth(0, (32, 32))).save(path)
    (subject,) = load_subjects([str(path)])
    html = render([(subject, [make_row(subject, "RandSmoothIntensity", 1)])])
    assert "a&lt;b&gt;&amp;.png" in html and "a<b>" not in html


def test_images_to_paste_from(pictures: list[str], tmp_path: Path) -> None:
    color = str(tmp_path / "color.png")
    Image.fromarray(np.stack([smooth(s, (40, 48)) for s in range(3)], -1)).save(color)
    gray, other, colored = load_subjects([pictures[0], pictures[1], color], foreground=["above-minimum"])
    (only,) = gray.sources["own"]
    assert torch.equal(only["image"], other.image.as_tensor())
    assert torch.equal(only["foreground"] > 0, other.image.as_tensor() > 0)
    (mirrored,) = colored.sources["own"]
    assert torch.equal(mirrored["image"], colored.image.as_tensor().flip(1))
    assert colored.notes == ["pastes from a mirrored copy of itself"]
    (given,) = load_subjects(pictures[:1], sources=[color], size=[32])
    assert given.sources["own"][0]["image"].shape == (3, 32, 27)


def test_sizes(tmp_path: Path) -> None:
    path = str(tmp_path / "large.png")
    Image.fromarray(smooth(0, (200, 300))).save(path)
    assert load_image(path)[0].shape == (1, 256, 171)
    assert load_image(path, [60])[0].shape == (1, 60, 40)
    assert load_image(path, [50, 70])[0].shape == (1, 50, 70)
    image = load_image(path)[0]
    assert image.min() >= 0 and 0.5 < image.max() <= 1


def test_masks_from_files(pictures: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    mask = np.zeros((40, 48), np.uint8)
    mask[10:20, 30:40] = 255
    Image.fromarray(mask).save(path)
    (subject,) = load_subjects(pictures[:1], foreground=[str(path)])
    assert subject.foreground is not None
    assert torch.equal(subject.foreground[0].T, torch.from_numpy(mask > 0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "absent.png"], "absent.png does not exist"),
        (["--image", "{0}", "--corruptions", "RandMagic"], "choose from RandCutPaste"),
        (["--image", "{0}", "--seeds", "0"], "--seeds must be 1 or more, got 0"),
        (["--image", "{0}", "{1}", "--foreground", "{0}"], "1 mask(s) for 2 image(s)"),
        (["--image", "{0}", "--foreground", "{2}"], "small.png is of size (9, 9)"),
        (["--image", "{0}", "--spatial_size", "32", "32", "32"], "2D, but --spatial_size has 3 numbers"),
        (["--image", "{0}", "--spatial_size", "2"], "--spatial_size must be 16 or more, got 2"),
        (["--image", "{0}", "--figure", "sheet.xyz"], "--figure sheet.xyz must end in .png"),
        (["--image", "{0}", "--foreground", "lung"], "neither a mask file nor one of none, above-minimum"),
        (["--image", "."], ". is a folder: give the files in it"),
        (["--image", "{0}", "--output", "."], "--output . is a folder"),
    ],
)
def test_errors_are_one_line_and_keep_the_old_page(
    pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    small = str(tmp_path / "small.png")
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(small)
    output = tmp_path / "gallery.html"
    output.write_text("old")
    filled = [text.format(*pictures[:2], small) for text in arguments]
    assert main(["--output", str(output), *filled]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert output.read_text() == "old"


def test_the_contact_sheet_has_a_row_a_corruption(pictures: list[str]) -> None:
    (subject,) = load_subjects(pictures[:1], size=[32])
    rows = [make_row(subject, name, 2) for name in ("RandCutPaste", "RandSmoothIntensity")]
    figure = contact_sheet([(subject, rows), (subject, [Row("RandNSA", CORRUPTIONS["RandNSA"], reason="why")])])
    assert len(figure.axes) == 2 * (1 + 2 * 2)
    shown = np.asarray(figure.axes[6].get_images()[0].get_array())
    assert np.array_equal(shown, planes(subject, rows[1].samples[0])["corrupted"])


def test_every_entry_is_a_corruption_with_a_summary() -> None:
    for name, entry in CORRUPTIONS.items():
        assert name.split("-")[0] == entry.corruption.__name__
        assert isinstance(entry.corruption(**entry.settings), anomaly.RandAnomaly)
        assert entry.summary.endswith((".", ")", ":")) and entry.call.startswith(entry.corruption.__name__ + "(")


def test_a_single_slice_is_a_picture(tmp_path: Path) -> None:
    path = str(tmp_path / "slice.nii.gz")
    nib.save(nib.Nifti1Image(smooth(3, (40, 32))[..., None].astype(np.float32), np.diag([0.5, 0.5, 3, 1])), path)
    (subject,) = load_subjects([path])
    assert subject.image.shape == (1, 40, 32) and subject.image.pixdim.tolist() == [0.5, 0.5]
    assert make_row(subject, "RandSmoothIntensity", 1).samples[0]["target"] == 1
