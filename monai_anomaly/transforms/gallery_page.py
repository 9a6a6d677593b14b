# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""How the gallery of synthetic anomalies looks: pictures of a sample, the page, the contact sheet."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from monai.data import MetaTensor
from PIL import Image, features
from scipy import ndimage
from torch import Tensor

from ..utils import Keys
from .synthesis.anomaly import RandAnomaly

STRONGEST = 0.5
"""mean absolute change at the bright end of the color scale; images are in [0, 1]."""
LINE_SIZE = 256
"""pictures with a line are enlarged to about this side, so that the line is thin."""
_LABEL_COLOR = np.array([255, 70, 40])
_SUPPORT_COLOR = np.array([0, 220, 255])
_TEMPLATE = Path(__file__).with_name("gallery_template.html.j2")


@dataclass(frozen=True)
class Entry:
    """A corruption as the gallery shows it."""

    corruption: type[RandAnomaly]
    paper: str
    sources: str = ""
    """images it pastes from: "own", of the same data set; "other", of another one; empty: none."""
    settings: dict[str, Any] = field(default_factory=dict)
    """arguments other than the defaults."""

    @property
    def call(self) -> str:
        """How it is made."""
        return f"{self.corruption.__name__}({', '.join(f'{name}={value!r}' for name, value in self.settings.items())})"

    @property
    def summary(self) -> str:
        """First line of its documentation."""
        return str(self.corruption.__doc__).strip().splitlines()[0].replace("``", "")


@dataclass
class Subject:
    """An image with what the corruptions may use beside it."""

    name: str
    image: Tensor
    foreground: Tensor | None
    sources: dict[str, list[dict[str, Tensor]]]
    notes: list[str]


@dataclass
class Row:
    """One corruption of one image: a sample a seed, or why there is none."""

    name: str
    entry: Entry
    samples: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""


def planes(subject: Subject, sample: dict[str, Any]) -> dict[str, np.ndarray]:
    """Pictures of one sample, (H, W, 3) uint8: clean, corrupted, difference and label.

    Of a volume the three planes in which the label is largest: axial, sagittal and coronal.
    """
    clean, image = (sample[key].as_tensor() for key in (Keys.CLEAN, Keys.IMAGE))
    change = (image - clean).abs().mean(0).numpy()
    label, support = sample[Keys.LABEL][0].numpy(), sample[Keys.SUPPORT][0].numpy() > 0
    cut = _cutter(subject.image, label, support)
    heat = colormaps["inferno"](np.clip(change / STRONGEST, 0, 1))[..., :3]
    shown = _colors(image)
    weight = 0.75 * label[..., None]
    marked = shown.mean(-1, keepdims=True) * (1 - weight) + weight * _LABEL_COLOR / 255  # gray: the color is the label
    return {
        "clean": cut(_colors(clean)),
        "corrupted": cut(shown),
        "difference": cut(heat),
        "label": cut(marked, support),
    }


def _colors(image: Tensor) -> np.ndarray:
    """An image (C, *S) in [0, 1] as (*S, 3)."""
    return np.moveaxis((image if len(image) == 3 else image[:1].expand(3, *image.shape[1:])).numpy(), 0, -1)


