# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FunctionType

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose

from monai_anomaly.bundle.options import find_weights
from monai_anomaly.data import read_datalist
from monai_anomaly.transforms import LoadImageCheckedd
from monai_anomaly.utils import end_with_reason, load_weights, message_of_ours, run_command

REPOSITORY = Path(__file__).resolve().parents[2]


def raised(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def wrapped(error: Exception, times: int = 2) -> Exception:
    """As MONAI does, once for each level."""

    def again() -> None:
        raise RuntimeError("Failed to instantiate") from error

    return wrapped(raised(again), times - 1) if times else error


def printed(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    end_with_reason(type(error), error, error.__traceback__)
    return capsys.readouterr().err


def test_an_error_of_ours_ends_with_its_own_lines_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(lambda: find_weights(tmp_path / "model.pt"))
    assert printed(wrapped(error), capsys) == f"\nerror: {error}\n"


def test_the_last_word_is_that_of_the_package_not_of_what_lies_below(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "model.pt"
    broken.write_text("no weights")
    error = raised(lambda: load_weights(torch.nn.Identity(), broken, "is broken: train that fold again"))
    text = printed(wrapped(error), capsys)
    assert text.startswith(f"\nerror: {broken} is broken: train that fold again") and "Traceback" not in text


def test_debugging_shows_the_whole_way_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONAI_ANOMALY_DEBUG", "1")
    error = raised(lambda: find_weights(tmp_path / "model.pt"))
    text = printed(wrapped(error), capsys)
    assert text.startswith("Traceback") and text.endswith(f"\nerror: {error}\n")
    with pytest.raises(ValueError, match=r"model\.pt"):
        run_command(lambda: int(find_weights(tmp_path / "model.pt")))


@pytest.mark.parametrize(
    "defect",
    [
        lambda: json.loads("{"),
        lambda: LoadImageCheckedd("image")({}),  # MONAI's own complaint about what it was given
        FunctionType((lambda: int("x")).__code__, {"__name__": "monai_anomaly.made_up"}),  # an operation of ours fails
        lambda: read_datalist(None),  # type: ignore[arg-type]
    ],
)
def test_a_defect_keeps_its_traceback(defect: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    error = raised(defect)
    text = printed(wrapped(error), capsys)
    assert text.startswith("Traceback") and text.endswith(f"\nerror: {error}\n")
    with pytest.raises(type(error)):
        run_command(lambda: defect() and None)


def test_an_interrupt_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    end_with_reason(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert capsys.readouterr().err.strip() == "KeyboardInterrupt"


def test_what_a_loading_process_says_is_found_in_its_text(tmp_path: Path) -> None:
    for item, transform, ending in [
        ({"image": str(tmp_path / "gone.png")}, LoadImageCheckedd("image"), "correct its path in the datalist"),
        ("{", json.loads, None),
    ]:
        loader = DataLoader(Dataset([item], Compose([transform])), num_workers=1)
        error = raised(partial(list, loader))
        assert str(error).startswith("Caught")
        message = message_of_ours(error)
        assert (message is None) == (ending is None)
        assert message is None or (message.startswith("image ") and ending in message and "\n" not in message)


def test_commands_return_a_status_or_say_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: None) == 0 and run_command(lambda: 3) == 3
    assert run_command(lambda: int(find_weights(tmp_path / "model.pt"))) == 2
    assert run_command(lambda: (tmp_path / "no.json").read_text() and None) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: no weights at ") and second.startswith("error: [Errno 2]")


def run_bundle(options: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/train.json", *options]
    return subprocess.run(
        [*command, "--output_dir", str(folder)],
        cwd=REPOSITORY / "bundles" / "ae",
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_mistyped_option_of_a_bundle_ends_in_one_line(tmp_path: Path) -> None:
    result = run_bundle(["--max_epoch", "3"], tmp_path)
    assert result.returncode == 1
    assert result.stderr.endswith("\nerror: unknown option --max_epoch: did you mean --max_epochs?\n")
    assert "Traceback" not in result.stderr + result.stdout


def test_an_image_that_is_missing_ends_in_lines_of_ours_from_within_a_run(tmp_path: Path) -> None:
    datalist = {"training": [{"image": "gone.png"}], "validation": [], "testing": []}
    (tmp_path / "list.json").write_text(json.dumps(datalist))
    result = run_bundle(["--datalist", str(tmp_path / "list.json"), "--dataset_dir", str(tmp_path)], tmp_path / "run")
    assert result.returncode == 1
    assert "gone.png" in result.stderr.rpartition("\nerror: ")[2] and "Traceback" not in result.stderr + result.stdout
