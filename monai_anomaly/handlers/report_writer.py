# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine

from ..metrics.gather import gather_rows, gather_strings
from ..utils import Keys
from ..visualize import encode_data_uri, overlay_heatmap, select_gallery, to_gray, write_report
from ..visualize.planes import INTENSITIES, describe_slice, display_planes
from .healthy_reference import working_point_text
from .image_rows import ImageRows, Row
from .result_writers import audit_scores, read_audit

_SHOWN = (Keys.IMAGE, Keys.MAP, Keys.RECONSTRUCTION, Keys.LABEL)
_VALUES_PER_MAP = 256  # of each map so many values, evenly spread, decide the common color scale


class ReportWriter(ImageRows):
    """Writes ``report.html``, one page that shows an evaluation and needs no network.

    Stands after a :class:`MetricsWriter` with the same folder. Keeps a 2D picture of each image and its map until the
    end (64 KiB an image at 64 x 64 pixels), because the color scale of the maps is common to all.

    Args:
        output_dir: folder of the file; ``metrics.json`` is read from it.
        base_dir: folder of the data set; files in it are named relative to it.
        title: title of the page.
        dataset: name of the data set; default that of the datalist, where there is an audit that names it, or of its
            folder where it is called ``datalist.json``.
        section: section(s) of the datalist evaluated.
        max_gallery: largest number of images shown.
        max_kept: largest number of images whose pictures a process keeps in memory; later ones have a score only.
        audit_dir: folder of ``audit.json``; None: ``output_dir``.

    Raises:
        ValueError: when a number is negative, or, at the end of a run, ``metrics.json`` is missing.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        base_dir: str | os.PathLike[str] | None = None,
        title: str = "Anomaly detection report",
        dataset: str | None = None,
        section: str | Sequence[str] = "testing",
        max_gallery: int = 200,
        max_kept: int = 5000,
        audit_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        if max_gallery < 0 or max_kept < 0:
            raise ValueError(f"max_gallery and max_kept must not be negative, got {max_gallery} and {max_kept}.")
        super().__init__(output_dir, base_dir)
        self.audit_dir = self.output_dir if audit_dir is None else Path(audit_dir)
        self.title = title
        self.dataset = dataset
        self.section = section
        self.max_gallery = max_gallery
        self.max_kept = max_kept

    def _forget(self, engine: Engine) -> None:
        super()._forget(engine)
        self._planes: dict[str, dict[str, np.ndarray]] = {}
        self._seen = 0
        self._value_range = (0.0, 1.0)

    def row(self, item: Mapping[str, Any]) -> Row:
        """A row as in ``scores.csv``; the pictures are kept aside."""
        # neither file names nor indices are sure to be there, or to differ
        shown = {key: item[key] for key in _SHOWN if key in item}
        row = super().row(item) | {"key": f"{idist.get_rank()} {self._seen}", "note": describe_slice(shown)}
        self._seen += 1
        if len(self._planes) < self.max_kept:
            self._planes[row["key"]] = display_planes(shown)
        return row

    def _finish(self, engine: Engine) -> None:
        # every process draws the pictures it has; which ones, and in what colors, all of them decide alike
        rows = self.gathered()
        chosen = select_gallery([row["score"] for row in rows], [row["target"] for row in rows], self.max_gallery)
        self._value_range = self._common_range([row["key"] for row in rows])
        keys = [key for key in (rows[i]["key"] for i in chosen) if key in self._planes]
        drawn = {key: self._thumbnails(self._planes[key]) for key in keys}
        self._thumbnails_by_key = dict(map(json.loads, gather_strings([json.dumps(pair) for pair in drawn.items()])))
        super()._finish(engine)

    def _common_range(self, keys: Sequence[str]) -> tuple[float, float]:
        """Percentiles 0.5 and 99.5 of the values of all maps."""
        samples = [_spread(self._planes[key][Keys.MAP]) for key in keys if key in self._planes]
        values = gather_rows(torch.from_numpy(np.concatenate(samples) if samples else np.zeros(0, np.float32)))
        if not len(values):
            return 0.0, 1.0
        low, high = np.quantile(values.numpy(), (0.005, 0.995))
        return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)

    def _thumbnails(self, planes: Mapping[str, np.ndarray]) -> dict[str, str]:
        pictures = {"image": to_gray(planes[Keys.IMAGE], INTENSITIES)}
        if Keys.RECONSTRUCTION in planes:
            pictures["reconstruction"] = to_gray(planes[Keys.RECONSTRUCTION], INTENSITIES)
        label = planes.get(Keys.LABEL)
        annotated = label if label is not None and label.max() > 0 else None
        pictures["heatmap"] = overlay_heatmap(
            planes[Keys.IMAGE], planes[Keys.MAP], annotated, self._value_range, INTENSITIES
        )
        if annotated is not None:
            pictures["mask"] = to_gray(annotated, (0.0, 1.0))
        return {name: encode_data_uri(picture) for name, picture in pictures.items()}

    def write(self, engine: Engine, rows: list[Row]) -> None:
        """Write the page, all or nothing."""
        path = self.output_dir / "metrics.json"
        if not path.is_file():
            raise ValueError(
                f"{path} does not exist: put a MetricsWriter with the same output_dir before the ReportWriter"
            )
        metrics = json.loads(path.read_text(encoding="utf-8"))
        audit = read_audit(self.audit_dir)
        scores = audit_scores(audit, self.section, rows)
        point = metrics.get("working_point")
        write_report(
            self.output_dir / "report.html",
            metrics,
            [
                {"file": row["image"] or f"image {i}", **row, "thumbnails": self._thumbnails_by_key.get(row["key"])}
                for i, row in enumerate(rows)
            ],
            self.title,
            dataset=self.dataset or (_dataset_name(Path(audit["datalist"])) if "datalist" in audit else None),
            baseline_scores={name: _numbers(values) for name, values in scores.items() if None not in values},
            value_range=self._value_range,
            value_range_note="0.5th to 99.5th percentile of all maps; one color scale for all images",
            threshold=point["threshold"] if point else None,
            threshold_origin=working_point_text(point) if point else "",
            max_gallery=self.max_gallery,
        )


def _dataset_name(datalist: Path) -> str:
    return datalist.resolve().parent.name if datalist.stem == "datalist" else datalist.stem


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _spread(plane: np.ndarray) -> np.ndarray:
    flat = plane.reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(flat.size, _VALUES_PER_MAP)).astype(int)]
