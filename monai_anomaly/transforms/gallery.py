# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""See synthetic anomalies on one's own images: ``monai-anomaly gallery --help``.

Every picture comes from ``RandX(...).set_random_state(seed)``, so that each can be made again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Orientation, Resize, SqueezeDim
from torch import Tensor
from tqdm import tqdm

from ..utils import Keys, atomic_path, plain_tensor, write_text
from .anatomy import AboveMinimum, DifferentFromBackground, LungMask
from .gallery_page import Entry, Row, Subject, contact_sheet, render
from .loading import LoadImageChecked
from .scaling import ScaleSourceRange
from .synthesis.anat_paste import RandAnatPaste
from .synthesis.anomaly import sample_of
from .synthesis.coarse_noise import RandCoarseNoise
from .synthesis.cut_paste import RandCutPaste, RandCutPasteScar
from .synthesis.draem import RandPerlinTexture
from .synthesis.interpolation import RandFPI, RandPII
from .synthesis.many_tasks import (
    RandFractalIntensity,
    RandPoissonBlend,
    RandSinkDeform,
    RandSmoothIntensity,
    RandSourceDeform,
)
from .synthesis.nsa import RandNSA

LARGEST = {2: 256, 3: 96}
SMALLEST = 16
FIGURES = (".png", ".jpg", ".jpeg", ".pdf")
FOREGROUNDS: dict[str, Callable[[Tensor], Tensor | None]] = {
    "none": lambda image: None,
    "above-minimum": AboveMinimum(),
    "not-black": DifferentFromBackground(0.0, 20 / 255),
    "lungs": LungMask(),
}
_MANY_TASKS = "Baugh et al.: Many Tasks Make Light Work, MICCAI 2023"
_DIFFUSION = "Baugh et al.: Image-conditioned Diffusion Models for Medical Anomaly Detection, 2024"
_CUT_PASTE = "Li et al.: CutPaste, CVPR 2021"
_ANAT_PASTE = "Sato et al.: Anatomy-aware Self-supervised Learning, iScience 2023"
_NSA = "Schlueter et al.: Natural Synthetic Anomalies, ECCV 2022"
_DRAEM = "Zavrtanik et al.: DRAEM, ICCV 2021"
CORRUPTIONS = {
    "RandCutPaste": Entry(RandCutPaste, _CUT_PASTE),
    "RandCutPasteScar": Entry(RandCutPasteScar, _CUT_PASTE),
    "RandAnatPaste": Entry(RandAnatPaste, _ANAT_PASTE),
    "RandFPI": Entry(RandFPI, "Tan et al.: Detecting Outliers with Foreign Patch Interpolation, MELBA 2022", "own"),
    "RandPII": Entry(RandPII, "Tan et al.: Detecting Outliers with Poisson Image Interpolation, MICCAI 2021", "own"),
    "RandNSA": Entry(RandNSA, _NSA, "own"),
    "RandNSA-mixed": Entry(RandNSA, _NSA, "own", {"mode": "mixed"}),
    "RandNSA-cxr": Entry(RandNSA, _NSA, "own", {"preset": "cxr"}),
    "RandPerlinTexture": Entry(RandPerlinTexture, _DRAEM, settings={"prob": 1.0}),
    "RandPerlinTexture-other": Entry(RandPerlinTexture, _DRAEM, "other", {"prob": 1.0, "texture": "source"}),
    "RandCoarseNoise": Entry(RandCoarseNoise, "Kascenas et al.: Denoising Autoencoders, MIDL 2022"),
    "RandPoissonBlend": Entry(RandPoissonBlend, _MANY_TASKS, "own"),
    "RandPoissonBlend-other": Entry(RandPoissonBlend, _MANY_TASKS, "other"),
    "RandSinkDeform": Entry(RandSinkDeform, _MANY_TASKS),
    "RandSourceDeform": Entry(RandSourceDeform, _MANY_TASKS),
    "RandSmoothIntensity": Entry(RandSmoothIntensity, _MANY_TASKS),
    "RandFractalIntensity": Entry(RandFractalIntensity, _DIFFUSION),
}


