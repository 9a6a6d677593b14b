# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .gallery import select_gallery
from .html_report import PANELS, render_report, write_report
from .overlay import colorize, mask_outline, overlay_heatmap, slice_of_largest_mass, to_gray, unit_range
from .plots import plot_histograms, plot_pr, plot_roc
from .thumbnails import encode_data_uri

__all__ = [
    "PANELS",
    "colorize",
    "encode_data_uri",
    "mask_outline",
    "overlay_heatmap",
    "plot_histograms",
    "plot_pr",
    "plot_roc",
    "render_report",
    "select_gallery",
    "slice_of_largest_mass",
    "to_gray",
    "unit_range",
    "write_report",
]
