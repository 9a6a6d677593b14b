# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_bundle import (
    LOGGING,
    LOGGING_FILE,
    META,
    METADATA,
    TRAIN,
    fired,
    put,
    remove,
    small_configs,
    write_bundle,
)

from monai_anomaly.bundle.cli import main
from monai_anomaly.bundle.lint import has_errors, lint_bundle
from monai_anomaly.bundle.lint.finding import ERROR, Finding


def test_a_faultless_bundle_has_no_findings(bundle: Path) -> None:
    assert lint_bundle(bundle) == []


def test_a_bundle_without_weights_has_a_warning(tmp_path: Path) -> None:
    findings = lint_bundle(write_bundle(tmp_path))
    assert [(item.rule, item.severity) for item in findings] == [("weights-missing", "warning")]
    assert not has_errors(findings)


@pytest.mark.parametrize(
    ("name", "rule"),
    [("chest_anomaly_detection", "name-detection"), ("Small", "name"), ("a-b", "name"), ("a__b", "name")],
)
def test_a_bad_name_is_found(bundle: Path, name: str, rule: str) -> None:
    renamed = bundle.rename(bundle.parent / name)
    assert (rule, ".") in fired(renamed, ERROR)


def test_the_name_in_the_metadata_spells_the_folder(bundle: Path) -> None:
    put(bundle, META, "name", "Another name")
    assert fired(bundle) == {("name-metadata", META)}
    put(bundle, META, "name", "Small Bundle")
    assert lint_bundle(bundle) == []


def test_metadata_outside_the_schema_is_found(bundle: Path) -> None:
    remove(bundle, META, "task")
    assert ("metadata", META) in fired(bundle, ERROR)


def test_own_bundles_need_more_metadata(bundle: Path) -> None:
    remove(bundle, META, "data_source")
    assert lint_bundle(bundle) == []
    put(bundle, TRAIN, "extra", {"_target_": "monai_anomaly.anything"})
    assert ("metadata-own", META) in fired(bundle, ERROR)


def test_nothing_is_run(bundle: Path, tmp_path: Path) -> None:
    """A marker file would tell of any evaluation, import, unpickling or logging set-up."""
    marker = tmp_path / "marker"
    touch = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    put(bundle, TRAIN, "initialize", [f"${touch}"])
    put(bundle, TRAIN, "extra", {"_target_": "pathlib.Path.touch", "self": str(marker)})
    put(bundle, META, "version", f"${touch}")
    (bundle / LOGGING_FILE).write_text(LOGGING.replace("args=(sys.stdout,)", f"args=({touch},)"))
    (bundle / "yaml.py").write_text(f"{touch}\n")
    (bundle / "sitecustomize.py").write_text(f"{touch}\n")
    assert has_errors(lint_bundle(bundle))
    assert not marker.exists()


def test_the_command_prints_and_exits(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(bundle)]) == 0
    assert "small_bundle: 0 errors, 0 warnings" in capsys.readouterr().out
    put(bundle, TRAIN, "extra", "$eval(1)")
    assert main(["lint", str(bundle)]) == 1
    output = capsys.readouterr().out
    assert "error [expression] configs/train.json:extra: in '$eval(1)': the call of 'eval' is not allowed ->" in output
    assert main(["lint", "--json", str(bundle)]) == 1
    (found,) = json.loads(capsys.readouterr().out)[str(bundle)]
    assert found["rule"] == "expression"
    assert set(found) == {"rule", "file", "path", "message", "remedy", "severity"}


def test_strict_counts_warnings(bundle: Path) -> None:
    put(bundle, META, "name", "Another name")
    assert main(["lint", str(bundle)]) == 0
    assert main(["lint", "--strict", str(bundle)]) == 1


def test_a_wrong_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["lint", str(tmp_path / "nothing")])
    assert "give the bundle's folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is not a folder"):
        lint_bundle(tmp_path / "nothing")


def test_the_command_runs_inside_a_hostile_folder(bundle: Path, tmp_path: Path) -> None:
    """``python -m`` puts the current folder first; what MONAI imports late must not come from the bundle."""
    marker = tmp_path / "marker"
    (bundle / "yaml.py").write_text(f"open({str(marker)!r}, 'w')\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "monai_anomaly.bundle", "lint", "."]
    result = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "error [executable-file] yaml.py" in result.stdout
    assert not marker.exists()


def test_findings_say_what_to_do(bundle: Path) -> None:
    put(bundle, TRAIN, "extra", "@nothing")
    (found,) = lint_bundle(bundle)
    expected = Finding("reference", TRAIN, "extra", "'@nothing' leads nowhere", "define the id or mend the name")
    assert found == expected


def test_the_example_has_every_mandatory_key() -> None:
    assert {"configs/metadata.json", "configs/train.json"} <= set(small_configs())
    assert METADATA["version"] in METADATA["changelog"]