def write_gallery(options: argparse.Namespace) -> None:
    """Write the page, and the contact sheet where one is wanted.

    Args:
        options: those of ``monai-anomaly gallery``, see ``monai_anomaly/cli/gallery.py``.

    Raises:
        ValueError: naming the option or the file and what to do.
    """
    _check(options)
    names = options.corruptions or list(CORRUPTIONS)
    if unknown := [name for name in names if name not in CORRUPTIONS]:
        raise ValueError(f"--corruptions: no corruption is called {unknown}, choose from {', '.join(CORRUPTIONS)}")
    subjects = load_subjects(
        options.image, options.source, options.other, options.foreground, options.spatial_size or []
    )
    with tqdm(total=len(subjects) * len(names) * options.seeds, unit="picture", disable=None) as bar:
        galleries = [(s, [make_row(s, name, options.seeds, bar.update) for name in names]) for s in subjects]
    write_text(options.output, render(galleries))
    print(options.output)
    if options.figure is not None:
        with atomic_path(options.figure) as temporary:
            contact_sheet(galleries).savefig(temporary, dpi=100)
        print(options.figure)


def _check(options: argparse.Namespace) -> None:
    """Refuse what would fail, or make no sense, only after all has been computed."""
    if options.seeds < 1:
        raise ValueError(f"--seeds must be 1 or more, got {options.seeds}")
    if options.spatial_size and min(options.spatial_size) < SMALLEST:
        raise ValueError(f"--spatial_size must be {SMALLEST} or more, got {min(options.spatial_size)}")
    if options.output.is_dir():
        raise ValueError(f"--output {options.output} is a folder: give the name of a file in it")
    if options.figure is not None and options.figure.suffix.lower() not in FIGURES:
        raise ValueError(f"--figure {options.figure} must end in {', '.join(FIGURES)}")
    first = options.foreground[0]
    if first not in FOREGROUNDS and not Path(first).exists():
        raise ValueError(f"--foreground {first} is neither a mask file nor one of {', '.join(FOREGROUNDS)}")
    for path in [*options.image, *options.source, *options.other]:
        if not Path(path).exists():
            raise ValueError(f"{path} does not exist")
        if Path(path).is_dir() and not any(Path(path).glob("*.dcm")):
            raise ValueError(f"{path} is a folder: give the files in it (only a DICOM series is a folder)")


def load_subjects(
    images: Sequence[str],
    sources: Sequence[str] = (),
    others: Sequence[str] = (),
    foreground: Sequence[str] = ("none",),
    size: Sequence[int] = (),
) -> list[Subject]:
    """Load images in [0, 1] with their masks and the images to paste from.

    Args:
        images: files to corrupt.
        sources: files to paste from; none: the other images of equal channels and axes, else a mirrored copy.
        others: files of another data set.
        foreground: ("none",), ("above-minimum",), ("lungs",), or one mask file an image.
        size: longest side, or one number an axis; none: keep, at most 256, for volumes 96.

    Raises:
        ValueError: naming the file and what to do.
    """
    if foreground[0] not in FOREGROUNDS and len(foreground) != len(images):
        raise ValueError(
            f"--foreground names {len(foreground)} mask(s) for {len(images)} image(s): give one for each, in order, "
            f"or one of {', '.join(FOREGROUNDS)}"
        )
    computed = FOREGROUNDS.get(foreground[0])
    masks = images if computed else foreground
    loaded = [load_image(path, size, computed or mask) for path, mask in zip(images, masks, strict=True)]
    given = [load_image(path, size, computed) for path in sources]
    # another data set need not show lungs
    foreign = [load_image(path, size, None if computed is FOREGROUNDS["lungs"] else computed) for path in others]
    subjects = []
    for path, (image, mask) in zip(images, loaded, strict=True):
        alike = given or [other for other in loaded if other[0] is not image and len(other[0]) == len(image)]
        own, far = ([_fit(other, image) for other in pool if other[0].ndim == image.ndim] for pool in (alike, foreign))
        notes = [f"images to paste from: {len(own)}" if own else "pastes from a mirrored copy of itself"]
        if len(image) not in (1, 3):
            notes.append(
                f"the first of {len(image)} channels is shown; if this is a series of images, give them one by one"
            )
        mirrored = _fit((image.flip(1), None if mask is None else mask.flip(1)), image)
        subjects.append(Subject(Path(path).name, image, mask, {"own": own or [mirrored], "other": far}, notes))
    return subjects


