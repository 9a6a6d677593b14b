# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_anomaly.bundle.build import build_bundle
from monai_anomaly.engines import BundleSteps
from monai_anomaly.engines.bundle_steps import check_settings
from monai_anomaly.utils import write_json


def test_steps_of_another_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("monai_anomaly.engines.bundle_steps.run_steps", lambda job, _: given.append(job))
    steps = {
        "training": {"configs": ["train"], "results": ["models/model.pt"]},
        "evaluation": {"configs": ["train", "evaluate"], "results": [str(tmp_path / "elsewhere.csv")]},
    }
    # None leaves what the configuration files say
    steps["training"]["settings"] = {"seed": 4, "max_epochs": 2, "batch_size": None}
    uses = [tmp_path / "weights.pt", None]
    BundleSteps("ae", tmp_path / "before", steps, {"seed": 3, "datalist": "d.json"}, uses).run()
    folder = tmp_path / "before"
    (job,) = given
    first, second = job["steps"]
    root = folder / "bundles" / "ae"
    assert (root / "configs" / "train.json").is_file() and job["folder"] == folder
    assert first["overrides"] == {
        "seed": 4,
        "max_epochs": 2,
        "datalist": "d.json",
        "bundle_root": str(root),
        "output_dir": str(folder / "training"),
    }
    assert second["overrides"]["seed"] == 3 and second["overrides"]["output_dir"] == str(folder / "evaluation")
    assert second["configs"] == [str(root / "configs" / f"{name}.json") for name in ("train", "evaluate")]
    assert first["results"] == [str(folder / "training/models/model.pt")]
    assert second["results"] == [str(tmp_path / "elsewhere.csv")]
    assert first["uses"] == second["uses"] == [str(tmp_path / "weights.pt")]


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="the steps of ae are for one process: leave out torchrun"):
        BundleSteps("ae", tmp_path, {}, {}).run()
    assert not list(tmp_path.iterdir())


