# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.data import MetaTensor

from ..metrics.gather import gather_strings
from ..utils import Keys, check_output

Row = dict[str, Any]


class ImageRows:
    """One row of plain values per image of an evaluation, collected while it runs and gathered over the processes.

    A subclass adds to :meth:`row` and does something with all rows in :meth:`write`.

    Args:
        output_dir: folder to write into, made if missing.
        base_dir: folder of the data set; files in it are named relative to it.
    """

    def __init__(self, output_dir: str | os.PathLike[str], base_dir: str | os.PathLike[str] | None = None) -> None:
        self.output_dir = check_output(output_dir)
        self.base_dir = None if base_dir is None else Path(os.path.abspath(base_dir))
        self._rows: list[Row] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator, after the handlers that compute metrics."""
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _forget(self, engine: Engine) -> None:
        self._rows = []

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        items: Sequence[Mapping[str, Any]] = output if isinstance(output, list) else [output]
        self._rows += [self.row(item) for item in items]

    def row(self, item: Mapping[str, Any]) -> Row:
        """Plain values of one image; values that the item does not have are None."""
        target, index = item.get(Keys.TARGET), item.get(Keys.INDEX)
        return {
            "image": self._name(item),
            "source": _source(item),
            "patient": None if item.get(Keys.PATIENT) is None else str(item[Keys.PATIENT]),
            "target": None if target is None or int(target) not in (0, 1) else int(target),
            "score": float(item[Keys.SCORE]),
            "index": None if index is None else int(index),
        }

    def _name(self, item: Mapping[str, Any]) -> str:
        """The file an image was read from, relative to the data set's folder, or an empty string."""
        source = _source(item)
        file = Path(os.path.abspath(source))
        if not source or self.base_dir is None or not file.is_relative_to(self.base_dir):
            return Path(source).as_posix() if source else ""
        return file.relative_to(self.base_dir).as_posix()

    def gathered(self) -> list[Row]:
        """Rows of all processes in the order of the datalist; one that came twice, from a padding sampler, once."""
        rows = [json.loads(row) for row in gather_strings([json.dumps(row) for row in self._rows])]
        if any(row["index"] is None for row in rows):
            return rows
        by_index = {row["index"]: row for row in reversed(rows)}
        return [by_index[index] for index in sorted(by_index)]

    def _finish(self, engine: Engine) -> None:
        rows = self.gathered()
        self._rows = []
        if idist.get_rank() == 0:
            self.write(engine, rows)

    def write(self, engine: Engine, rows: list[Row]) -> None:
        """Use the rows of all processes, in the order of the datalist; called on the first process only."""
        raise NotImplementedError


def _source(item: Mapping[str, Any]) -> str:
    image = item.get(Keys.IMAGE)
    return str(image.meta.get("filename_or_obj", "")) if isinstance(image, MetaTensor) else ""
