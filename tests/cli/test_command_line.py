# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import fire.parser
import pytest

from monai_anomaly.bundle.build import build_bundle
from monai_anomaly.cli import data, gallery, runs
from monai_anomaly.cli.main import COMMANDS, main
from monai_anomaly.data.audit.unlabeled import UNLABELED_USES
from monai_anomaly.data.datalist import SECTIONS
from monai_anomaly.transforms.gallery import CORRUPTIONS, FOREGROUNDS

QUICK = ["--max-epochs", "1", "--spatial-size", "[16,16]", "--hidden_channels=4", "--latent-channels", "2"]
HEAVY = ("torch", "monai", "numpy", "scipy", "matplotlib", "ignite", "nibabel", "itk", "PIL", "jinja2", "yaml")
PROBE = """
import contextlib, io, json, sys
from monai_anomaly.cli.main import main
loaded = {}
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            main(arguments)
        except SystemExit as end:
            code = end.code
    loaded[" ".join(arguments)] = [code, text.getvalue()[:6], [name for name in HEAVY if name in sys.modules]]
print(json.dumps(loaded))
"""


def test_help_imports_nothing_heavy() -> None:
    commands = [["--help"], ["--version"]]
    commands += [[name, *rest, "--help"] for name in COMMANDS for rest in ([], *SUBCOMMANDS.get(name, []))]
    source = f"HEAVY = {HEAVY!r}\n{PROBE}"
    done = subprocess.run(
        [sys.executable, "-c", source, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert len(loaded) == len(commands)
    for command, (code, text, heavy) in loaded.items():
        assert (code, heavy) == (0, []), command
        assert text == ("monai-" if command == "--version" else "usage:"), command


SUBCOMMANDS = {
    "data": [
        [name] for name in ("convert-csv", "convert-folder", "validate", "phantom", "sample", "unlabeled", "audit")
    ],
    "bundle": [[name] for name in ("lint", "verify", "schema", "build", "create", "pack")],
    "benchmark": [["run"], ["table"], ["job"]],
}


def test_choices_that_are_written_twice_agree() -> None:
    assert data.SECTIONS == SECTIONS and data.UNLABELED_USES == UNLABELED_USES
    assert list(gallery.CORRUPTIONS) == list(CORRUPTIONS) and list(gallery.FOREGROUNDS) == list(FOREGROUNDS)


def test_a_command_is_named_in_the_help_of_what_it_leads_to(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit, match="^0$"):
            main([name, "--help"])
        assert capsys.readouterr().out.startswith(f"usage: monai-anomaly {name} ")


@pytest.mark.parametrize("arguments", [[], ["no-such"], ["train"], ["train", "--max-epochs", "1", "ae"]])
def test_wrong_use_ends_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        main(arguments)
    assert "usage: monai-anomaly" in capsys.readouterr().err


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with mock.patch("monai_anomaly.cli.runs.run_module", return_value=0) as run:
        assert main([*arguments, "--dry-run"]) == 0
    words = shlex.split(capsys.readouterr().out.replace("\\\n", ""))
    # a training says as well what each step would cost
    costs = [mock.call("monai.bundle", [*words[3:], "--dry_run", "True"])]
    assert run.call_args_list == (costs if arguments[0] == "train" else [])
    return words


def test_the_command_of_monai_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, out = build_bundle("ae", tmp_path), str(tmp_path / "out")
    configs = bundle / "configs"
    start = ["python", "-m", "monai.bundle", "run", "--config_file"]
    root = ["--bundle_root", str(bundle)]
    data_options = ["--datalist", "a b/list.json", "--dataset_dir", "a b"]
    given = ["--datalist", "a b/list.json", "--output-dir", out, "--max-epochs", "3", "--train#trainer#key", "-1"]
    settings = ["--output_dir", out, "--max_epochs", "3", "--train#trainer#key", "-1"]
    assert printed(["train", str(bundle), *given], capsys) == [
        *start, f"{configs}/train.json", *root, *data_options, *settings
    ]  # fmt: skip
    assert printed(["evaluate", str(bundle), f"--output_dir={out}", "--dataset_dir", "x"], capsys) == [
        *start, f"['{configs}/train.json','{configs}/evaluate.json']", *root, "--dataset_dir", "x", "--output_dir", out
    ]  # fmt: skip
    assert printed(["infer", str(bundle), "--output-dir", out, "--checkpoint", "w.pt"], capsys) == [
        *start, f"{configs}/inference.json", *root, "--checkpoint", "w.pt", "--output_dir", out
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "configs"),
    [
        (["ddad"], ["train", "evaluate", "all_folds", "pipeline"]),
        (["ddad", "--config", "aeu"], ["train", "aeu", "evaluate", "all_folds", "pipeline"]),
        (["ddad", "--fold", "1"], ["train"]),
        (["diffusion_restoration"], ["train", "all_folds"]),
        (["diffusion_restoration", "--fold=0", "--config", "paper"], ["train", "paper"]),
        (["d2ue_ae"], ["train"]),
    ],
)
def test_a_bundle_is_trained_as_a_whole(
    options: list[str], configs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = printed(["train", *options, "--output-dir", str(tmp_path)], capsys)
    files = words[words.index("--config_file") + 1].strip("[]").replace("'", "").split(",")
    assert [Path(file).stem for file in files] == configs
    assert {Path(file).parent for file in files} == {tmp_path / "bundle" / options[0] / "configs"}


@pytest.mark.parametrize(
    ("options", "score"),
    [
        (["ddad"], "refined_dual"),  # what its pipeline trains for
        (["ddad", "--config", "aeu"], "refined_dual"),
        (["ddad", "--score", "inter"], "inter"),
        (["ddad", "--fold", "0"], None),
        (["d2ue_ae"], None),
    ],
)
def test_what_was_trained_is_evaluated(
    options: list[str], score: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = printed(["evaluate", *options, "--output-dir", str(tmp_path)], capsys)
    assert [words[i + 1] for i, word in enumerate(words) if word == "--score"] == ([score] if score else [])


def test_an_embedded_sample_is_named_by_one_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "sample", "retina"]) == 0
    folder = capsys.readouterr().out.strip()
    assert Path(folder).name == "sample_retina"
    for command in ("train", "evaluate", "infer"):
        words = printed([command, "ae", "--sample", "retina", "--output-dir", str(tmp_path)], capsys)
        given = dict(zip(words[4::2], words[5::2], strict=True))
        assert (given["--datalist"], given["--dataset_dir"]) == (f"{folder}/datalist.json", folder), command
        assert "--sample" not in given
    output = ["--output-dir", str(tmp_path), "--dry-run"]
    assert main(["compare", "ae", "aeu", "--sample", "retina", *output]) == 0
    assert f"--dataset_dir {folder}" in capsys.readouterr().out
    for wrong, reason in ((["--sample", "brain"], "got 'brain'"), (["--sample", "retina", "--datalist", "x"], "own")):
        assert main(["train", "ae", *wrong, *output]) == 2
        assert reason in capsys.readouterr().err


@pytest.mark.parametrize("name", ["2024", "1e5", "None", "[1]", "runs 1"])
def test_a_folder_may_have_a_name_like_a_number(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = printed(["infer", "ae", "--output-dir", name], capsys)
    told = fire.parser.DefaultParseValue(words[words.index("--output_dir") + 1])
    assert isinstance(told, str) and Path(told) == Path(name)


def test_a_bundle_that_is_there_is_used_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(["train", "ae", "--output-dir", str(tmp_path)], capsys)
    changed = tmp_path / "bundle" / "ae" / "configs" / "train.json"
    changed.write_text("{}")
    printed(["evaluate", "ae", "--output-dir", str(tmp_path)], capsys)
    assert changed.read_text() == "{}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nothing"], "nothing is neither the folder of a bundle nor one of ae, aeu, "),
        (["ae", "--config", "papers"], "no configuration papers; there are evaluate, inference, metadata, "),
    ],
)
def test_a_wrong_bundle_is_named(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *options, "--output-dir", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and not shown.out


def test_several_processes_need_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "ae", "--output-dir", str(tmp_path)]) == 2
    assert "give its folder" in capsys.readouterr().err and not (tmp_path / "bundle").exists()


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monai_anomaly", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_one_command_after_the_other(tmp_path: Path) -> None:
    """Data, training, evaluation, inference: nothing but ``monai-anomaly``, from a folder that holds nothing."""
    made = run(["data", "phantom", "images", "--size", "16"], tmp_path)
    assert made.returncode == 0, made.stderr
    images = ["--datalist", "images/datalist.json"]
    for words in (["train", "ae", *QUICK, "--batch-size", "8"], ["evaluate", "ae", *QUICK]):
        done = run([*words, *images, "--output-dir", "out"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert "--datalist images/datalist.json \\\n    --dataset_dir images \\\n" in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()
    weights = ["--checkpoint", "out/models/model.pt"]
    settings = [word for word in QUICK if word not in ("--max-epochs", "1")]
    done = run(["infer", "ae", *images, *weights, *settings, "--output-dir", "new"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "scores.csv").is_file() and list((tmp_path / "new" / "maps").iterdir())


def test_a_mistyped_setting_ends_in_one_line(tmp_path: Path) -> None:
    done = run(["train", "ae", "--max-epoch", "1", "--output-dir", "out"], tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert done.stderr.endswith("\nerror: unknown option --max_epoch: did you mean --max_epochs?\n")


def test_the_module_that_is_run_ends_this_process_as_it_would_end_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_up.py").write_text("import sys\nassert __name__ == '__main__'\nsys.exit(int(sys.argv[1]))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.argv", ["before"])
    with pytest.raises(SystemExit, match="^7$"):
        runs.run_module("made_up", ["7"])
