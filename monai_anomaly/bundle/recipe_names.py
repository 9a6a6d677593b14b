# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from importlib.resources import files

RECIPES = files(__package__) / "recipes"


def recipe_names() -> list[str]:
    """Names of the bundles that can be built, sorted."""
    return sorted(entry.name.removesuffix(".json") for entry in RECIPES.iterdir() if entry.name.endswith(".json"))
