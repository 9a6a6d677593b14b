# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Rules about ids: every reference leads somewhere, and the ids that other programs read are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .config_tree import MISSING, absolute_id, look_up, overlay, split, split_file, walk
from .expressions import is_import, references
from .finding import WARNING, Finding

TRAIN, INFERENCE = "configs/train.json", "configs/inference.json"
#: Configs that override others, and in which order; those of other names: :func:`bases_of`.
OVERLAYS = {
    "configs/evaluate.json": ("configs/train.json",),
    "configs/multi_gpu_train.json": ("configs/train.json",),
    "configs/multi_gpu_evaluate.json": ("configs/train.json", "configs/evaluate.json"),
    "configs/all_folds.json": ("configs/train.json",),
    "configs/pipeline.json": ("configs/train.json", "configs/evaluate.json", "configs/all_folds.json"),
}
#: Ids that consuming programs read beside MONAI's required properties, and who reads them.
APP_IDS = {
    "configs/train.json": {
        "imports": "the Model Zoo's tests",
        "initialize": "monai.bundle run",
        "run": "monai.bundle run",
        "output_dir": "MONAI's experiment tracking",
        "network_def": "monai.bundle.load",
        "network": "NVFlare",
        "val_interval": "MONAI's ValidationHandler",
        "train#dataset#data": "MONAI Label",
        "train#handlers": "MONAI Label",
        "train#preprocessing": "MONAI's properties",
        "train#dataloader": "multi_gpu_train.json",
        "validate#dataset#data": "MONAI Label",
        "validate#handlers": "NVFlare",
        "validate#evaluator": "NVFlare",
    },
    "configs/inference.json": {
        "initialize": "monai.bundle run",
        "run": "monai.bundle run",
        "output_dir": "MONAI's experiment tracking",
        "network": "MONAI Deploy",
        "preprocessing": "MONAI Label and MONAI Deploy",
        "postprocessing": "MONAI Label and MONAI Deploy",
    },
    "configs/evaluate.json": {"run": "monai.bundle run", "validate#handlers": "the Model Zoo's evaluation"},
    "configs/multi_gpu_train.json": {"device": "MONAI Label", "initialize": "monai.bundle run"},
}
_KINDS = {TRAIN: "TrainProperties", INFERENCE: "InferProperties"}


def lint_ids(configs: Mapping[str, Any], metadata: Any) -> Iterator[Finding]:
    """Apply every rule about ids.

    Args:
        configs: content of each config that is a dictionary, by its path in the bundle, without the metadata.
        metadata: content of ``metadata.json``, which configs see as ``_meta_``.
    """
    for file, config in configs.items():
        for bases in bases_of(file, configs):
            merged, homeless = complete(file, configs, bases)
            for key in homeless:
                yield Finding(
                    "overlay", file, key, "it replaces an id that does not exist", "name an id of the base config"
                )
            merged["_meta_"] = metadata
            yield from _lint_references(file, config, merged)
        if file in _KINDS:
            yield from _lint_properties(file, complete(file, configs)[0], _KINDS[file])
        for identifier, reader in APP_IDS.get(file, {}).items():
            if look_up(_flat(config), identifier) is MISSING:
                yield Finding("app-id", file, identifier, f"missing, and {reader} reads it", "define it")
    if "configs/train.json" in configs:
        yield from _lint_checkpoint(configs["configs/train.json"])


def required_ids(file: str) -> dict[str, str]:
    """MONAI's required property ids of ``configs/train.json`` or ``configs/inference.json``, with their use."""
    return {
        str(entry["id"]): str(entry["description"]) for entry in _properties(_KINDS[file]).values() if entry["required"]
    }


