# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_anomaly.cli.main import main

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.slow
def test_the_pipeline_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "pipeline.py").write_text(code, encoding="utf-8")
    result = subprocess.run([sys.executable, "pipeline.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    auroc = float(result.stdout.splitlines()[-1].split()[0])
    assert 0.55 < auroc < 1, "after 20 epochs it knows something"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a few images of one's own, in which commands run."""
    monkeypatch.chdir(tmp_path)
    for kind, number in (("normal", 8), ("abnormal", 4)):
        (tmp_path / "data" / "my_images" / kind).mkdir(parents=True)
        for i in range(number):
            pixels = np.random.default_rng(10 * number + i).integers(0, 255, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "my_images" / kind / f"{kind}{i}.png")
    return tmp_path


def test_the_commands_of_the_readme_are_right(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those on data are run, of the others what they would run is printed."""
    text = README.read_text(encoding="utf-8").replace("/data/", f"{elsewhere}/data/")
    commands = [shlex.split(line)[1:] for line in re.findall(r"^monai-anomaly .*$", text, re.MULTILINE)]
    assert [words[0] for words in commands] == ["data", "data", "train", "evaluate", "infer", "compare"]
    for words in commands:
        assert main(words if words[0] == "data" else [*words, "--dry-run"]) == 0, words
        printed = capsys.readouterr().out.partition("\nname ")[0]  # a training says as well what it would cost
        assert words[0] == "data" or printed.startswith("python -m monai.bundle run"), words
        if words[0] == "train":  # the README writes it out
            lines = printed.replace("runs/first/bundle/d2ue_aeu/configs", "configs").splitlines()
            assert [line for line in lines if "--bundle_root" not in line] == written_out(text)


def written_out(text: str) -> list[str]:
    """The command of MONAI that a training prints."""
    (block,) = re.findall(r"```bash\ncd d2ue_aeu\n(.*?)```", text, re.DOTALL)
    return str(block).splitlines()
