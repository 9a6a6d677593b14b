# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .export_cli import add_export, bundle_folder, quiet
from .recipe_names import recipe_names

_EPILOG = """Run lint on a foreign bundle from outside its folder, or with `python -P`: `python -m` imports from the
current folder first. Exit code 0: no errors; 1: errors; 2: wrong use."""


def main(arguments: Sequence[str] | None = None, prog: str = "python -m monai_anomaly.bundle") -> int:
    """Entry point of ``python -m monai_anomaly.bundle``.

    Args:
        arguments: the command line without the program's name; default is the process's own.
        prog: what the program is called in its help.

    Returns:
        the exit code: 0 without errors, 1 with some, 2 for wrong use.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in ("lint", "verify", "export"):
        _forget_paths_inside([Path(argument) for argument in arguments[1:]])
    parser = _parser(prog)
    options, settings = parser.parse_known_args(arguments)
    if settings and options.command != "export":  # the others have no settings of a bundle
        parser.error(f"unrecognized arguments: {' '.join(settings)}")
    options.settings = settings
    from ..utils.failures import run_command  # only now: it imports MONAI

    return run_command(lambda: options.run(options))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Make and check bundles.", epilog=_EPILOG)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_lint(commands)
    _add_verify(commands)
    _add_schema(commands)
    _add_build(commands)
    _add_create(commands)
    _add_pack(commands)
    add_export(commands)
    return parser


def _add_pack(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("pack", help="put the members of an ensemble, trained apart, into a bundle")
    command.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle; models/model.pt is written there")
    command.add_argument("run_dir", metavar="RUN_DIR", help="output_dir of the training, with fold_K/models")
    command.add_argument("--name", help="weights of each fold, such as model.pt (default: as the bundle scores)")
    command.set_defaults(run=_pack)


def _add_build(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("build", help="write the complete bundle folders from the recipes")
    names = recipe_names()
    command.add_argument("names", nargs="*", metavar="NAME", help=f"bundles to build, default all: {', '.join(names)}")
    command.add_argument("--output-dir", default="bundles", help="parent folder of the bundles (default: %(default)s)")
    command.set_defaults(run=_build)


def _add_create(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("create", help="make a new bundle of your own from a recipe")
    command.add_argument("name", choices=recipe_names(), metavar="NAME", help=", ".join(recipe_names()))
    command.add_argument("--output-dir", default=".", help="parent folder of the bundle (default: here)")
    command.add_argument("--weights", help="trained weights to put into models/model.pt, or a folder of folds")
    command.set_defaults(run=_create)


def _add_lint(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "lint", help="analyze bundle folders without running anything in them", epilog=_EPILOG
    )
    command.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="a bundle's folder")
    command.add_argument("--json", action="store_true", help="print the findings as JSON")
    command.add_argument("--strict", action="store_true", help="warnings count as errors")
    command.set_defaults(run=_lint)


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser("verify", help="lint, then build, export and load a bundle as MONAI does")
    command.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="a bundle's folder")
    command.add_argument("--json", action="store_true", help="print the results as JSON")
    command.add_argument("--trust", action="store_true", help="run the bundle's configs even when lint finds errors")
    command.add_argument("--p", type=int, default=4, help="value of p in spatial_shape (default 4)")
    command.add_argument("--n", type=int, default=4, help="value of n in spatial_shape (default 4)")
    command.add_argument("--any", type=int, default=64, help="value of * in spatial_shape (default 64)")
    command.set_defaults(run=_verify)


def _add_schema(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "schema", help="write the metadata schema, for MONAI's verify_metadata without a network"
    )
    command.add_argument("path", type=Path, help="file to write, such as eval/schema.json in the bundle")
    command.set_defaults(run=_schema)


def _lint(options: argparse.Namespace) -> int:
    from .lint import has_errors, lint_bundle, printable

    found = {str(bundle): lint_bundle(bundle_folder(bundle)) for bundle in options.bundles}
    failed = any(has_errors(findings) or (options.strict and findings) for findings in found.values())
    if options.json:
        print(
            json.dumps(
                {name: [finding.as_dict() for finding in findings] for name, findings in found.items()}, indent=2
            )
        )
        return int(failed)
    for name, findings in found.items():
        errors = sum(finding.severity == "error" for finding in findings)
        print(f"{printable(name)}: {errors} errors, {len(findings) - errors} warnings")
        for finding in findings:
            print(f"  {finding}")
    return int(failed)


def _verify(options: argparse.Namespace) -> int:
    from .lint import printable
    from .verify import FAIL, CheckResult, verify_bundle

    collected: dict[str, list[CheckResult]] = {}
    for bundle in options.bundles:
        if not options.json:
            print(printable(str(bundle)))
        show = None if options.json else lambda result: print(f"  {printable(str(result))}", flush=True)
        sizes = (options.p, options.n, options.any)
        with quiet():
            collected[str(bundle)] = verify_bundle(bundle_folder(bundle), options.trust, sizes, show)
    if options.json:
        print(
            json.dumps(
                {name: [result.as_dict() for result in results] for name, results in collected.items()}, indent=2
            )
        )
    return int(any(result.status == FAIL for results in collected.values() for result in results))


def _build(options: argparse.Namespace) -> int:
    from .build import build_bundle

    for name in options.names or recipe_names():
        print(build_bundle(name, options.output_dir))
    return 0


def _create(options: argparse.Namespace) -> int:
    from .build import create_bundle

    print(create_bundle(options.name, options.output_dir, options.weights))
    return 0


def _pack(options: argparse.Namespace) -> int:
    from .pack import pack_bundle

    folds = pack_bundle(options.bundle, options.run_dir, options.name)
    print(f"{Path(options.bundle) / 'models' / 'model.pt'}: folds {', '.join(map(str, folds))}")
    return 0


def _schema(options: argparse.Namespace) -> int:
    from .metadata import copy_schema

    copy_schema(options.path)
    return 0


def _forget_paths_inside(folders: Sequence[Path]) -> None:
    """Drop bundles from the import path before anything imports MONAI, so that a hostile ``yaml.py`` stays unread."""
    roots = [folder.resolve() for folder in folders if folder.is_dir()]
    sys.path[:] = [
        entry
        for entry in sys.path
        if not any(root in (Path(entry).resolve(), *Path(entry).resolve().parents) for root in roots)
    ]
