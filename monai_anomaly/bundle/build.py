# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Complete bundle folders from thin recipes.

A recipe names its layers (shared wiring, single network or ensemble, kind of network, ...) and adds what is special
about one method. Layers and recipe are merged key by key; a key that two of them define is an error, so every setting
has one home. ``network_settings`` names the settings that shape the network: a training records them with the weights,
and whatever loads these takes them from there; ``part_settings`` names those of a part that an overlay trains later,
which that training records. What comes out is an ordinary MONAI bundle that runs wherever
``monai_anomaly`` is installed.

Beside the sections of the files that every bundle has, ``overlays`` may hold more of them by name: each becomes a file
``configs/<name>.json``, to be given after ``train.json`` or ``inference.json`` in ``--config_file``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..utils import read_settings, write_json, write_text
from .metadata import fit_metadata
from .network_settings import follow_weights
from .recipe_names import RECIPES as _RECIPES
from .recipe_names import recipe_names

_CONFIGS = {  # config file: the sections it is merged from
    "train": ("common", "train"),
    "inference": ("common", "inference"),
    "evaluate": ("evaluate",),
    "multi_gpu_train": ("multi_gpu_train",),
}
_COPIED = {"LICENSE": "LICENSE", "logging.conf": "configs/logging.conf"}


def bundle_files(name: str) -> dict[str, Any]:
    """Content of every generated file of a bundle: JSON values or text, by path inside the bundle.

    Args:
        name: one of :func:`recipe_names`.

    Raises:
        ValueError: when there is no such recipe, two layers define the same key, or an overlay has the name of a file
            that every bundle has.
    """
    if name not in recipe_names():
        raise ValueError(f"name must be one of {recipe_names()}, got {name!r}.")
    recipe = _read_json(f"{name}.json")
    sections: dict[str, Any] = {}
    for layer in recipe.pop("layers"):
        _merge(sections, _read_json(f"layers/{layer}.json"), layer)
    _merge(sections, recipe, name)
    contents: dict[str, Any] = {"configs/metadata.json": {"name": name} | sections["metadata"]}
    network = sections.get("network_settings", {})
    _merge(sections["train"], {"settings": network}, "network_settings")
    for config, parts in _CONFIGS.items():
        merged: dict[str, Any] = {}
        for part in parts:
            _merge(merged, sections[part], part)
        contents[f"configs/{config}.json"] = merged
    contents |= _overlays(sections)
    followed = [*network, *sections.get("part_settings", {})]
    follow_weights({path: content for path, content in contents.items() if isinstance(content, dict)}, followed)
    for source, target in _COPIED.items():
        contents[target] = (_RECIPES / "files" / source).read_text(encoding="utf-8")
    contents["docs/README.md"] = _render_readme(name, sections)
    contents["docs/data_license.txt"] = (_RECIPES / "files" / "data_license.txt").read_text(encoding="utf-8")
    return contents


def build_bundle(name: str, output_dir: str | Path) -> Path:
    """Write the bundle ``name`` into ``output_dir/name``; weights and other files that stand there are left alone.

    Args:
        name: one of :func:`recipe_names`.
        output_dir: parent folder of the bundle.

    Returns:
        The bundle's folder.
    """
    bundle = Path(output_dir) / name
    for path, content in bundle_files(name).items():
        (write_text if isinstance(content, str) else write_json)(bundle / path, content)
    (bundle / "models").mkdir(exist_ok=True)
    (bundle / "models" / ".gitkeep").touch()
    return bundle


def create_bundle(name: str, output_dir: str | Path, weights: str | Path | None = None) -> Path:
    """Make a new bundle of your own from a recipe.

    Args:
        name: one of :func:`recipe_names`.
        output_dir: parent folder; must not hold a bundle of this name yet.
        weights: trained weights to put into ``models/model.pt``; their settings come along, into
            ``training.json`` and, where they say how an image must be, ``metadata.json``. A
            folder with ``fold_K/models``, as the trainings of an ensemble's members leave it, is packed into one file.

    Raises:
        ValueError: when the folder exists already, so that nobody's changes are overwritten, or there are no weights.
    """
    bundle = Path(output_dir) / name
    if bundle.exists():
        raise ValueError(f"{bundle} exists already: choose another output folder or move it away.")
    if weights is not None and not Path(weights).exists():
        raise ValueError(f"weights {weights} do not exist: give a model.pt that a training wrote.")
    packed = weights is not None and Path(weights).is_dir()
    if weights is not None and packed:  # first: where this fails there is no bundle
        from .pack import pack_weights

        remedy = "create the bundle without --weights, put these into its configs, and use pack"
        pack_weights(bundle_files(name)["configs/inference.json"], weights, bundle / "models", None, remedy)
    build_bundle(name, output_dir)
    if weights is not None and not packed:
        shutil.copyfile(weights, bundle / "models" / "model.pt")
        if settings := read_settings(weights):
            write_json(bundle / "models" / "training.json", settings)
    fit_metadata(bundle, read_settings(bundle / "models" / "model.pt"))
    return bundle


def _read_json(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((_RECIPES / path).read_text(encoding="utf-8"))
    return content


def _merge(into: dict[str, Any], new: dict[str, Any], origin: str, path: str = "") -> None:
    """Add ``new`` to ``into`` in place; dictionaries are joined, anything else may be defined once only."""
    for key, value in new.items():
        if key not in into:
            into[key] = json.loads(json.dumps(value))
        elif isinstance(into[key], dict) and isinstance(value, dict):
            _merge(into[key], value, origin, f"{path}{key}::")
        else:
            raise ValueError(
                f"{origin} defines {path}{key}, which another layer has defined already: give it one home."
            )


def _overlays(sections: dict[str, Any]) -> dict[str, Any]:
    """Files of the section ``overlays``."""
    taken = sorted({*_CONFIGS, "metadata"} & sections.get("overlays", {}).keys())
    if taken:
        raise ValueError(f"overlays must not be named like the files of every bundle, got {', '.join(taken)}.")
    return {f"configs/{overlay}.json": content for overlay, content in sections.get("overlays", {}).items()}


def _render_readme(name: str, sections: dict[str, Any]) -> str:
    template = (_RECIPES / "files" / "README.md.j2").read_text(encoding="utf-8")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    results = _read_json("files/results.json")
    train, overlays = sections["common"] | sections["train"], sections.get("overlays", {})
    return environment.from_string(template).render(
        name=name,
        results=results.get(name),
        evaluate=sections["evaluate"],
        overlays=overlays,
        **sections["readme"],
        train=train,
        defaults={key: value for overlay in overlays.values() for key, value in overlay.items()} | train,
    )
