# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_bundle import METADATA, write_bundle

from monai_anomaly.bundle.metadata import (
    SCHEMA_FILE,
    copy_schema,
    load_schema,
    own_problems,
    schema_problems,
    verify_metadata_offline,
)

REPOSITORY = Path(__file__).resolve().parents[2]
ZOO = Path(os.environ.get("MONAI_ANOMALY_DATA", REPOSITORY.parent / "shared" / "data")) / "zoo_metadata"
ZOO_FILES = sorted(ZOO.glob("*.json")) if ZOO.is_dir() else []
TEXTS = ("version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors", "copyright")
OLDER = {
    **{key: value for key, value in METADATA.items() if key not in ("schema", "required_packages_version", "name")},
    "optional_packages_version": {"nibabel": "3.2.1"},
}
Place = tuple[str, ...]


def test_the_schema_is_valid_itself() -> None:
    from jsonschema import Draft7Validator

    Draft7Validator.check_schema(load_schema())


@pytest.fixture(params=["embedded", "older", *(path.name for path in ZOO_FILES)])
def metadata(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each example in this file, and each of the Model Zoo's where they are at hand."""
    embedded = {"embedded": METADATA, "older": OLDER}
    if request.param in embedded:
        return copy.deepcopy(embedded[request.param])
    content: dict[str, Any] = json.loads((ZOO / request.param).read_text(encoding="utf-8"))
    return content


def test_all_zoo_files_are_there(shared_data: Path) -> None:
    if not (shared_data / "zoo_metadata").is_dir():
        pytest.skip(f"no zoo_metadata in {shared_data}")
    assert len(ZOO_FILES) == 31


def data_formats(metadata: dict[str, Any]) -> list[str]:
    """The networks a file must describe: ``network_data_format``, or the two of a latent generative model."""
    keys = [key for key in metadata if key.endswith("_data_format")]
    return ["network_data_format"] if "network_data_format" in keys else keys


def mandatory(metadata: dict[str, Any]) -> Iterator[Place]:
    """Places that the specification makes mandatory and all published bundles have, found without the schema."""
    yield from ((key,) for key in TEXTS)
    newer = "meta_schema_2024072" in metadata.get("schema", "")
    yield ("required_packages_version" if newer else "optional_packages_version",)
    for network in data_formats(metadata):
        yield (network,)
        for side in ("inputs", "outputs"):
            yield (network, side)
            for name, tensor in metadata[network][side].items():
                keys: tuple[str, ...] = ("type", "value_range")
                if tensor["type"] != "array":
                    keys += ("format", "num_channels", "spatial_shape", "dtype")
                    keys += ("is_patch_data",) if side == "inputs" else ()
                yield from ((network, side, name, key) for key in keys)


def without(metadata: dict[str, Any], place: Place) -> dict[str, Any]:
    changed = copy.deepcopy(metadata)
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    del parent[place[-1]]
    return changed


def replaced(metadata: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(metadata)
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    return changed


def wrong_values(value: Any) -> list[Any]:
    """Values of every JSON type that the field does not have."""
    kinds = ["text", 7, 0.5, True, None, ["a", {}], {"a": []}]
    same = {str: str, bool: bool, int: int, list: list, dict: dict}[type(value)]
    return [kind for kind in kinds if type(kind) is not same]


def test_an_honest_file_is_accepted(metadata: dict[str, Any]) -> None:
    assert schema_problems(metadata) == []


def test_a_file_without_a_mandatory_field_is_rejected(metadata: dict[str, Any]) -> None:
    places = list(mandatory(metadata))
    assert len(places) > len(TEXTS) + 8
    accepted = [place for place in places if not schema_problems(without(metadata, place))]
    assert accepted == []


def test_a_file_with_a_mandatory_field_of_the_wrong_type_is_rejected(metadata: dict[str, Any]) -> None:
    accepted = []
    for place in mandatory(metadata):
        value: Any = metadata
        for key in place:
            value = value[key]
        accepted += [
            (place, wrong) for wrong in wrong_values(value) if not schema_problems(replaced(metadata, place, wrong))
        ]
    assert accepted == []


@pytest.mark.parametrize("network", data_formats(METADATA))
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_no_tensors_are_rejected(network: str, side: str) -> None:
    assert schema_problems(replaced(METADATA, (network, side), {}))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("changelog",), {"0.1.0": 1}),
        (("references",), "one text"),
        (("eval_metrics",), []),
        (("intended_use",), 3),
        (("name",), ""),
        (("version",), "first"),
        (("required_packages_version",), {"nibabel": 3}),
        (("network_data_format", "inputs", "image", "modality"), 1),
        (("network_data_format", "inputs", "image", "num_channels"), -1),
        (("network_data_format", "inputs", "image", "spatial_shape"), [64, 64.5]),
        (("network_data_format", "inputs", "image", "spatial_shape"), [64, "import os;"]),
        (("network_data_format", "inputs", "image", "value_range"), ["low", "high"]),
        (("network_data_format", "inputs", "image", "channel_def"), {"first": "image"}),
        (("network_data_format", "outputs", "pred", "channel_def"), {"0": 1}),
        (("network_data_format", "outputs", "pred", "is_patch_data"), "no"),
        (("network_data_format", "post_processed_outputs"), {"pred": {"type": "image"}}),
        (("teacher_data_format",), {"inputs": {}}),
    ],
)
def test_an_optional_field_of_the_wrong_type_is_rejected(place: Place, value: Any) -> None:
    assert schema_problems(replaced(METADATA, place, value))


