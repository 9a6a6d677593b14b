# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardHandler

from ..utils import Keys, check_output
from ..visualize import overlay_heatmap, to_gray
from ..visualize.planes import INTENSITIES, display_planes


class AnomalyImagePanels(TensorBoardHandler):
    """Shows the first images of each validation in TensorBoard: input, reconstruction, heat map, one row an image.

    The color scale of the heat maps is the range of the maps shown, so it changes while a network learns.

    Args:
        log_dir: TensorBoard's folder.
        num_images: number of images.
        tag: name of the panel.

    Raises:
        ValueError: when ``num_images`` is not positive, or ``log_dir`` outside the folders of the run.
    """

    def __init__(self, log_dir: str | os.PathLike[str], num_images: int = 4, tag: str = "anomaly maps") -> None:
        if num_images < 1:
            raise ValueError(f"num_images must be positive, got {num_images}.")
        super().__init__(log_dir=str(check_output(log_dir)))
        self.num_images = num_images
        self.tag = tag
        self._shown: list[dict[str, np.ndarray]] = []
        self._validations = 0

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._show)

    def _forget(self, engine: Engine) -> None:
        self._shown = []

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        for item in output[: self.num_images - len(self._shown)]:
            keys = (Keys.IMAGE, Keys.RECONSTRUCTION, Keys.MAP, Keys.LABEL)
            self._shown.append(display_planes({key: item[key] for key in keys if key in item}))

    def _show(self, engine: Engine) -> None:
        if idist.get_rank() == 0 and self._shown:
            maps = np.concatenate([planes[Keys.MAP].reshape(-1) for planes in self._shown])
            span = (float(maps.min()), float(maps.max()))
            span = span if span[1] > span[0] else (span[0], span[0] + 1.0)
            panel = _stack([_row(planes, span) for planes in self._shown])
            step = engine.state.epoch if engine.state.max_epochs != 1 else self._validations
            self._writer.add_image(self.tag, panel, step, dataformats="HWC")
        self._validations += 1


def _stack(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures (H, W, 3) below each other; narrower ones, of images of other sizes, are padded with black."""
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def _row(planes: Mapping[str, np.ndarray], span: tuple[float, float]) -> np.ndarray:
    pictures = [to_gray(planes[key], INTENSITIES) for key in (Keys.IMAGE, Keys.RECONSTRUCTION) if key in planes]
    label = planes.get(Keys.LABEL)
    annotated = label if label is not None and label.max() > 0 else None
    pictures.append(overlay_heatmap(planes[Keys.IMAGE], planes[Keys.MAP], annotated, span, INTENSITIES))
    return np.concatenate(pictures, axis=1)
