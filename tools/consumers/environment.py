# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What the consumer scripts share outside their environments: options, environments, the table; no other package."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PASSED = "ok"
_STAMP = "installed.json"
_CODE = {".py", ".json", ".j2", ".conf", ".pt"}

Results = dict[str, dict[str, str]]


def parse_options(description: str, name: str) -> argparse.Namespace:
    """Options of a consumer script; ``name`` is that of its folder below the cache."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path(tempfile.gettempdir()) / "monai_anomaly_consumers" / name,
        help="folder of the environment, the copies of the bundles and the results (default: %(default)s)",
    )
    parser.add_argument("--environment", type=Path, help="an environment to use as it is; default: make one")
    parser.add_argument("--bundles", nargs="+", metavar="NAME", help="bundles to run; default: all in bundles/")
    parser.add_argument(
        "--again", action="store_true", help="run what passed before, too; default: go on with the rest"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # started again by the environment
    options = parser.parse_args()
    known = sorted(path.parent.parent.name for path in (ROOT / "bundles").glob("*/configs/inference.json"))
    unknown = sorted(set(options.bundles or ()) - set(known))
    if unknown:
        parser.error(f"no such bundle: {', '.join(unknown)}; there are {', '.join(known)}")
    options.bundles = options.bundles or known
    options.work_dir = options.work_dir.resolve()
    return options


def run_inside(script: str, options: argparse.Namespace, steps: Sequence[Sequence[str]], repair: str = "") -> int:
    """Run ``script --inside`` with the Python of an environment that the steps make.

    Args:
        script: the consumer script.
        options: its options.
        steps: arguments of ``pip install``, one list a call; done once.
        repair: Python code to run in the new environment when all is installed.
    """
    python = (options.environment or _environment(options.work_dir / "environment", steps, repair)) / "bin" / "python"
    again = ["--again"] if options.again else []
    command = [str(python), script, "--inside", "--work-dir", str(options.work_dir), "--bundles", *options.bundles]
    # what is installed is what is tried, not what lies beside the scripts
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([*command, *again], env=clean).returncode


def _environment(folder: Path, steps: Sequence[Sequence[str]], repair: str) -> Path:
    wanted = {"steps": [list(step) for step in steps], "repair": repair, "code": code_mark()}
    stamp = folder / _STAMP
    known = json.loads(stamp.read_text(encoding="utf-8")) if stamp.is_file() else {}
    if known == wanted:
        return folder
    # all is there but the package as it is now
    if isinstance(known, dict) and known | {"code": wanted["code"]} == wanted:
        python = str(folder / "bin" / "python")
        again = ["--quiet", "--no-deps", "--force-reinstall", str(ROOT)]
        subprocess.run([python, "-m", "pip", "install", *again], check=True)
        stamp.write_text(json.dumps(wanted), encoding="utf-8")
        return folder
    print(f"making the environment {folder}, which takes some minutes", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    python = str(folder / "bin" / "python")
    for step in steps:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *step], check=True)
    if repair:
        subprocess.run([python, "-c", repair], check=True)
    stamp.write_text(json.dumps(wanted), encoding="utf-8")
    return folder


def code_mark() -> str:
    """Hash of the package, the bundles and these scripts: what was found for others is not true of them."""
    folders = [ROOT / "monai_anomaly", ROOT / "bundles", ROOT / "examples", Path(__file__).parent]
    found = hashlib.sha256()
    for file in sorted(file for folder in folders for file in folder.rglob("*")):
        own = file.relative_to(ROOT).parts
        if file.suffix in _CODE and not {"runs", "eval", "__pycache__"} & set(own):
            found.update("/".join(own).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def read_results(work_dir: Path, again: bool) -> Results:
    """What earlier runs of the same code found, by bundle and check; nothing with ``--again``."""
    file = work_dir / "results.json"
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() and not again else {}
    results: Results = content.get("results", {}) if content.get("code") == code_mark() else {}
    return results


def write_results(work_dir: Path, results: Results) -> None:
    """Keep what was found, so that a run that is stopped goes on from there."""
    temporary = work_dir / "results.json.tmp"
    temporary.write_text(json.dumps({"code": code_mark(), "results": results}, indent=2), encoding="utf-8")
    temporary.replace(work_dir / "results.json")


def open_checks(results: Results, bundle: str, checks: Sequence[str]) -> list[str]:
    """Checks of a bundle that have not passed yet."""
    return [check for check in checks if not results.get(bundle, {}).get(check, "").startswith(PASSED)]


def table(results: Mapping[str, Mapping[str, str]], bundles: Sequence[str], checks: Sequence[str]) -> str:
    """Markdown table bundle x check."""
    rows = [["bundle", *checks], ["---"] * (len(checks) + 1)]
    rows += [[bundle, *(results.get(bundle, {}).get(check, "not run") for check in checks)] for bundle in bundles]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def finish(results: Results, bundles: Sequence[str], checks: Sequence[str]) -> int:
    """Print the table; the exit status is 1 when a check of a bundle has not passed."""
    print(table(results, bundles, checks))
    failed = [bundle for bundle in bundles if open_checks(results, bundle, checks)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
