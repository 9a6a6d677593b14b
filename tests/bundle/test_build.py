# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_anomaly.bundle import build
from monai_anomaly.bundle.build import build_bundle, bundle_files, create_bundle, recipe_names
from monai_anomaly.bundle.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_published_bundles_are_there() -> None:
    assert {"ae", "memae", "aeu", "d2ue_ae", "d2ue_memae", "d2ue_aeu"} <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_committed_bundle_is_what_the_recipe_gives(name: str) -> None:
    committed = REPOSITORY / "bundles" / name
    expected = bundle_files(name)
    for path, content in expected.items():
        text = (committed / path).read_text(encoding="utf-8")
        assert (text if isinstance(content, str) else json.loads(text)) == content, f"{path}: run make bundles"
    present = {str(path.relative_to(committed)) for path in committed.rglob("*") if path.is_file()}
    run_outputs = ("runs/", "eval/")
    extra = {path for path in present - set(expected) if not path.startswith(run_outputs)}
    assert extra <= {"models/.gitkeep", "models/model.pt", "models/training.json"}


@pytest.mark.parametrize("name", recipe_names())
def test_the_readme_names_each_setting_once_where_it_has_an_effect(name: str) -> None:
    readme = bundle_files(name)["docs/README.md"].partition("## Expected results")[0]
    settings = [line.split(" | ")[0] for line in readme.splitlines() if line.startswith("| `--")]
    assert len(settings) == len(set(settings))
    assert ("| `--feature_layer`" in settings) is name.startswith("d2ue"), "only repulsion reads it"
    assert ("$monai_anomaly.transforms.AboveMinimum()" in readme) is (
        name in ("dae", "restorer", "diffusion_restoration")
    )


def test_every_committed_bundle_has_a_recipe() -> None:
    assert sorted(path.name for path in (REPOSITORY / "bundles").iterdir() if path.is_dir()) == recipe_names()


def test_building_twice_gives_the_same_files_and_keeps_weights(tmp_path: Path) -> None:
    bundle = build_bundle("ae", tmp_path)
    (bundle / "models" / "model.pt").write_bytes(b"weights")
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    build_bundle("ae", tmp_path)
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


def test_create_does_not_overwrite_and_takes_weights(tmp_path: Path) -> None:
    weights = tmp_path / "trained.pt"
    weights.write_bytes(b"weights")
    bundle = create_bundle("memae", tmp_path / "new", weights)
    assert (bundle / "models" / "model.pt").read_bytes() == b"weights"
    with pytest.raises(ValueError, match="exists already"):
        create_bundle("memae", tmp_path / "new")


def test_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="d2ue_ae"):
        bundle_files("nothing")


def test_two_layers_must_not_define_the_same_key() -> None:
    content = {"a": {"b": 1}}
    build._merge(content, {"a": {"c": 2}}, "second")
    assert content == {"a": {"b": 1, "c": 2}}
    with pytest.raises(ValueError, match="third defines a::b"):
        build._merge(content, {"a": {"b": 3}}, "third")


def test_overlays_become_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = bundle_files("diffusion_restoration")
    overlay = json.loads((build._RECIPES / "layers" / "volumes.json").read_text())["overlays"]["volumes"]
    assert contents["configs/volumes.json"] == overlay and "--slice_axis" in contents["docs/README.md"]
    assert (
        "configs/volumes.json" not in bundle_files("ae") and "--slice_axis" not in bundle_files("ae")["docs/README.md"]
    )
    read = build._read_json

    def with_overlays(path: str) -> dict[str, Any]:
        return {**read(path), **({"overlays": overlays} if path == "ae.json" else {})}

    monkeypatch.setattr(build, "_read_json", with_overlays)
    overlays: dict[str, Any] = {"one": {"seed": 1}, "two": {"train#trainer#max_epochs": 2}}
    contents = bundle_files("ae")
    assert contents["configs/one.json"] == {"seed": 1} and contents["configs/two.json"] == overlays["two"]
    for taken in ("train", "metadata"):
        overlays = {taken: {"seed": 1}}
        with pytest.raises(ValueError, match=f"must not be named like the files of every bundle, got {taken}"):
            bundle_files("ae")


def test_settings_come_along_with_the_weights(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model.pt").write_bytes(b"weights")
    (tmp_path / "run/training.json").write_text('{"seed": 3}')
    bundle = create_bundle("ae", tmp_path, tmp_path / "run/model.pt")
    assert (bundle / "models/model.pt").read_bytes() == b"weights"
    assert json.loads((bundle / "models/training.json").read_text()) == {"seed": 3}


@pytest.mark.parametrize(
    "arguments", [["build", "nothing"], ["create", "ae"], ["create", "aeu", "--weights", "none.pt"]]
)
def test_wrong_use_is_one_line_and_a_status(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ae").mkdir()
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and "Traceback" not in printed.err and not printed.out
