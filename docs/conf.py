# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Configuration of Sphinx; build with ``make docs``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

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

html_theme = "furo"
html_title = f"monai_anomaly {release}"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]

# Docstrings write image axes as (B, C, *S), in which reStructuredText sees the start of an emphasis.
SPATIAL_AXES = re.compile(r"(?<![\\`*\w])\*(?=[A-Z](_[a-z])?\b)")


def escape_spatial_axes(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape the star of ``*S`` outside of literals."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith(".. "):
            parts = line.split("``")
            parts[::2] = [SPATIAL_AXES.sub(r"\\*", part) for part in parts[::2]]
            lines[number] = "``".join(parts)


def skip_tuple_fields(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the accessors of named tuples; the class's own docstring describes the fields."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", escape_spatial_axes, priority=400)  # before napoleon's 500
    app.connect("autodoc-skip-member", skip_tuple_fields)