def load_image(
    path: str, size: Sequence[int] = (), foreground: str | Callable[[Tensor], Tensor | None] | None = None
) -> tuple[Tensor, Tensor | None]:
    """Load one image in [0, 1], and where anomalies may be.

    Args:
        path: the file.
        size: longest side, or one number an axis; none: keep, at most 256, for volumes 96.
        foreground: a mask file, or a function of the image; None: everywhere.

    Raises:
        ValueError: naming the file and what to do.
    """
    image = ScaleSourceRange(0.0, 1.0)(_read(path))
    dims = image.ndim - 1
    if len(size) > 1 and len(size) != dims:
        raise ValueError(f"image {path} is {dims}D, but --spatial_size has {len(size)} numbers: give {dims}, or one")
    mask = _read(foreground) if isinstance(foreground, str) else None
    if mask is not None and mask.shape[1:] != image.shape[1:]:
        sizes = f"{tuple(mask.shape[1:])}, but its image {path} {tuple(image.shape[1:])}"
        raise ValueError(f"mask {foreground} is of size {sizes}: resample the mask to the image")
    longest = size[0] if size else min(max(image.shape[1:]), LARGEST[dims])
    shape = (
        list(size) if len(size) > 1 else [max(1, round(n * longest / max(image.shape[1:]))) for n in image.shape[1:]]
    )
    image = Resize(shape, mode="area")(image)
    if mask is not None:
        return image, (Resize(shape, mode="nearest-exact")(mask) > 0).any(0, keepdim=True)
    return image, foreground(image) if callable(foreground) else None


def _read(path: str) -> Tensor:
    """Read a file; volumes in RAS orientation, since they are shown from three sides."""
    image: Any = LoadImageChecked()(path)
    if image.ndim == 4 and image.shape[-1] == 1:
        image = SqueezeDim(-1)(image)  # the affine, too
    if image.ndim not in (3, 4):
        raise ValueError(f"image {path} has {image.ndim - 1} spatial axes: give images of 2 or 3")
    return image if image.ndim == 3 else Orientation("RAS", labels=None)(image)


def _fit(source: tuple[Tensor, Tensor | None], like: Tensor) -> dict[str, Tensor]:
    """An image to paste from, of the size of the image that it goes into."""
    image, mask = source
    item = {Keys.IMAGE: plain_tensor(Resize(like.shape[1:], mode="area")(image))}
    if mask is not None:
        item[Keys.FOREGROUND] = Resize(like.shape[1:], mode="nearest-exact")(mask.to(torch.uint8))
    return item


def make_row(subject: Subject, name: str, seeds: int, done: Callable[[int], Any] = lambda n: None) -> Row:
    """Corrupt an image in one way with the seeds 0, 1, ...; where the corruption is not defined, say why."""
    entry = CORRUPTIONS[name]
    corruption = entry.corruption(**entry.settings)
    row = Row(name, entry)
    dims = subject.image.ndim - 1
    sources = subject.sources.get(entry.sources)
    if dims not in corruption.dims:
        row.reason = f"defined for {' and '.join(f'{d}D' for d in corruption.dims)} images, this one is {dims}D"
    elif entry.sources == "other" and not sources:
        row.reason = f"pastes from another data set: give {dims}D images with --other"
    try:
        for seed in range(0 if row.reason else seeds):
            plan = corruption.plan(np.random.RandomState(seed), subject.image, subject.foreground, sources)
            row.samples.append(sample_of(corruption.apply(subject.image[None], [plan]), plan, subject.image))
            done(1)
    except ValueError as error:
        row.reason, row.samples = str(error), []
    done(seeds - len(row.samples))
    return row


if __name__ == "__main__":
    from ..cli.gallery import main

    sys.exit(main())
