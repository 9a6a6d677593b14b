# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ..transforms.loading import LoadImageChecked
from ..utils import Keys
from .datalist import SECTIONS, PathLike, read_datalist

_MOST_TRIED = 10


def datalist_shape(datalist: PathLike, base_dir: PathLike | None = None, size: int = 64) -> dict[str, Any]:
    """What a network must take so that it fits the images of a datalist, as the first that can be read says.

    That the others are like it is for :class:`DatalistAudit` to see, which reads all of them; so is what is wrong where
    none can be read, and one channel and two axes are returned.

    Args:
        datalist: JSON file, or a folder of images.
        base_dir: folder that its paths are relative to; None (default): the folder of the datalist.
        size: length of each axis that images are brought to.

    Returns:
        ``in_channels``, and ``spatial_size`` with one entry an axis, two or three.
    """
    for path in islice(_files(datalist, base_dir), _MOST_TRIED):
        try:
            shape = LoadImageChecked()(path).shape
        except ValueError:
            continue
        axes = len(shape) - 1
        axes -= axes == 3 and shape[-1] == 1  # a picture that is stored as a volume of one slice
        return {"in_channels": int(shape[0]), "spatial_size": [size] * axes}
    return {"in_channels": 1, "spatial_size": [size] * 2}


def _files(datalist: PathLike, base_dir: PathLike | None) -> Iterator[str]:
    try:
        content = read_datalist(datalist)
    except ValueError:
        return
    base = Path(base_dir) if base_dir is not None else Path(datalist).parent
    for section in SECTIONS:
        items = content.get(section)
        for item in items if isinstance(items, list) else []:
            image = item.get(Keys.IMAGE) if isinstance(item, Mapping) else None
            if isinstance(image, str) and image:
                yield str(base / image)
