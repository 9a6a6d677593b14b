# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The part of ``tools/consumers`` that needs none of the environments it makes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CONSUMERS = Path(__file__).resolve().parents[1] / "tools" / "consumers"


@pytest.fixture
def environment() -> ModuleType:
    """The module that the scripts share."""
    spec = importlib.util.spec_from_file_location("consumer_environment", CONSUMERS / "environment.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", ["monai_label.py", "monai_deploy.py", "export_table.py", "mlflow_tracking.py"])
def test_scripts_explain_themselves_without_any_package(script: str) -> None:
    command = [sys.executable, "-S", str(CONSUMERS / script)]  # -S: nothing but the standard library
    told = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert told.returncode == 0 and "--bundles" in told.stdout and " every bundle " in told.stdout
    refused = subprocess.run([*command, "--bundles", "ae", "aee"], capture_output=True, text=True)
    assert refused.returncode == 2 and "no such bundle: aee; there are ae," in refused.stderr


def test_bundles_are_found_by_themselves(environment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["script"])
    found = environment.parse_options("", "label").bundles
    assert found == sorted(path.name for path in (CONSUMERS.parents[1] / "bundles").iterdir() if path.is_dir())


def test_a_run_goes_on_with_what_has_not_passed(
    environment: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment.read_results(tmp_path, again=False) == {}
    results = {"ae": {"PNG": "ok", "REST": "ok, map only"}, "dae": {"PNG": "ok", "REST": "status 500"}}
    environment.write_results(tmp_path, results)
    assert environment.read_results(tmp_path, again=False) == results
    assert environment.read_results(tmp_path, again=True) == {}
    monkeypatch.setattr(environment, "code_mark", lambda: "of other code")
    assert environment.read_results(tmp_path, again=False) == {}
    checks = ["PNG", "REST", "NIfTI"]
    assert environment.open_checks(results, "ae", checks) == ["NIfTI"]
    assert environment.open_checks(results, "dae", checks) == ["REST", "NIfTI"]
    assert environment.open_checks(results, "new", checks) == checks
    assert environment.finish(results, ["ae"], ["PNG", "REST"]) == 0
    assert environment.finish(results, ["ae", "dae"], ["PNG", "REST"]) == 1
    printed = capsys.readouterr()
    assert "| dae | ok | status 500 |" in printed.out and printed.err == "failed: dae\n"
