# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Make the pictures of synthetic anomalies: the strip of the README and the contact sheets of the guide.

The radiographs come from the embedded sample; photographs of the retina (IDRiD) and brains (Lesjak et al. 2017), which
do not ship with the package, from the folder given by ``--data``. Seeds count up from 0, but for the strip, where each
shows one anomaly that can be seen.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from monai_anomaly.cli.gallery import main as gallery_command
from monai_anomaly.data import sample_dir
from monai_anomaly.transforms import gallery
from monai_anomaly.transforms.gallery_page import planes

IMAGES = Path(__file__).resolve().parent / "images" / "synthetic"
RADIOGRAPH = Path(sample_dir()) / "images" / "kermany_0024.png"
STRIP = {
    "RandCutPaste": 0,
    "RandAnatPaste": 0,
    "RandNSA-cxr": 0,
    "RandPerlinTexture": 1,
    "RandPoissonBlend": 0,
    "RandSourceDeform": 0,
    "RandFractalIntensity": 0,
}
RETINA = ["CutPaste", "FPI", "NSA", "PerlinTexture", "PoissonBlend-other", "SourceDeform", "SmoothIntensity"]
BRAIN = ["FPI", "NSA", "CoarseNoise", "PoissonBlend", "SinkDeform", "SourceDeform", "SmoothIntensity"]


def strip(path: Path) -> None:
    """One column a corruption: what became of the radiograph, and below it the label."""
    (subject,) = gallery.load_subjects([str(RADIOGRAPH)])
    figure = Figure(figsize=(1.6 * (len(STRIP) + 1), 3.5), facecolor="white")
    grid = figure.subplots(2, len(STRIP) + 1)
    for axes in grid.flat:
        axes.set_axis_off()
    for column, (name, seed) in enumerate(STRIP.items(), 1):
        shown = planes(subject, gallery.make_row(subject, name, seed + 1).samples[seed])
        if column == 1:
            grid[0, 0].imshow(shown["clean"])
            grid[0, 0].set_title("healthy", fontsize=10)
        grid[0, column].imshow(shown["corrupted"])
        grid[0, column].set_title(name.removeprefix("Rand"), fontsize=10)
        grid[1, column].imshow(shown["label"])
    figure.subplots_adjust(left=0.003, right=0.997, top=0.92, bottom=0.003, wspace=0.03, hspace=0.03)
    figure.savefig(path, dpi=100, pil_kwargs={"quality": 85})


def sheet(name: str, *arguments: str) -> None:
    """A contact sheet of the gallery with two seeds."""
    with tempfile.TemporaryDirectory() as folder:
        page = str(Path(folder) / "gallery.html")
        status = gallery_command([*arguments, "--seeds", "2", "--output", page, "--figure", str(IMAGES / name)])
    if status:
        raise SystemExit(status)


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with brain and fundus; without it only the strip is made")
    options = parser.parse_args()
    strip(IMAGES / "strip.jpg")
    if options.data is None:
        return
    retina = [str(options.data / "fundus" / "images" / f"idrid_{name}.png") for name in ("test_041", "test_017")]
    brains = [str(options.data / "brain" / "volumes" / f"openms_patient{name}_t1_2mm.nii.gz") for name in ("07", "19")]
    radiographs = [str(path) for path in sorted(RADIOGRAPH.parent.glob("*.png"))[:8] if path != RADIOGRAPH]
    sheet("cxr.jpg", "--image", str(RADIOGRAPH), "--source", *radiographs, "--other", *retina[:1])
    chosen = [f"Rand{name}" for name in RETINA]
    common = ["--image", retina[0], "--source", retina[1], "--other", str(RADIOGRAPH), "--foreground", "not-black"]
    sheet("fundus.jpg", *common, "--corruptions", *chosen)
    chosen = [f"Rand{name}" for name in BRAIN]
    common = ["--image", brains[0], "--source", brains[1], "--foreground", "above-minimum"]
    sheet("brain.jpg", *common, "--corruptions", *chosen)


if __name__ == "__main__":
    main()
