# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``monai-anomaly``. Each part imports what it needs when it runs, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from .. import __version__
from ..bundle import cli as bundle
from . import benchmark, compare, data, gallery, runs

Main = Callable[[Sequence[str], str], int]
COMMANDS: dict[str, tuple[Main, str]] = {
    "data": (data.main, "make, check and audit datalists"),
    "bundle": (bundle.main, "make, lint, verify and pack bundles"),
    "train": (runs.train, "train a method"),
    "evaluate": (runs.evaluate, "score the test set: figures with intervals, and a report"),
    "infer": (runs.infer, "scores and heat maps of new images"),
    "compare": (compare.main, "train and evaluate several methods on one datalist: one table, one page"),
    "gallery": (gallery.main, "see synthetic anomalies on your own images"),
    "benchmark": (benchmark.main, "run a matrix of methods, data sets and seeds"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``monai-anomaly`` and ``python -m monai_anomaly``.

    Args:
        arguments: the command line without the program's name; default is the process's own.

    Returns:
        the exit code of the command, 2 for wrong use.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] in COMMANDS:
        run, _ = COMMANDS[given[0]]
        return run(given[1:], f"monai-anomaly {given[0]}")
    parser = argparse.ArgumentParser(
        prog="monai-anomaly",
        description="Learn what healthy looks like, then point at what does not belong.",
        epilog="monai-anomaly COMMAND --help says more. Not for clinical use.",
    )
    parser.add_argument("--version", action="version", version=f"monai-anomaly {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    parser.parse_args(given)
    return 0
