# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.transforms import Orientation
from PIL import Image

from ..metrics.gather import gather_rows
from ..transforms import LoadImageChecked, ScaleSourceRange, read_map
from ..transforms.readers import RASTER_SUFFIXES, has_suffix
from ..transforms.saving import output_path
from ..utils import Keys, atomic_path
from ..visualize import overlay_heatmap
from ..visualize.planes import INTENSITIES, display_planes
from .image_rows import ImageRows, Row

_VALUES_PER_MAP = 64  # of each map so many values, evenly spread, decide the common color scale


class OverlayWriter(ImageRows):
    """Writes the maps that ``SaveImageMapd`` has saved as colors over their images, one PNG an image, to look at.

    A picture has the size of its file; of a volume it is the axial slice where the map is largest. All pictures of a
    run have one color scale, so that a healthy image looks calm beside an abnormal one; it is known, and they are
    drawn, when the last map is.

    Args:
        output_dir: folder of the pictures, made if missing.
        map_dir: folder of the maps, see :class:`~monai_anomaly.transforms.SaveImageMapd`.
        value_range: map values at the two ends of the color scale; None: percentiles 0.5 and 99.5 of all maps.

    Raises:
        ValueError: at the end of a run, when a map is not there.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        map_dir: str | os.PathLike[str],
        value_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__(output_dir)
        self.map_dir = Path(map_dir)
        self.value_range = value_range

    def _forget(self, engine: Engine) -> None:
        super()._forget(engine)
        self._samples: list[torch.Tensor] = []

    def row(self, item: Mapping[str, Any]) -> Row:
        """The file of an image; values of its map are kept aside."""
        flat = torch.as_tensor(item[Keys.MAP]).detach().cpu().float().flatten()
        places = torch.linspace(0, len(flat) - 1, min(len(flat), _VALUES_PER_MAP)).long()
        self._samples.append(flat[places])
        return {"source": super().row(item)["source"]}

    def _finish(self, engine: Engine) -> None:
        # each process draws the images that it has scored
        span, sources = self._common_range(), [row["source"] for row in self._rows]
        self._rows, self._samples = [], []
        for source in dict.fromkeys(filter(None, sources)):
            with atomic_path(output_path(self.output_dir, source, "overlay", ".png")) as temporary:
                Image.fromarray(draw_overlay(source, self.map_dir, span)).save(temporary, format="PNG")

    def _common_range(self) -> tuple[float, float]:
        values = gather_rows(torch.cat(self._samples) if self._samples else torch.zeros(0))
        if self.value_range is not None:
            return self.value_range
        low, high = np.quantile(values.numpy(), (0.005, 0.995)) if len(values) else (0.0, 1.0)
        return float(low), float(max(high, low + np.finfo(np.float32).eps))


def draw_overlay(
    source: str, map_dir: str | os.PathLike[str], value_range: tuple[float, float], opacity: float = 0.85
) -> np.ndarray:
    """Draw a saved map over its image.

    Args:
        source: file of the image; of a volume, the axial slice where the map is largest is drawn.
        map_dir: folder that :class:`~monai_anomaly.transforms.SaveImageMapd` has written.
        value_range: map values at the two ends of the color scale.
        opacity: opacity in [0, 1] of the map at the upper end of the scale; 0 shows the image alone.

    Raises:
        ValueError: when the map is not there.

    Returns:
        (H, W, 3) uint8.
    """
    image: Any = ScaleSourceRange(*INTENSITIES)(LoadImageChecked()(source))
    both = torch.cat([image, saved_map(source, map_dir, image)])  # one affine, one orientation
    if both.ndim == 4 and both.shape[-1] == 1:
        both = both.squeeze(-1)
    if both.ndim == 4:
        both = Orientation("RAS", labels=None)(both)
    planes = display_planes({Keys.IMAGE: both[:-1], Keys.MAP: both[-1:]})
    return overlay_heatmap(planes[Keys.IMAGE], planes[Keys.MAP], None, value_range, INTENSITIES, opacity=opacity)


def saved_map(source: str, map_dir: str | os.PathLike[str], image: torch.Tensor) -> torch.Tensor:
    """The saved map (1, *S) of an image (C, *S), see :func:`draw_overlay`."""
    picture = has_suffix(source, RASTER_SUFFIXES) and image.ndim == 3
    path = output_path(Path(map_dir), source, Keys.MAP, ".png" if picture else ".nii.gz")
    if not path.is_file():
        raise ValueError(f"{path} does not exist: save the maps (SaveImageMapd) where map_dir says")
    values = read_map(path)
    return torch.from_numpy(values.T.copy() if picture else values.reshape(image.shape[1:]))[None]
