# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What ``make demo`` runs: the commands that the Makefile writes, and a small run of them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from monai_anomaly.bundle.options import check_options
from monai_anomaly.data import sample_dir
from monai_anomaly.data.sample_data import SAMPLES

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text("utf-8")
SMALL = {"spatial_size": [64, 64], "grid": 8, "memory_size": 16, "device": "$torch.device('cpu')"}


def demo(*choices: str) -> list[tuple[Path, list[str]]]:
    """The folder and the words after ``-m`` of each command of MONAI that ``make demo`` would run."""
    make = shutil.which("make")
    if make is None or not (REPOSITORY / "Makefile").is_file():
        pytest.skip("needs make and the Makefile")
    done = subprocess.run(
        [make, "--dry-run", "--no-print-directory", "demo", *choices], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^cd (\S+) && (.*)$", done.stdout.replace("\\\n", " "), re.MULTILINE)
    return [(REPOSITORY / folder, shlex.split(command)[2:]) for folder, command in found]


def options_of(words: list[str]) -> dict[str, str]:
    assert words[:2] == ["monai.bundle", "run"]
    return {name.removeprefix("--"): value for name, value in zip(words[2::2], words[3::2], strict=True)}


@pytest.mark.parametrize(
    ("choices", "bundle", "sample", "epochs", "folder"),
    [
        ((), "aligned_memory", "retina", "1", "demo"),
        (("DEMO=d2ue",), "d2ue_ae", "radiographs", "60", "demo-d2ue"),
        (("DEMO=d2ue", "DEMO_BUNDLE=memae", "DEMO_EPOCHS=200"), "memae", "radiographs", "200", "demo-d2ue-memae-200"),
        (("DEMO_BUNDLE=padim",), "padim", "retina", "1", "demo-padim"),
    ],
    ids=["retina", "d2ue", "d2ue-memae-200", "padim"],
)
def test_the_commands_are_right(
    choices: tuple[str, ...], bundle: str, sample: str, epochs: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = demo(*choices)
    assert [path for path, _ in commands] == [REPOSITORY / "bundles" / bundle] * 2
    training, evaluation = (options_of(words) for _, words in commands)
    shared = {"dataset_dir#name": sample, "output_dir": str(REPOSITORY / "runs" / folder)}
    assert training == {"config_file": "configs/train.json", **shared, "max_epochs": epochs}
    assert evaluation == {"config_file": "['configs/train.json','configs/evaluate.json']", **shared}
    assert sample in SAMPLES
    monkeypatch.chdir(REPOSITORY / "bundles" / bundle)
    monkeypatch.setattr("monai_anomaly.bundle.options.check_output_paths", lambda: None)  # there is no run here
    for _, words in commands:
        check_options(words[1:])


def test_another_word_is_refused() -> None:
    with pytest.raises(AssertionError, match="DEMO must be retina or d2ue, got 'chest'"):
        demo("DEMO=chest")


def test_the_readme_names_both() -> None:
    commands = re.findall(r"^make demo(.*?)#.*(runs/\S+)$", README, re.MULTILINE)
    assert [(choice.strip(), report) for choice, report in commands] == [
        ("", "runs/demo/report.html"),
        ("DEMO=d2ue", "runs/demo-d2ue/report.html"),
    ]


def test_a_small_demo_shows_lesions_with_their_outlines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every eighth image, small: the report has heat maps and masks of lesions, found and missed."""
    content = json.loads((Path(sample_dir("retina")) / "datalist.json").read_text("utf-8"))
    few = {name: content[name][::8] for name in ("training", "validation", "testing")}
    (tmp_path / "few.json").write_text(json.dumps(few), "utf-8")
    for folder, words in demo():
        options: dict[str, Any] = options_of(words)
        files = re.findall(r"[\w/]+\.json", options.pop("config_file"))
        options |= {"output_dir": str(tmp_path), "datalist": str(tmp_path / "few.json"), "bundle_root": str(folder)}
        options["max_epochs"] = 1
        workflow = ConfigWorkflow([str(folder / file) for file in files], workflow_type="train", **options, **SMALL)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    metrics = json.loads((tmp_path / "metrics.json").read_text("utf-8"))
    assert metrics["counts"]["images"] == len(few["testing"])
    assert {"image_auroc", "pixel_ap"} <= metrics["metrics"].keys() and metrics["metrics"]["pixel_ap"]["value"] > 0
    page = (tmp_path / "report.html").read_text("utf-8")
    lesions = sum(item["target"] for item in few["testing"])
    assert lesions > 2 and page.count('alt="mask of ') == lesions
    assert page.count('alt="heat map of ') == len(few["testing"])
    assert all(f'data-filter="{name}"' in page for name in ("missed", "alarms"))
