# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

#: Folder, beside this file, of each embedded sample.
SAMPLES = {"radiographs": "sample", "retina": "sample_retina"}


def sample_dir(name: str = "radiographs") -> str:
    """Return the folder of an embedded sample: ``datalist.json`` and ``images/``, with README and LICENSE.

    ``radiographs`` are 418 chest radiographs of children, healthy and with pneumonia (Kermany et al. 2018); ``retina``
    are 141 color photographs of retinas, healthy and with diabetic retinopathy, whose lesions experts have outlined
    (``masks/``; Porwal et al. 2018). Both are under CC BY 4.0. In the configuration of a bundle,
    ``--dataset_dir#name retina`` chooses the second.

    The package must be installed as files (a wheel or a checkout, not a zip archive), as pip does.

    Args:
        name: ``"radiographs"`` (default) or ``"retina"``.

    Raises:
        ValueError: when there is no such sample, or the installation lacks it.

    Example:
        >>> from pathlib import Path
        >>> from monai_anomaly.data import sample_dir
        >>> (Path(sample_dir()) / "datalist.json").is_file()
        True
        >>> len(list(Path(sample_dir("retina"), "masks").iterdir()))
        50
    """
    if name not in SAMPLES:
        raise ValueError(f"name of an embedded sample must be one of {list(SAMPLES)}, got {name!r}")
    folder = Path(str(files("monai_anomaly.data") / SAMPLES[name]))
    if not (folder / "datalist.json").is_file():
        raise ValueError(f"the embedded sample {name} is missing in {folder}: install monai_anomaly again with pip")
    return str(folder)
