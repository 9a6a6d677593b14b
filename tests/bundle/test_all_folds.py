# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Trainings of the image-conditioned diffusion: one fold that is broken off, all of them by one command, and packed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from processes import children_of, wait_for_end, wait_until

from monai_anomaly.bundle.build import bundle_files
from monai_anomaly.bundle.cli import main
from monai_anomaly.data import make_phantom
from monai_anomaly.utils import write_json

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "diffusion_restoration"
TINY: dict[str, Any] = {
    "bundle_root": str(BUNDLE),
    "channels": [8, 8],
    "attention_levels": [False, False],
    "spatial_size": [16, 16],
    "batch_size": 4,
    "max_epochs": 4,
    "val_interval": 1,
    "checkpoint_seconds": 0,
    "ema_decay": 0.7,
    "learning_rate": 0.01,
    "device": "cpu",
}
FILES = ("model.pt", "model_best.pt", "checkpoint.pt")


class Death(BaseException):
    """The run is over, and nothing of it is tidied up."""


def _die(*_: Any) -> None:
    raise Death


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options that name a generated data set, the source of foreign structures as well."""
    folder = tmp_path_factory.mktemp("data")
    make_phantom(folder, size=16, num_training=12, num_unlabeled=0, num_validation=2, num_testing=4)
    return {"dataset_dir": str(folder), "other_dir": str(folder), "held_out": 0.2}


def run(configs: tuple[str, ...], death: tuple[str, Any] | None = None, **options: Any) -> Any:
    """What ``monai.bundle run`` does; ``death`` names an engine and its event at which the run ends."""
    files = [str(BUNDLE / "configs" / f"{config}.json") for config in configs]
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", **{**TINY, **options})
    workflow.initialize()
    if death is not None:
        workflow.parser.get_parsed_content(death[0]).add_event_handler(death[1], _die)
    workflow.run()
    return workflow.parser


def models(folder: Path, fold: int, files: tuple[str, ...] = FILES) -> dict[str, Any]:
    """What a training has left."""
    return {name: torch.load(folder / f"fold_{fold}/models/{name}", weights_only=True) for name in files}


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Whether two nested states are the same, tensors bit for bit."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key, value in one.items():
            assert_same(value, other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for i, value in enumerate(one):
            assert_same(value, other[i], f"{place}/{i}")
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, place


@pytest.fixture(scope="module")
def unbroken(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fold 3, trained without an interruption."""
    folder = tmp_path_factory.mktemp("unbroken")
    run(("train",), fold=3, output_dir=str(folder), **data)
    return folder


