# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from monai_anomaly.utils import check_output, workflows_in_use, write_json, write_text
from monai_anomaly.utils.output_folder import given_folders

OUT = "$os.path.join(@bundle_root, 'runs')"
WRITE = "monai_anomaly.utils.write_text"


def reason(error: BaseException | None) -> str:
    """Texts of an error and its causes: MONAI wraps ours."""
    return "" if error is None else f"{error}\n{reason(error.__cause__)}"


def run(folder: Path, component: Any, given: dict[str, Any] | None = None, **config: Any) -> Any:
    """Run a bundle of one component; ``given`` are options of the caller."""
    content = {"imports": ["$import os"], "bundle_root": ".", "output_dir": OUT, "run": [component], **config}
    path = folder / "bundle/configs/train.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    workflow = ConfigWorkflow(str(path), meta_file={}, logging_file=False, **given or {})
    workflow.initialize()
    return workflow.run()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def left(folder: Path) -> set[str]:
    """Files below a folder, but for the bundle's."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {
        "bundle/configs/train.json"
    }


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("torchvision/transforms.py", "is outside"),  # the current folder is where Python imports from first
        ("../x.txt", "is outside"),
        ("$@output_dir + '/../x.txt'", "is outside"),
        ("$os.path.join(@output_dir, '..', '..', 'x.txt')", "is outside"),
        ("$@output_dir + '2/x.txt'", "is outside"),
        ("$@output_dir + '/link/x.txt'", "is outside"),
        ("$@output_dir + '/sitecustomize.py'", "would be a program"),
        ("$@output_dir + '/x.SO'", "would be a program"),
        ("$@output_dir + '/all_folds.json'", "would be read as a configuration"),
        ("$@output_dir + '/bundles/ae/configs/train.json'", "would be read as a configuration"),
    ],
)
@pytest.mark.parametrize("writer", ["text", "json"])
def test_a_run_writes_into_its_output_folder_alone(writer: str, path: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "work/runs").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "work/runs/link").symlink_to(tmp_path / "other")
    component = {"_target_": f"monai_anomaly.utils.write_{writer}", "path": path}
    with pytest.raises(RuntimeError) as caught:
        run(tmp_path, component | {"text" if writer == "text" else "value": "text"})
    assert message in reason(caught.value) and not left(tmp_path)


def test_what_is_inside_is_written(tmp_path: Path) -> None:
    run(tmp_path, {"_target_": WRITE, "path": "$@output_dir + '/a/../b/x.txt'", "text": "text"})
    assert left(tmp_path) == {"work/runs/b/x.txt"}


def test_a_writer_called_in_an_expression_is_held_to_it_too(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        run(
            tmp_path,
            "$monai_anomaly.utils.write_text('x.txt', 'text')",
            imports=["$import os", "$import monai_anomaly"],
        )
    assert "is outside" in reason(caught.value) and not left(tmp_path)


@pytest.mark.parametrize(
    "component",
    [
        {"_target_": "monai_anomaly.handlers.TensorBoardCurves", "log_dir": "PLACE"},
        {"_target_": "monai_anomaly.handlers.AnomalyImagePanels", "log_dir": "PLACE"},
        {"_target_": "monai_anomaly.handlers.ScoresWriter", "output_dir": "PLACE"},
        {"_target_": "monai_anomaly.handlers.PseudoLabelWriter", "output_dir": "PLACE", "base_dir": "."},
        {"_target_": "monai_anomaly.handlers.TrainingCheckpoint", "save_dir": "PLACE", "network": 0, "optimizer": 0},
        {"_target_": "monai_anomaly.transforms.SaveImageMapd", "keys": "image", "output_dir": "PLACE"},
        {"_target_": "monai_anomaly.transforms.SaveRestorationd", "keys": "image", "output_dir": "PLACE"},
        {"_target_": "monai_anomaly.inferers.RestorationInferer", "cache_dir": "PLACE"},
        {"_target_": "monai_anomaly.data.DatalistAudit", "datalist": "d.json", "output_dir": "PLACE"},
        {"_target_": "monai_anomaly.data.make_phantom", "folder": "PLACE", "size": 16},
        {"_target_": "monai_anomaly.engines.FoldRuns", "output_dir": "PLACE", "num_folds": 1},
    ],
    ids=lambda component: component["_target_"].split(".")[-1],
)
def test_writers_refuse_another_folder_before_any_work(component: dict[str, Any], tmp_path: Path) -> None:
    place = str(tmp_path / "other")
    with pytest.raises(RuntimeError) as caught:
        run(tmp_path, {name: place if value == "PLACE" else value for name, value in component.items()})
    assert f"is outside {tmp_path / 'work/runs'}" in reason(caught.value) and not left(tmp_path)


@pytest.mark.parametrize("name", ["output_dir", "ckpt_dir", "audit_dir", "log_dir"])
def test_a_bundle_does_not_choose_a_folder_elsewhere_but_its_user_does(name: str, tmp_path: Path) -> None:
    text = "$'" + str(tmp_path) + "' + '/other'"
    component = {"_target_": WRITE, "path": f"$os.path.join(@{name}, 'x.txt')", "text": "text"}
    with pytest.raises(RuntimeError) as caught:
        run(tmp_path, component, **{name: text})
    told = reason(caught.value)
    assert "is outside" in told and f"--{name}" in told and not left(tmp_path)
    for place in (str(tmp_path / "given"), tmp_path / "as_path"):
        run(tmp_path, component, {name: place}, **{name: text})
    assert left(tmp_path) == {"given/x.txt", "as_path/x.txt"}


@pytest.mark.parametrize("how", ["reference", "component", "macro"])
def test_what_reading_rewrites_is_not_taken_for_the_users(how: str, tmp_path: Path) -> None:
    place = str(tmp_path / "other")
    write_json(tmp_path / "bundle/docs/text.json", {"place": place})
    said = {
        "reference": f"$'{place}' + @#empty",
        "component": {"_target_": "os.path.join", "a": place, "_mode_": "default"},
        "macro": f"%{tmp_path / 'bundle/docs/text.json'}::place",
    }
    component = {"_target_": WRITE, "path": f"{place}/x.txt", "text": "text"}
    with pytest.raises(RuntimeError) as caught:
        run(tmp_path, component, empty="", output_dir=said[how])
    assert "is outside" in reason(caught.value) and not (tmp_path / "other").exists()


def test_a_folder_with_a_hash_is_not_taken_for_the_users(tmp_path: Path) -> None:
    component = {"_target_": WRITE, "path": "$@output_dir + '/x.txt'", "text": "text"}
    with pytest.raises(RuntimeError) as caught:
        run(tmp_path, component, output_dir=str(tmp_path / "a#b"))  # MONAI reads it as a::b
    assert "is outside" in reason(caught.value) and not left(tmp_path)


def test_a_bundle_root_of_the_bundle_is_no_way_out(tmp_path: Path) -> None:
    component = {"_target_": WRITE, "path": "$@output_dir + '/x.txt'", "text": "text"}
    with pytest.raises(RuntimeError) as caught:
        run(tmp_path, component, bundle_root=str(tmp_path / "other"))
    assert "is outside the folder of the bundle" in reason(caught.value)
    run(tmp_path, component, {"bundle_root": str(tmp_path / "given")})
    run(tmp_path, component, {"bundle_root": str(tmp_path / "bundle")})
    assert left(tmp_path) == {"given/runs/x.txt", "bundle/runs/x.txt"}


def test_an_option_of_the_command_line_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    component = {"_target_": WRITE, "path": "$@output_dir + '/x.txt'", "text": "text"}
    monkeypatch.setattr("sys.argv", ["run", f"--output_dir={tmp_path / 'given'}"])
    run(tmp_path, component, output_dir=str(tmp_path / "given"))
    assert left(tmp_path) == {"given/x.txt"}


def test_a_run_within_a_run_stays_in_the_folders_of_both(tmp_path: Path) -> None:
    found: list[Any] = []

    def inner(folder: str) -> None:
        write = {"_target_": WRITE, "path": f"{folder}/x.txt", "text": "text"}
        run(tmp_path / "inner", write, {"output_dir": folder})
        found.extend(workflows_in_use())

    outer = str(tmp_path / "out")
    given: dict[str, Any] = {"output_dir": outer, "run": [{"_target_": inner, "folder": f"{outer}/step"}]}
    run(tmp_path, {}, given)
    assert (tmp_path / "out/step/x.txt").is_file()
    assert len(found) == 1 and given_folders(found[0]) == {"output_dir": outer}
    given["run"][0]["folder"] = str(tmp_path / "other")
    with pytest.raises(RuntimeError) as caught:
        run(tmp_path, {}, given)
    assert f"is outside {outer}" in reason(caught.value) and not (tmp_path / "other").exists()


def test_outside_a_run_there_is_no_limit(tmp_path: Path) -> None:
    assert workflows_in_use() == [] and check_output("x/../y.py") == Path("x/../y.py")
    write_text(tmp_path / "all_folds.json", "{}")
    assert (tmp_path / "all_folds.json").read_text() == "{}"
