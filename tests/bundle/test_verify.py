# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_bundle import small_configs, write_bundle

from monai_anomaly.bundle.cli import main
from monai_anomaly.bundle.verify import FAIL, PASS, SKIP, Verifier, verify_bundle

NAMES = ["lint", "metadata", "net_in_out", "train", "inference", "export", "load"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path)


@pytest.fixture
def verifier(bundle: Path, tmp_path: Path) -> Verifier:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Verifier(bundle, scratch)


def put(root: Path, name: str, **values: Any) -> None:
    """Set top-level values of a config."""
    path = root / "configs" / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_good_bundle_passes_and_is_left_as_it_was(bundle: Path) -> None:
    before = contents(bundle)
    states = (torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    results = verify_bundle(bundle)
    assert [result.name for result in results] == NAMES
    assert [result.status for result in results] == [PASS] * len(NAMES), [str(result) for result in results]
    assert contents(bundle) == before
    assert not torch.are_deterministic_algorithms_enabled()
    assert all(result.seconds >= 0 for result in results)
    assert "(1, 1, 64, 64)" in results[2].message
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert states[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_weights_of_the_bundle_are_used(bundle: Path, verifier: Verifier) -> None:
    network = verifier.load_network()
    state = {key: torch.full_like(value, 0.25) for key, value in network.state_dict().items()}
    torch.save({"model": state}, bundle / "models" / "model.pt")
    loaded = verifier.load_network().state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    assert "(models/model.pt)" in verifier.check_load()
    assert "ckpt_export: outputs differ by at most" in verifier.check_export()


def test_weights_of_another_network_fail(bundle: Path, verifier: Verifier) -> None:
    torch.save({"weight": torch.zeros(3)}, bundle / "models" / "model.pt")
    with pytest.raises(RuntimeError, match="Missing key"):
        verifier.check_load()


def test_sizes_fill_the_shape(bundle: Path, tmp_path: Path) -> None:
    assert Verifier(bundle, tmp_path, sizes=(1, 2, 3)).input_shape(5) == (5, 1, 32, 32)


def test_wrong_channels_fail(verifier: Verifier, bundle: Path) -> None:
    network = {**small_configs()["configs/inference.json"]["network_def"], "out_channels": 2}
    put(bundle, "inference", network_def=network)
    with pytest.raises(ValueError, match="output channel number `2`"):
        verifier.check_network()


def test_metadata_outside_the_schema_fails(verifier: Verifier, bundle: Path) -> None:
    put(bundle, "metadata", task=3)
    with pytest.raises(ValueError, match="task: 3 is not of type 'string'"):
        verifier.check_metadata()


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_all_missing_properties_are_named(verifier: Verifier, bundle: Path, kind: str) -> None:
    path = bundle / "configs" / f"{kind}.json"
    config = json.loads(path.read_text())
    del config["device"], config["dataset_dir"]
    path.write_text(json.dumps(config))
    check = verifier.check_train if kind == "train" else verifier.check_inference
    with pytest.raises(ValueError, match="lacks the required ids device, dataset_dir: define them"):
        check()


def test_a_property_that_cannot_be_built_fails(verifier: Verifier, bundle: Path) -> None:
    put(bundle, "inference", inferer={"_target_": "monai.inferers.SlidingWindowInferer", "no_such_argument": 1})
    with pytest.raises(RuntimeError, match="Failed to instantiate"):
        verifier.check_inference()


def test_a_property_under_another_id_fails(verifier: Verifier, bundle: Path) -> None:
    config = small_configs()["configs/inference.json"]
    put(bundle, "inference", other=[], evaluator={**config["evaluator"], "val_handlers": "@other"})
    with pytest.raises(ValueError, match="under another id: handlers"):
        verifier.check_inference()


class NotScriptable(torch.nn.Module):
    """Uses what TorchScript cannot compile but tracing can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 1, 1)

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        return self.convolution(images[0])


class Shifted(NotScriptable):
    """Its trace remembers the size of the batch."""

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        return self.convolution(images[0]) + len(images[0])


def replace_network(monkeypatch: pytest.MonkeyPatch, network: type[torch.nn.Module]) -> None:
    """Let the bundle's target build another network; the bundle itself may name packages only."""
    monkeypatch.setattr("monai.networks.nets.AutoEncoder", lambda **_: network())


def write_readme(root: Path, *commands: str) -> None:
    """A README that tells users to type these commands."""
    text = "\n".join(commands)
    (root / "docs" / "README.md").write_text(f"# Small bundle\n\n```bash\n# export\n{text}\n```\n", encoding="utf-8")


EXPORT = (
    "python -m monai.bundle ckpt_export network_def --filepath models/own.ts --ckpt_file runs/weights.pt \\\n"
    "    --meta_file configs/metadata.json --config_file configs/inference.json"
)


OURS = "python -m monai_anomaly.bundle export . --format {0} --output models/x.{0}"


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_what_the_readme_says_is_run_and_nothing_else(
    bundle: Path, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_network(monkeypatch, NotScriptable)
    with pytest.raises(Exception, match="variable number of arguments"):  # no README says that it must be traced
        verifier.check_export()
    write_readme(bundle, EXPORT)
    with pytest.raises(Exception, match="variable number of arguments"):
        verifier.check_export()
    write_readme(bundle, EXPORT + ' --use_trace True --input_shape "[2,1,16,16]"')
    assert "ckpt_export --use_trace: outputs differ by at most" in verifier.check_export()
    (copy,) = (verifier.scratch / "load").iterdir()
    assert (copy / "models/own.ts").is_file() and (copy / "runs/weights.pt").is_file()
    assert not (copy / "models/model.ts").exists() and not (bundle / "models/own.ts").exists()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_an_export_with_other_outputs_fails(bundle: Path, verifier: Verifier, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_network(monkeypatch, Shifted)
    write_readme(bundle, EXPORT + ' --use_trace True --input_shape "[2,1,16,16]"')
    with pytest.raises(ValueError, match="the outputs differ by up to 1"):
        verifier.check_export()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (EXPORT + " --network_def '$print(1)'", "options that are not run: network_def"),
        # other ways in which fire takes an option, or an argument for one
        (EXPORT.replace("network_def", "network_def -network_def='$print(1)'"), "is not run: write the name"),
        (EXPORT.replace("network_def", "network_def --network_def='$print(1)'"), "is not run: write the name"),
        (EXPORT.replace("network_def", "network_def models/other.ts"), "is not run: write the name"),
        (EXPORT.replace("network_def", "network_def models/a.ts -x"), "is not run: write the name"),
        (EXPORT + " -filepath=/tmp/own.ts", "is not run: write the name"),
        (EXPORT + " --args_file args.json", "options that are not run: args_file"),
        (EXPORT + " --use_trace", "is not run: write the name"),
        (EXPORT.replace("network_def", "$print"), "is not run: write the name"),
        (EXPORT.replace("runs/weights.pt", "../weights.pt"), "leads out of the bundle: ../weights.pt"),
        (EXPORT.replace("models/own.ts", "/tmp/own.ts"), "leads out of the bundle: /tmp/own.ts"),
        ("python -m monai_anomaly.bundle export . --format png --output models/x.png", "ends with: .*invalid choice"),
        (
            "python -m monai_anomaly.bundle export . --format pt2 --output models/x.pt2",
            "ends with: error: .*load_weights",
        ),
    ],
)
def test_a_command_that_cannot_be_run_fails(bundle: Path, verifier: Verifier, command: str, reason: str) -> None:
    write_readme(bundle, command)
    with pytest.raises(ValueError, match=reason):
        verifier.check_export()


def test_a_bundle_that_lint_refuses_is_not_run(bundle: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    put(bundle, "inference", initialize=[f"$__import__('pathlib').Path({str(marker)!r}).touch()"])
    results = verify_bundle(bundle)
    statuses = {result.name: result.status for result in results}
    assert statuses == {"lint": FAIL, "metadata": PASS, **dict.fromkeys(NAMES[2:], SKIP)}
    assert not marker.exists()
    trusted = {result.name: result.status for result in verify_bundle(bundle, trust=True)}
    assert trusted["inference"] == PASS
    assert marker.exists()


def test_the_command_prints_and_exits(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--json", str(bundle)]) == 0
    (results,) = json.loads(capsys.readouterr().out).values()
    assert [result["name"] for result in results] == NAMES
    put(bundle, "metadata", task=3)
    assert main(["verify", str(bundle)]) == 1
    output = capsys.readouterr().out
    assert "FAIL metadata" in output
    assert "SKIP load" in output


def test_the_command_writes_the_schema(bundle: Path) -> None:
    assert main(["schema", str(bundle / "eval" / "schema.json")]) == 0
    assert json.loads((bundle / "eval" / "schema.json").read_text())["title"]
