# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Several methods on one datalist; what it needs is imported only when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle.recipe_names import recipe_names
from .runs import add_images, as_written, is_bundle_folder, training_configurations, use_sample

if TYPE_CHECKING:
    from ..benchmark.comparison import Method

_EPILOG = """Every setting of a bundle is an option, and goes to the methods that have it: --max-epochs 50. The same
command goes on after an interruption."""


def main(arguments: Sequence[str] | None = None, prog: str = "monai-anomaly compare") -> int:
    """Train and evaluate several methods, and return the exit status: 0; 1 where one fails; 2 when the input is wrong.

    Args:
        arguments: the command line without the program's name; default is the process's own.
        prog: what the program is called in its help.
    """
    parser = _parser(prog)
    given = None if arguments is None else [as_written(argument) for argument in arguments]
    options, settings = parser.parse_known_args(given)
    if stray := [word for word in settings[:1] if not word.startswith("--")]:
        parser.error(f"bundles come first, got {stray[0]} after the options")
    from ..utils.failures import run_command

    return run_command(lambda: _compare(options, settings))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} BUNDLE BUNDLE ... --output-dir DIR [options] [--SETTING VALUE ...]",
        description="Train and evaluate several methods on one datalist: one table, and one page with intervals, the "
        "difference of each to the best over the same patients, and example maps.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("bundles", nargs="+", metavar="BUNDLE", help=f"folders of bundles, or names: {', '.join(recipe_names())}")
    add("--output-dir", required=True, metavar="DIR", help="everything that is written; comparison.html is the page")
    add_images(parser)
    add(
        "--seeds",
        nargs="+",
        type=int,
        default=[0],
        metavar="N",
        help="train each method with each of these (default 0)",
    )
    add("--jobs", type=int, default=1, help="trainings at a time, sharing the cores (default: %(default)s)")
    add("--dry-run", action="store_true", help="print the commands of MONAI that do the same, and train nothing")
    return parser


def _compare(options: argparse.Namespace, settings: Sequence[str]) -> int:
    from ..benchmark.comparison import comparison_matrix
    from ..benchmark.comparison_report import write_comparison
    from ..benchmark.plan import plan
    from ..benchmark.runner import command, run_matrix

    use_sample(options)
    output = Path(options.output_dir).resolve()
    methods = [_method(bundle, output / "bundles") for bundle in options.bundles]
    matrix = comparison_matrix(methods, options.datalist, options.dataset_dir, options.seeds, _values(settings))
    jobs = plan(matrix, None, output)
    print("\n\n".join(command(step) for job in jobs for step in job["steps"]), flush=True)
    if options.dry_run:
        return 0
    if failed := run_matrix(jobs, options.jobs):
        print(f"no comparison: {len(failed)} of {len(jobs)} trainings failed, see log.txt in {', '.join(failed)}")
        return 1
    print(write_comparison(matrix, output, jobs[0]["steps"][0]["overrides"]["dataset_dir"]))
    return 0


def _method(bundle: str, folder: Path) -> Method:
    from ..benchmark.comparison import Method
    from ..bundle.build import build_bundle

    if is_bundle_folder(bundle):
        path = Path(bundle).resolve()
        return Method(str(path), path, training_configurations(path))
    if bundle not in recipe_names():
        raise ValueError(f"{bundle} is neither the folder of a bundle nor one of {', '.join(recipe_names())}")
    path = build_bundle(bundle, folder)
    return Method(bundle, path, training_configurations(path))


def _values(settings: Sequence[str]) -> dict[str, Any]:
    """Settings as MONAI's command line reads them."""
    from fire.parser import DefaultParseValue

    found: dict[str, Any] = {}
    words = list(settings)
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("--") or not (equals or words):
            raise ValueError(f"settings are given as --NAME VALUE, got {name}")
        found[name[2:]] = DefaultParseValue(value if equals else words.pop(0))
    return found