def test_free_keys_are_accepted() -> None:
    assert schema_problems({**METADATA, "our_own_key": {"anything": [1]}}) == []


def test_problems_name_the_place() -> None:
    problems = schema_problems(replaced(METADATA, ("network_data_format", "inputs", "image", "dtype"), 32))
    assert len(problems) == 1
    assert problems[0].startswith("network_data_format#inputs#image#dtype: 32")


def test_missing_package_versions_are_named() -> None:
    (problem,) = schema_problems(without(OLDER, ("optional_packages_version",)))
    assert "required_packages_version or optional_packages_version" in problem


def test_monai_verifies_a_bundle_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("monai.apps.utils.urlretrieve", refuse)
    monkeypatch.setattr("monai.apps.utils._download_with_progress", refuse)
    bundle = write_bundle(tmp_path)
    verify_metadata_offline(bundle)
    (bundle / "configs" / "metadata.json").write_text(json.dumps(without(METADATA, ("task",))))
    with pytest.raises(ValueError, match=r"metadata\.json does not fit.*'task' is a required property"):
        verify_metadata_offline(bundle)


def test_monai_verifies_with_a_copied_schema(tmp_path: Path) -> None:
    from monai.bundle import verify_metadata

    bundle = write_bundle(tmp_path)
    copy_schema(bundle / "eval" / "schema.json")
    meta_file = str(bundle / "configs" / "metadata.json")
    verify_metadata(meta_file=meta_file, filepath=str(bundle / "eval" / "schema.json"))
    assert (bundle / "eval" / "schema.json").read_text() == SCHEMA_FILE.read_text()
    (bundle / "configs" / "metadata.json").write_text(json.dumps(without(METADATA, ("authors",))))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=meta_file, filepath=str(bundle / "eval" / "schema.json"))


def test_a_folder_without_metadata_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"metadata\.json not found: give the folder"):
        verify_metadata_offline(tmp_path)


def test_our_own_metadata_is_complete() -> None:
    assert own_problems(METADATA) == []


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("changelog",), {"0.0.9": "older"}, "current version '0.1.0'"),
        (("intended_use",), "for everything", "not for diagnostic"),
        (("required_packages_version",), {"nibabel": "5.0"}, "must name monai_anomaly"),
        (("name",), " ", "'name' must be a text"),
        (("schema",), None, "'schema' must be a text"),
        (("data_source",), "", "'data_source' must be a text"),
        (("references",), "a paper", "'references' must be a list"),
        (("eval_metrics",), 1, "'eval_metrics' must be a dictionary"),
        (("network_data_format", "outputs"), {"map": {}}, "'network_data_format#outputs#pred' is missing"),
        (("network_data_format", "inputs", "image"), {"type": "image"}, "lacks format, modality"),
    ],
)
def test_our_own_metadata_says_more(place: Place, value: Any, message: str) -> None:
    problems = own_problems(replaced(METADATA, place, value))
    assert len(problems) == 1
    assert message in problems[0]
