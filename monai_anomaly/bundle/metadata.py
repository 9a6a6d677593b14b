# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..utils import write_json, write_text

SCHEMA_FILE = Path(__file__).parent / "schema" / "metadata.schema.json"

#: Texts a bundle of this package must carry beside the keys that MONAI's specification makes mandatory.
OWN_TEXTS = (
    "schema",
    "name",
    "intended_use",
    "data_source",
    "data_type",
    "image_classes",
    "label_classes",
    "pred_classes",
)
TENSOR_KEYS = (
    "type",
    "format",
    "modality",
    "num_channels",
    "spatial_shape",
    "dtype",
    "value_range",
    "is_patch_data",
    "channel_def",
)


def load_schema() -> dict[str, Any]:
    """The JSON schema (draft 7) of a bundle's ``metadata.json``, written from MONAI's bundle specification."""
    schema: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return schema


def copy_schema(path: str | os.PathLike[str]) -> None:
    """Write the schema to ``path``, where ``python -m monai.bundle verify_metadata --filepath PATH`` needs no download.

    Args:
        path: usually ``eval/schema.json`` in the bundle.
    """
    write_text(path, SCHEMA_FILE.read_text(encoding="utf-8"))


def schema_problems(metadata: Any) -> list[str]:
    """Say where ``metadata`` breaks the schema, one sentence a place; empty when it holds.

    Args:
        metadata: content of a ``metadata.json``.

    Raises:
        ImportError: when jsonschema, which MONAI's own check needs too, is not installed.
    """
    validator = _validator()
    errors = sorted(validator.iter_errors(metadata), key=lambda error: [str(part) for part in error.absolute_path])
    return [_describe(error) for error in errors]


def verify_metadata_offline(bundle_dir: str | os.PathLike[str]) -> None:
    """Run ``monai.bundle.verify_metadata`` on a bundle against the schema in this package, without a download.

    MONAI skips the download named by the metadata's ``schema`` when the target file exists already.

    Args:
        bundle_dir: folder of the bundle, with ``configs/metadata.json``.

    Raises:
        FileNotFoundError: when the bundle has no metadata.
        ValueError: when the metadata does not fit the schema; names the file and each place.
    """
    from monai.bundle import verify_metadata

    path = Path(bundle_dir) / "configs" / "metadata.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} not found: give the folder that holds configs/metadata.json")
    try:
        verify_metadata(meta_file=str(path), filepath=str(SCHEMA_FILE))
    except ValueError as error:
        problems = schema_problems(json.loads(path.read_text(encoding="utf-8"))) or [str(error)]
        raise ValueError(f"{path} does not fit the bundle specification: {'; '.join(problems)}") from error


def own_problems(metadata: Mapping[str, Any]) -> list[str]:
    """Say what ``metadata`` lacks as a bundle of this package, beyond MONAI's mandatory keys; empty when nothing.

    The Model Zoo's own checks need ``schema``, ``name`` and the current version in ``changelog``; the rest lets a
    reader judge what the model was trained on and may be used for.

    Args:
        metadata: content of a ``metadata.json``.
    """
    problems = [f"'{key}' must be a text that is not empty" for key in OWN_TEXTS if not _is_text(metadata.get(key))]
    version, changelog = metadata.get("version"), metadata.get("changelog")
    if not isinstance(changelog, Mapping) or version not in changelog:
        problems.append(f"'changelog' must hold the current version {version!r}: add what changed in it")
    if "not" not in str(metadata.get("intended_use", "")).lower().split():
        problems.append("'intended_use' must say what the model is not for, such as 'not for diagnostic purposes'")
    packages = metadata.get("required_packages_version")
    if not isinstance(packages, Mapping) or not {"monai_anomaly", "monai-anomaly"} & set(packages):
        problems.append("'required_packages_version' must name monai_anomaly, whose classes the configs use")
    for key, kind in (("eval_metrics", Mapping), ("references", list)):
        if not isinstance(metadata.get(key), kind):
            problems.append(f"'{key}' must be a {'list' if kind is list else 'dictionary'}")
    return problems + _tensor_problems(metadata.get("network_data_format"))


def _tensor_problems(data_format: Any) -> list[str]:
    """MONAI's verify_net_in_out reads ``inputs#image`` and ``outputs#pred``; the specification asks for nine keys.

    Its own example leaves ``modality`` out of an output.
    """
    problems = []
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        group = data_format.get(side) if isinstance(data_format, Mapping) else None
        tensor = group.get(name) if isinstance(group, Mapping) else None
        if not isinstance(tensor, Mapping):
            problems.append(f"'network_data_format#{side}#{name}' is missing")
            continue
        missing = [key for key in TENSOR_KEYS if key not in tensor and (side, key) != ("outputs", "modality")]
        if missing:
            problems.append(f"'network_data_format#{side}#{name}' lacks {', '.join(missing)}")
    return problems


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


@lru_cache(maxsize=1)
def _validator() -> Any:
    try:
        import jsonschema
    except ImportError as error:
        raise ImportError("checking metadata.json needs jsonschema: pip install jsonschema") from error
    schema = load_schema()
    return jsonschema.validators.validator_for(schema)(schema)


def _describe(error: Any) -> str:
    place = "#".join(str(part) for part in error.absolute_path) or "top level"
    if error.validator == "anyOf" and not error.absolute_path:
        names = [" and ".join(option.get("required", [])) for option in error.validator_value]
        return f"top level: needs {' or '.join(names)}"
    message = error.message if len(error.message) < 200 else error.message[:197] + "..."
    return f"{place}: {message}"


def fit_metadata(bundle: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
    """Let ``metadata.json`` of a bundle tell of the images that its weights take.

    Args:
        bundle: folder of the bundle; without such a file nothing happens.
        settings: of the training of the weights; ``in_channels`` and ``spatial_size`` of them are used.
    """
    path = Path(bundle) / "configs" / "metadata.json"
    if not path.is_file() or not {"in_channels", "spatial_size"} <= settings.keys():
        return
    metadata = json.loads(path.read_text(encoding="utf-8"))
    channels, size = settings["in_channels"], list(settings["spatial_size"])
    formats = metadata["network_data_format"]
    for tensor in [*formats["inputs"].values(), *formats["outputs"].values()]:
        tensor["spatial_shape"] = size
    for tensor in formats["inputs"].values():
        if tensor["num_channels"] != channels:
            names = ["image"] if channels == 1 else [f"channel {i}" for i in range(channels)]
            tensor |= {"num_channels": channels, "channel_def": {str(i): name for i, name in enumerate(names)}}
    write_json(path, metadata)
