# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def sample_dir() -> str:
    """Return the folder of the embedded sample: ``datalist.json`` and ``images/``, with README and LICENSE.

    The package must be installed as files (a wheel or a checkout, not a zip archive), as pip does.

    Raises:
        ValueError: when the installation lacks the sample.

    Example:
        >>> from pathlib import Path
        >>> from monai_anomaly.data import sample_dir
        >>> (Path(sample_dir()) / "datalist.json").is_file()
        True
    """
    folder = Path(str(files("monai_anomaly.data") / "sample"))
    if not (folder / "datalist.json").is_file():
        raise ValueError(f"the embedded sample is missing in {folder}: install monai_anomaly again with pip")
    return str(folder)
