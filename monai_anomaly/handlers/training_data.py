# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""By what a run knows that it goes on with the data it began with."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ignite.engine import Engine

from ..transforms.formats import companion_files
from ..utils import Keys, file_mark, sampled_mark

_FILES = (Keys.IMAGE, Keys.LABEL, Keys.FOREGROUND)
_THREADS = 8
WHOLE = "all bytes "  # of a mark that was made of them


class DataMark:
    """Names, targets and contents of the images that an engine reads, as short hashes; the same wherever the data lie.

    Contents are told by size and three samples of 4 KiB of each file (:func:`~monai_anomaly.utils.sampled_mark`), which
    costs three short reads a file; a change elsewhere in a file of the same size is then not noticed, but for its time.
    ``whole`` reads every byte. Masks and foregrounds count like images, and so do files
    of pixels that a header names and the files of a series.

    Args:
        engine: a trainer or evaluator; its data set's ``data`` are the items.
        whole: whether contents are told by all bytes.
    """

    def __init__(self, engine: Engine | None, whole: bool = False) -> None:
        dataset = getattr(getattr(engine, "data_loader", None), "dataset", None)
        items = [item for item in getattr(dataset, "data", None) or [] if isinstance(item, dict)]
        named = [item for item in items if isinstance(item.get(Keys.IMAGE), (str, os.PathLike))]
        self._items = items if len(named) == len(items) else []
        self._whole = whole

    def names(self) -> str | None:
        """Hash of the images' names and targets, in order; None where the data set does not tell."""
        if not self._items:
            return None
        files = [os.path.abspath(item[Keys.IMAGE]) for item in self._items]
        # below their common folder, because a data set may move between machines while a run waits
        root = os.path.commonpath([os.path.dirname(file) for file in files])
        pairs = zip(files, self._items, strict=True)
        return short_hash("\n".join(f"{os.path.relpath(file, root)} {item.get(Keys.TARGET)}" for file, item in pairs))

    def contents(self) -> str | None:
        """Hash of what is in the files, in order, and whether of all bytes; None where the data set does not tell."""
        mark = file_mark if self._whole else sampled_mark
        with ThreadPoolExecutor(_THREADS) as pool:
            marks = list(pool.map(mark, self._files()))
        return f"{WHOLE if self._whole else ''}{short_hash(str(marks))}" if marks else None

    def times(self) -> str | None:
        """Hash of the times at which the files were written last; a copy has others, so they prove no change."""
        times = [Path(file).stat().st_mtime_ns if Path(file).is_file() else None for file in self._files()]
        return short_hash(str(times)) if times else None

    def _files(self) -> list[str | os.PathLike[str]]:
        listed = [item[key] for item in self._items for key in _FILES if isinstance(item.get(key), (str, os.PathLike))]
        return [part for file in listed for part in (file, *companion_files(os.fspath(file)))]


def short_hash(text: str) -> str:
    """The first 16 digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
