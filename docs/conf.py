# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Configuration of Sphinx; build with ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from monai_anomaly import __version__  # noqa: E402 - after the path is set

project = "monai_anomaly"
author = "monai_anomaly contributors"
project_copyright = author
release = version = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_parser",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# A folder's page documents what its __init__ exports, so each name has the path that configurations use.
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_member_order = "alphabetical"
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# The results pages are collected by a glob, and a checkout may have none yet.
suppress_warnings = ["toc.empty_glob"]

html_theme = "furo"
html_title = f"monai_anomaly {release}"
html_show_sphinx = False