@pytest.mark.parametrize(
    "death",
    [
        ("train#trainer", Events.EPOCH_STARTED(once=3)),
        ("train#trainer", Events.ITERATION_COMPLETED(once=5)),
        ("held#evaluator", Events.STARTED(once=3)),  # after the weights of an epoch are final, before they are judged
        ("held#evaluator", Events.COMPLETED(once=3)),  # the best weights are written, the checkpoint is not
    ],
    ids=["between epochs", "within an epoch", "before a validation", "after a validation"],
)
def test_a_fold_that_is_broken_off_ends_where_an_unbroken_one_does(
    death: tuple[str, Any], data: dict[str, Any], unbroken: Path, tmp_path: Path
) -> None:
    options = {"fold": 3, "output_dir": str(tmp_path), **data}
    with pytest.raises(Death):
        run(("train",), death, **options)
    assert not (tmp_path / "fold_3/models/model.pt").exists()
    torch.rand(7)  # whatever another process has drawn
    run(("train",), **options)
    expected = models(unbroken, 3)
    assert_same(models(tmp_path, 3), expected)
    # the average, the smoothed loss and the best one are part of what was compared
    also = expected["checkpoint.pt"]["also"]
    assert int(also["average"]["n_averaged"]) == 4 * (10 // 4) and also["loss"]["smoothed"] > 0
    assert expected["checkpoint.pt"]["best"] == -also["loss"]["best"]


def test_a_training_that_ended_early_stays_ended(data: dict[str, Any], tmp_path: Path) -> None:
    options = {"patience": 1, "learning_rate": 0.0, "weight_decay": 0.0, "output_dir": str(tmp_path), **data}
    run(("train",), **options)
    before = models(tmp_path, 0)
    assert before["checkpoint.pt"]["also"]["loss"]["waited"] == 1
    run(("train",), **options)
    assert_same(models(tmp_path, 0), before)


def command(folder: Path, data: dict[str, Any], **options: Any) -> list[str]:
    """The command that trains all folds."""
    files = "[" + ",".join(f"'{BUNDLE / 'configs' / name}.json'" for name in ("train", "all_folds")) + "]"
    settings = {**TINY, **data, "output_dir": str(folder), "device": "$torch.device('cpu')", **options}
    settings = {key: value if isinstance(value, str) else repr(value) for key, value in settings.items()}
    parts = [part for key, value in settings.items() for part in (f"--{key}", value)]
    return [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, *parts]


@pytest.mark.slow
def test_all_folds_broken_off_and_started_again_then_packed_and_evaluated(
    data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    nested = {"train#trainer#accumulation_steps": 2, "folds": [0, 3], "jobs": 2}
    run(("train", "all_folds"), output_dir=str(tmp_path / "whole"), **nested, **data)
    expected = {fold: models(tmp_path / "whole", fold) for fold in (0, 3)}
    assert (tmp_path / "whole/audit.json").is_file() and not (tmp_path / "whole/fold_1").exists()
    for fold in (0, 3):
        settings = json.loads((tmp_path / f"whole/fold_{fold}/models/training.json").read_text())
        assert settings["fold"] == fold and settings["channels"] == [8, 8]
        log = (tmp_path / f"whole/fold_{fold}/log.txt").read_text()
        assert f"fold {fold}: 100%" in log and "audit" not in log.replace("audit_dir", "")

    broken = command(tmp_path / "broken", data, **nested)
    with subprocess.Popen(broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        wait_until((tmp_path / "broken/fold_0/models/checkpoint.pt").exists, parent)
        folds = children_of(parent.pid)
        parent.send_signal(signal.SIGKILL)
    # on a machine that is slow to come back to this test, the training may be over before it can be broken off
    assert parent.returncode in (-signal.SIGKILL, 0) and (tmp_path / "broken/fold_0/models/checkpoint.pt").exists()
    wait_for_end(folds)  # by themselves
    subprocess.run(broken, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert_same({fold: models(tmp_path / "broken", fold) for fold in (0, 3)}, expected)
    subprocess.run(broken, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert_same({fold: models(tmp_path / "broken", fold) for fold in (0, 3)}, expected)

    # one fold alone, by the command without the overlay, has the weights of its process
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    options = {"train#trainer#accumulation_steps": 2, "output_dir": str(tmp_path / "alone")}
    run(("train",), fold=3, **options, **data)
    torch.set_num_threads(threads)
    assert_same(models(tmp_path / "alone", 3), expected[3])

    small_bundle(tmp_path / "bundle")
    assert main(["pack", str(tmp_path / "bundle"), str(tmp_path / "whole")]) == 0
    assert capsys.readouterr().out.endswith("model.pt: folds 0, 3\n")
    common = {"num_steps": 2, **data, "save_maps": False}
    for name, checkpoint in (("apart", tmp_path / "whole"), ("packed", tmp_path / "bundle/models/model.pt")):
        audit = str(tmp_path / "whole")
        run(
            ("train", "evaluate"),
            checkpoint=str(checkpoint),
            output_dir=str(tmp_path / name),
            audit_dir=audit,
            **common,
        )
    assert (tmp_path / "apart/scores.csv").read_text() == (tmp_path / "packed/scores.csv").read_text()
    told = [json.loads((tmp_path / name / "metrics.json").read_text())["settings"] for name in ("apart", "packed")]
    assert told[0]["training"] == told[1]["training"] and told[0]["training"]["fold"] == [0, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"folds": [3, 12]}, "numbers from 0 to 9 such as [0, 3], got [3, 12]"), ({"datalist": "none.json"}, "none.json")],
)
def test_bad_input_stops_before_any_fold_starts(
    options: dict[str, Any], message: str, data: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError) as caught:
        run(("train", "all_folds"), output_dir=str(tmp_path / "runs"), **{**data, **options})
    cause: BaseException = caught.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert message in str(cause)
    assert not list(tmp_path.rglob("fold_*"))


def small_bundle(folder: Path, **options: Any) -> Path:
    """A bundle of networks as small as those that are trained here."""
    config = bundle_files("diffusion_restoration")["configs/inference.json"]
    small = {key: TINY[key] for key in ("channels", "attention_levels", "spatial_size")}
    write_json(folder / "configs/inference.json", config | small | options)
    return folder


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder as the trainings of the folds 1 and 2 leave it, the latter before its end."""

    config = json.loads((small_bundle(tmp_path / "made") / "configs/inference.json").read_text())
    network = ConfigParser(config).get_parsed_content("network_def")
    for fold in (1, 2):
        folder = tmp_path / f"run/fold_{fold}/models"
        folder.mkdir(parents=True)
        torch.save(network.network.members[fold + 4].state_dict(), folder / "model_best.pt")
    write_json(tmp_path / "run/fold_1/models/training.json", {"fold": 1, "seed": 0})
    return tmp_path / "run"


def test_packed_members_are_those_of_the_folds(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = small_bundle(tmp_path / "bundle")
    assert main(["pack", str(bundle), str(trained)]) == 0
    assert "not trained to the end: folds 2; start their training again" in caplog.text
    packed = torch.load(bundle / "models/model.pt", weights_only=True)
    assert packed["network.present"].nonzero().flatten().tolist() == [1, 2]
    for fold in (1, 2):
        for name, value in torch.load(trained / f"fold_{fold}/models/model_best.pt", weights_only=True).items():
            assert torch.equal(packed[f"network.members.{fold}.{name}"], value)
    assert json.loads((bundle / "models/training.json").read_text()) == {"fold": 1, "seed": 0}
    assert capsys.readouterr().out == f"{bundle / 'models' / 'model.pt'}: folds 1, 2\n"


def test_create_takes_a_folder_of_folds(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create = ["create", "diffusion_restoration", "--output-dir", str(tmp_path), "--weights", str(trained)]
    assert main(create) == 2
    message = capsys.readouterr().err
    assert f"{trained}/fold_1/models/model_best.pt does not fit the network" in message
    assert f"which {trained}/fold_*/models/training.json holds; create the bundle without --weights" in message
    assert not (tmp_path / "diffusion_restoration").exists(), "what failed must not be in the way of the next try"

    config = json.loads((tmp_path / "made/configs/inference.json").read_text())
    whole = bundle_files("diffusion_restoration") | {"configs/inference.json": config}
    monkeypatch.setattr("monai_anomaly.bundle.build.bundle_files", lambda name: whole)
    assert main(create) == 0
    assert (tmp_path / "diffusion_restoration/models/model.pt").is_file()
    assert (tmp_path / "diffusion_restoration/configs/train.json").is_file()


def test_errors_of_packing_name_file_and_remedy(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = small_bundle(tmp_path / "bundle", channels=[8, 16])
    ae = BUNDLE.parent / "ae"
    for arguments, message in [
        ([str(bundle), str(trained)], f"the bundle's own stand in {bundle}/configs/inference.json"),
        (
            [str(bundle), str(tmp_path / "none")],
            f"no weights in {tmp_path / 'none'}: there is no fold_*/models/model_b",
        ),
        ([str(bundle), str(trained), "--name", "model.pt"], "there is no fold_*/models/model.pt; train first"),
        ([str(tmp_path / "none"), str(trained)], f"{tmp_path}/none/configs/inference.json does not exist: give"),
        ([str(ae), str(trained)], f"no folds to pack: copy {trained}/models/model.pt to {ae}/models/model.pt"),
    ]:
        assert main(["pack", *arguments]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith("error: ") and message in printed.err and printed.err.count("\n") == 1
        assert not printed.out
    assert not (bundle / "models").exists()
