# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_bundles import PLACES, TARGETS, Hostile
from hostile_detours import DETOURS
from hostile_files import FILES
from hostile_values import EXPRESSIONS, PATHS, STEPS
from small_bundle import fired

from monai_anomaly.bundle.cli import main
from monai_anomaly.bundle.lint import lint_bundle
from monai_anomaly.bundle.lint.finding import ERROR

KINDS = {
    f"{group}: {name}": case
    for group, cases in {
        "target": TARGETS,
        "place": PLACES,
        "expression": EXPRESSIONS,
        "path": PATHS,
        "steps": STEPS,
        "detour": DETOURS,
        "file": FILES,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("case", KINDS.values(), ids=KINDS)
def test_every_kind_is_found_for_its_reason(bundle: Path, case: Hostile) -> None:
    case.plant(bundle)
    assert (case.rule, case.file) in fired(bundle, ERROR), case.reason


@pytest.mark.parametrize(
    "case", [case for case in KINDS.values() if case.twin], ids=[name for name, case in KINDS.items() if case.twin]
)
def test_the_harmless_twin_passes(bundle: Path, case: Hostile) -> None:
    assert case.twin is not None
    case.twin(bundle)
    assert [str(finding) for finding in lint_bundle(bundle) if finding.severity == ERROR] == []


@pytest.mark.parametrize("name", [name for name, case in KINDS.items() if case.rule in ("file-name", "key")])
def test_a_terminal_shows_what_is_said(bundle: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    KINDS[name].plant(bundle)
    assert main(["lint", str(bundle)]) == 1
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{bundle}: ") and not first.startswith(f"{bundle}: 0 errors")
    assert all(line.startswith("  ") and line.isprintable() for line in lines)


def test_there_are_as_many_kinds_as_were_tried() -> None:
    assert len(KINDS) >= 81
    assert len({case.reason + case.file + name for name, case in KINDS.items()}) == len(KINDS)