@pytest.fixture
def quick_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle is made in this process, which has imported everything already."""
    run = "monai_anomaly.engines.bundle_steps.subprocess.run"
    monkeypatch.setattr(run, lambda command, **_: build_bundle(command[4], command[-1]))


def reason(error: BaseException | None) -> str:
    """Texts of an error and its causes: MONAI wraps ours."""
    return "" if error is None else f"{error}\n{reason(error.__cause__)}"


def bundle(folder: Path, **steps: Any) -> ConfigWorkflow:
    """A bundle whose run takes steps of ``ae``."""
    config = {
        "output_dir": str(folder / "out"),
        "mark": str(folder / "ran"),
        "steps": {
            "_target_": "monai_anomaly.engines.BundleSteps",
            "bundle": "ae",
            "output_dir": "@output_dir",
            "steps": {"training": {"configs": ["train"]}},
            "settings": {"datalist": str(folder / "datalist.json")},
        }
        | steps,
        "run": ["$@steps.run()"],
    }
    write_json(folder / "configs/train.json", config)
    write_json(folder / "datalist.json", {"training": []})
    workflow = ConfigWorkflow(str(folder / "configs/train.json"), meta_file={}, output_dir=config["output_dir"])
    workflow.initialize()
    return workflow


CODE = '__import__("pathlib").Path("MARK").touch()'


@pytest.mark.parametrize("own", [True, False], ids=["of a step", "of all steps"])
def test_a_text_put_together_at_run_time_is_not_evaluated_by_a_step(own: bool, tmp_path: Path) -> None:
    setting = {"seed": "$'$' + 'CODE'".replace("CODE", CODE.replace("MARK", str(tmp_path / "ran")))}
    changed = {"steps": {"training": {"configs": ["train"], "settings": setting}}} if own else {"settings": setting}
    with pytest.raises(RuntimeError) as caught:
        bundle(tmp_path, **changed).run()
    assert not (tmp_path / "ran").exists(), "code ran"
    assert "setting seed of a step must be plain data" in reason(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        {"seed": ["a", ["$b"]]},
        {"seed": ("$b",)},
        {"run": ["$b"]},
        {"seed": "%run.json"},
        {"seed": "@imports"},
        {"load_image": {"_target_": "builtins.print"}},
        {"load_image": [{"_target_": "builtins.print"}]},
        {"load_image": {}},
        {"load_image#_target_": "builtins.print"},
        {"load_image::keys": "image"},
        {"+run": "text"},
        {"_meta_": None, "": 1},
        {3: 1},
        {"seed": print},
    ],
    ids=str,
)
def test_settings_that_are_not_plain_data_are_refused(setting: dict[Any, Any], tmp_path: Path) -> None:
    step = {"configs": ["train"]}
    for arguments in (({"one": step}, setting), ({"one": step | {"settings": setting}}, {})):
        with pytest.raises(ValueError, match=r"of a step must be|of steps of a bundle must be plain names"):
            BundleSteps("ae", tmp_path, *arguments)


@pytest.mark.parametrize(
    "changed",
    [
        {"bundle": "../ae"},
        {"bundle": "--output-dir=elsewhere"},
        {"steps": {"training": {"configs": ["../../evil"]}}},
        {"steps": {"training": {"configs": "train"}}},
        {"steps": {"../training": {"configs": ["train"]}}},
    ],
    ids=str,
)
def test_names_do_not_lead_out_of_the_bundle(changed: dict[str, Any], tmp_path: Path) -> None:
    arguments = {"bundle": "ae", "output_dir": tmp_path, "steps": {}, "settings": {}} | changed
    with pytest.raises(ValueError, match="must be plain names"):
        BundleSteps(**arguments)


def test_steps_write_into_the_output_folder_of_the_bundle_that_takes_them(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        bundle(tmp_path, output_dir="$@output_dir + '/../elsewhere'").run()
    assert f"elsewhere is outside {tmp_path / 'out'}" in reason(caught.value)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.usefixtures("quick_build")
def test_only_what_the_recipe_has_made_is_run(tmp_path: Path) -> None:
    planted = tmp_path / "bundles/ae/configs/evil.json"
    write_json(planted, {"run": [f"$__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"]})
    (tmp_path / "datalist.json").write_text("{}")
    settings = {"datalist": str(tmp_path / "datalist.json")}
    with pytest.raises(FileNotFoundError):
        BundleSteps("ae", tmp_path, {"one": {"configs": ["train", "evil"]}}, settings).run()
    assert not planted.exists() and not (tmp_path / "ran").exists()
    assert (tmp_path / "bundles/ae/configs/train.json").is_file()


@pytest.mark.usefixtures("quick_build")
@pytest.mark.parametrize("name", ["logging_file", "meta_file", "properties_path", "workflow_type", "no_such_setting"])
def test_an_argument_of_the_workflow_is_no_setting(name: str, tmp_path: Path) -> None:
    for file in ("log.conf", "datalist.json"):
        (tmp_path / file).write_text("{}")
    settings = {"datalist": str(tmp_path / "datalist.json"), name: str(tmp_path / "log.conf")}
    steps = BundleSteps("ae", tmp_path, {"one": {"configs": ["train"]}}, settings)
    with pytest.raises(ValueError, match=f"{name} of a step is no setting of .*train.json: leave it out"):
        steps.run()


def test_plain_settings_are_taken() -> None:
    check_settings({"seed": 0, "size": [64, (64.0, None)], "path": "./$x", "device": torch.device("cpu"), "on": True})


@pytest.mark.usefixtures("quick_build")
def test_the_device_of_a_bundle_is_that_of_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr("monai.bundle.ConfigWorkflow.run", lambda self: found.append(self.device))
    (tmp_path / "datalist.json").write_text("{}")
    settings = {"datalist": str(tmp_path / "datalist.json"), "device": torch.device("cpu", 0)}
    BundleSteps("ae", tmp_path, {"one": {"configs": ["train"]}}, settings).run()
    assert found == [torch.device("cpu", 0)]
    assert list(json.loads((tmp_path / "job.json").read_text())) == [str(tmp_path / "one")]