def bases_of(file: str, configs: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What a config may be laid over: each entry names the configs that are read before it.

    A config without ``bundle_root``, which MONAI demands of every workflow, is an overlay by whatever name: over those
    of ``train.json`` and ``inference.json`` in which all its ids have a place, such as ``--config_file
    "['configs/inference.json','configs/volumes.json']"``.

    Args:
        file: path of the config in the bundle, a key of ``configs``.
        configs: content of each config.
    """
    if file in OVERLAYS:
        return [OVERLAYS[file]]
    if file in _KINDS or "bundle_root" in configs[file]:
        return [()]
    single: list[tuple[str, ...]] = [(base,) for base in (TRAIN, INFERENCE) if base in configs]
    return [bases for bases in single if not complete(file, configs, bases)[1]] or single[:1] or [()]


def complete(
    file: str, configs: Mapping[str, Any], bases: tuple[str, ...] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """A config laid over those it overrides, and those of its keys that name no place in them.

    Args:
        file: path of the config in the bundle, a key of ``configs``.
        configs: content of each config.
        bases: what it is laid over; default is the first entry of :func:`bases_of`.
    """
    under = bases_of(file, configs)[0] if bases is None else bases
    merged, _ = overlay({}, *(configs[base] for base in under if base in configs))
    return overlay(merged, configs[file])


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """A config with its ``a#b`` keys put in place; in an overlay alone, parents may be missing and are made."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        parent = flat
        *parents, last = split(key.lstrip("+"))
        for part in parents:
            child = parent.setdefault(part, {})
            parent = child if isinstance(child, dict) else parent
        parent[last] = value
    return flat


def _lint_references(file: str, config: dict[str, Any], merged: dict[str, Any]) -> Iterator[Finding]:
    for path, value in walk(config):
        if not isinstance(value, str) or (value.startswith("$") and is_import(value)):
            continue
        for reference in references(value):
            target = absolute_id(reference, path.lstrip("+"))
            yield from _lint_module(file, path, target)
            if target is None or (target and look_up(merged, target) is MISSING):
                yield Finding(
                    "reference", file, path, f"'@{reference}' leads nowhere", "define the id or mend the name"
                )
        if value.startswith("%"):
            yield from _lint_macro_id(file, path, value, merged)
        elif value.startswith("@") and not references(value):
            message = f"{value!r} looks like a reference but stays a text"
            remedy = "write an expression, such as \"$@output_dir + '/x'\""
            yield Finding("reference-text", file, path, message, remedy, WARNING)


def _lint_module(file: str, path: str, target: str | None) -> Iterator[Finding]:
    """What ``imports`` holds are modules, with all that is in them; an empty id is the whole config."""
    if target is not None and (not target or "imports" in split(target)):
        message = f"a reference to {target or 'everything'!r} hands out modules"
        yield Finding("import", file, path, message, "call what the grammar allows by its full name")


def _lint_macro_id(file: str, path: str, value: str, merged: dict[str, Any]) -> Iterator[Finding]:
    read, identifier = split_file(value[1:])
    if read is not None:  # a file: the rule 'macro' looks after it
        yield from _lint_module(file, path, identifier) if identifier else ()
        return
    target = absolute_id(value[1:], path.lstrip("+"))
    yield from _lint_module(file, path, target)
    if target is None or look_up(merged, target) is MISSING:
        yield Finding("reference", file, path, f"{value!r} leads nowhere", "define the id or mend the name")


def _properties(kind: str) -> dict[str, dict[str, Any]]:
    """MONAI's table with plain string keys."""
    from monai.bundle import properties

    table: dict[str, dict[Any, Any]] = getattr(properties, kind)
    return {
        name: {str(getattr(key, "value", key)): value for key, value in entry.items()} for name, entry in table.items()
    }


def _lint_properties(file: str, config: dict[str, Any], kind: str) -> Iterator[Finding]:
    """MONAI raises KeyError for a missing required property at run time; an optional one must use its own id."""
    for name, entry in _properties(kind).items():
        identifier = str(entry["id"])
        if entry["required"] and look_up(config, identifier) is MISSING:
            message = f"the required property '{name}' is missing"
            yield Finding("property", file, identifier.replace("::", "#"), message, "define this id")
        reference_id = entry.get("refer_id")
        if entry["required"] or reference_id is None:
            continue
        found = look_up(config, str(reference_id))
        if isinstance(found, str) and found.startswith("@") and split(found[1:]) != split(identifier):
            shown = str(reference_id).replace("::", "#")
            message = f"'{shown}' refers to {found!r}, while MONAI knows '{name}' as '{identifier.replace('::', '#')}'"
            yield Finding("property", file, shown, message, "use MONAI's id")


def _lint_checkpoint(train: dict[str, Any]) -> Iterator[Finding]:
    """NVFlare and MONAI's evaluate configs load a checkpoint's ``model``."""
    for path, value in walk(train):
        if isinstance(value, dict) and str(value.get("_target_", "")).endswith(".CheckpointSaver"):
            saved = value.get("save_dict")
            if isinstance(saved, dict) and "model" not in saved:
                message = f"save_dict holds {', '.join(map(str, saved))}, not 'model'"
                yield Finding("checkpoint", "configs/train.json", path, message, "save the network as 'model'")