def _cutter(image: Tensor, label: np.ndarray, support: np.ndarray) -> Callable[..., np.ndarray]:
    """A function that makes a picture of an image: rows first, and of a volume three planes side by side."""
    if label.ndim == 2:
        return lambda values, outline=None: _pixels(values.swapaxes(0, 1), None if outline is None else outline.T)
    content = (image > image.min()).any(0).numpy()
    content = content | (support if content.any() else True)
    (box,) = ndimage.find_objects(content.astype(int))
    label = label[box]
    where = [int(np.argmax(label.sum(tuple(a for a in range(3) if a != axis)))) for axis in range(3)]
    where = where if label.any() else [length // 2 for length in label.shape]
    spacing = image.pixdim.numpy() if isinstance(image, MetaTensor) else np.ones(3)
    spacing = spacing / spacing.min()
    zoom = 2  # for lines that are thin

    def cut(values: np.ndarray, outline: np.ndarray | None = None) -> np.ndarray:
        views = []
        for axis in (2, 0, 1):
            plane = np.rot90(values[box].take(where[axis], axis))
            line = None if outline is None else np.rot90(outline[box].take(where[axis], axis))
            across, down = (spacing[a] for a in range(3) if a != axis)
            size = round(plane.shape[1] * across * zoom), round(plane.shape[0] * down * zoom)
            views.append(np.asarray(Image.fromarray(_pixels(plane, line)).resize(size)))
        return _montage(views)

    return cut


def _pixels(values: np.ndarray, support: np.ndarray | None) -> np.ndarray:
    """Colors in [0, 1] as 8-bit pixels; with a support enlarged where small, so that the line around it is thin."""
    pixels = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    if support is None:
        return pixels
    times = max(1, round(LINE_SIZE / max(support.shape)))
    pixels = np.array(Image.fromarray(pixels).resize((support.shape[1] * times, support.shape[0] * times)))
    support = support.repeat(times, 0).repeat(times, 1)
    pixels[ndimage.binary_dilation(support, iterations=2) & ~support] = _SUPPORT_COLOR
    return pixels


def _montage(views: Sequence[np.ndarray]) -> np.ndarray:
    """Axial and sagittal view above, the coronal one below; the last quarter stays black."""
    axial, sagittal, coronal = views
    height = max(axial.shape[0], sagittal.shape[0])
    width = max(axial.shape[1], coronal.shape[1])
    whole = np.zeros((height + coronal.shape[0], width + sagittal.shape[1], 3), np.uint8)
    whole[: axial.shape[0], : axial.shape[1]] = axial
    whole[: sagittal.shape[0], width : width + sagittal.shape[1]] = sagittal
    whole[height:, : coronal.shape[1]] = coronal
    return whole


def describe(sample: dict[str, Any]) -> tuple[str, str]:
    """What to read below a picture, and what was drawn."""
    drawn = json.loads(sample[Keys.PARAMS])
    texts = ["; ".join(f"{name} {_short(value)}" for name, value in patch.items()) for patch in drawn]
    if not sample[Keys.TARGET]:
        return "nothing changed", "\n".join(texts)
    support = sample[Keys.SUPPORT].as_tensor()
    change = (sample[Keys.IMAGE] - sample[Keys.CLEAN]).as_tensor().abs().mean(0, keepdim=True)[support]
    label = sample[Keys.LABEL].as_tensor()[support]
    facts = [f"{len(drawn)} anomalies"] if len(drawn) > 1 else []
    percent = 100 * int(support.sum()) / support.numel()
    facts.append(f"{percent:.{0 if percent >= 10 else 2 if percent < 1 else 1}f} % of the image")
    facts.append(f"change {change.mean():.2f}, up to {change.max():.2f}")
    facts.append(f"label {label.mean():.2f}, up to {label.max():.2f}")
    return " · ".join(facts), "\n".join(texts)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(_short, value))})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def render(galleries: Sequence[tuple[Subject, Sequence[Row]]]) -> str:
    """Lay out the gallery as a self-contained HTML page without scripts.

    A clean image stands in the style sheet, once, as the background of all that was made of it: pointing at a corrupted
    one lets it shine through.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    from .. import __version__

    backgrounds: dict[str, str] = {}
    images = [_image_part(subject, rows, backgrounds) for subject, rows in galleries]
    style = "\n".join(f".{name} {{ background-image: url({address}) }}" for address, name in backgrounds.items())
    colors = (np.array([colormaps["inferno"](x)[:3] for x in np.linspace(0, 1, 9)]) * 255).round().astype(int)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        images=images,
        strongest=STRONGEST,
        # these two hold numbers and base64 only
        ramp=Markup(", ".join(f"rgb({r} {g} {b})" for r, g, b in colors)),
        backgrounds=Markup(style),
        version=__version__,
    )


def _image_part(subject: Subject, rows: Sequence[Row], backgrounds: dict[str, str]) -> dict[str, Any]:
    channels, *size = subject.image.shape
    sizes = " × ".join(map(str, size))
    return {
        "name": subject.name,
        "facts": [sizes, f"{channels} channel{'s' if channels > 1 else ''}", *subject.notes],
        "volume": len(size) == 3,
        "rows": [
            {
                "name": row.name,
                "call": row.entry.call,
                "summary": row.entry.summary,
                "paper": row.entry.paper,
                "examples": [_example(subject, seed, s, backgrounds) for seed, s in enumerate(row.samples)],
            }
            for row in rows
            if row.samples
        ],
        "absent": [{"name": row.name, "reason": row.reason} for row in rows if row.reason],
    }


def _example(subject: Subject, seed: int, sample: dict[str, Any], backgrounds: dict[str, str]) -> dict[str, Any]:
    pictures = planes(subject, sample)
    clean = encode(pictures["clean"])
    caption, drawn = describe(sample)
    height, width = pictures["clean"].shape[:2]
    return {
        "seed": seed,
        "ratio": f"{width} / {height}",
        "clean": backgrounds.setdefault(clean, f"c{len(backgrounds)}"),
        "pictures": {name: encode(picture) for name, picture in pictures.items() if name != "clean"},
        "caption": caption,
        "drawn": drawn,
    }


def encode(pixels: np.ndarray) -> str:
    """Compress a picture into a ``data:`` address."""
    kind = "webp" if features.check("webp") else "png"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind.upper(), quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def contact_sheet(galleries: Sequence[tuple[Subject, Sequence[Row]]], cell: float = 1.2) -> Figure:
    """Draw a row a corruption: the image, and for each seed what became of it and its label.

    Args:
        galleries: images with their rows.
        cell: height of a row in inches.
    """
    rows = [(subject, row) for subject, all_rows in galleries for row in all_rows if row.samples]
    if not rows:
        raise ValueError("none of the corruptions is defined for these images: there is nothing to draw")
    seeds = max(len(row.samples) for _, row in rows)
    figure = Figure(figsize=((1 + 2 * seeds) * cell + 0.25, len(rows) * (cell + 0.2)), facecolor="white")
    grid = figure.subplots(len(rows), 1 + 2 * seeds, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for (subject, row), line in zip(rows, grid, strict=True):
        shown = [planes(subject, sample) for sample in row.samples]
        line[0].imshow(shown[0]["clean"])
        line[0].set_title(f"{row.name} · {subject.name}", fontsize=8, loc="left", pad=2)
        for seed, pictures in enumerate(shown):
            line[1 + 2 * seed].imshow(pictures["corrupted"])
            line[2 + 2 * seed].imshow(pictures["label"])
            if not row.samples[seed][Keys.TARGET]:
                line[2 + 2 * seed].set_title("nothing changed", fontsize=7, pad=2)
    figure.subplots_adjust(left=0.005, right=0.995, top=1 - 0.2 / figure.get_figheight(), bottom=0, wspace=0.03)
    return figure
