# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The gallery of synthetic anomalies; what it needs is imported only when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

# as in monai_anomaly.transforms.gallery
FOREGROUNDS = ("none", "above-minimum", "not-black", "lungs")
CORRUPTIONS = (
    "RandCutPaste",
    "RandCutPasteScar",
    "RandAnatPaste",
    "RandFPI",
    "RandPII",
    "RandNSA",
    "RandNSA-mixed",
    "RandNSA-cxr",
    "RandPerlinTexture",
    "RandPerlinTexture-other",
    "RandCoarseNoise",
    "RandPoissonBlend",
    "RandPoissonBlend-other",
    "RandSinkDeform",
    "RandSourceDeform",
    "RandSmoothIntensity",
    "RandFractalIntensity",
)


def main(arguments: Sequence[str] | None = None, prog: str = "python -m monai_anomaly.transforms.gallery") -> int:
    """Write the gallery and return the exit status: 0, or 2 when the input is wrong.

    Args:
        arguments: the command line without the program's name; default is the process's own.
        prog: what the program is called in its help.
    """
    options = _parser(prog).parse_args(arguments)
    from ..transforms.gallery import write_gallery
    from ..utils.failures import run_command

    return run_command(lambda: write_gallery(options))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Show every synthetic anomaly on your images, as one HTML file that needs nothing else.",
    )
    add = parser.add_argument
    add("--image", nargs="+", required=True, metavar="PATH", help="images: PNG, JPEG, TIFF, NIfTI or DICOM")
    add(
        "--source",
        nargs="+",
        default=[],
        metavar="PATH",
        help="images to paste from (default: the other images, else the image itself, mirrored)",
    )
    add("--other", nargs="+", default=[], metavar="PATH", help="images of another data set to paste from")
    add(
        "--foreground",
        nargs="+",
        default=["none"],
        metavar="MASK",
        help=f"where anomalies may be: one of {', '.join(FOREGROUNDS)}, or one mask file an image (default: none)",
    )
    add("--corruptions", nargs="+", metavar="NAME", help=f"which to show (default all): {', '.join(CORRUPTIONS)}")
    add("--seeds", type=int, default=3, help="examples of each, seeds 0, 1, ... (default 3)")
    add(
        "--spatial_size",
        nargs="+",
        type=int,
        metavar="N",
        help="resize to this: one number for the longest side, or one an axis (default: keep, at most 256, 3D 96)",
    )
    add("--output", type=Path, default=Path("gallery.html"), help="the page (default gallery.html)")
    add("--figure", type=Path, help="a contact sheet to write too, .png, .jpg or .pdf")
    return parser
