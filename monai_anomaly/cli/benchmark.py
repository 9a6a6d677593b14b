# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Commands on a matrix of methods, data sets and seeds; what they need is imported only when they run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None, prog: str = "python -m monai_anomaly.benchmark") -> int:
    """Run one command and return its exit status: 0; 1 where a job fails; 2 when the input is wrong.

    Args:
        arguments: the command line without the program's name; default is the process's own.
        prog: what the program is called in its help.
    """
    options = _parser(prog).parse_args(arguments)
    if options.run is _job:  # its log shall say where an error happened
        return _job(options)
    from ..utils.failures import run_command

    return run_command(lambda: options.run(options))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Methods x data sets x seeds.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run a matrix; finished jobs are skipped, killed ones go on")
    run.add_argument("matrix", help="JSON file of the matrix")
    run.add_argument("--data", help="folder of the data sets that are not embedded")
    run.add_argument("--output", required=True, help="folder of the results")
    run.add_argument("--jobs", type=int, default=1, help="jobs at a time, sharing the cores (default: %(default)s)")
    run.add_argument(
        "--dry-run", action="store_true", help="print the bundle commands that do the same, and train nothing"
    )
    run.set_defaults(run=_run)
    table = commands.add_parser("table", help="write the tables of what is finished so far")
    table.add_argument("matrix", help="JSON file of the matrix")
    table.add_argument("--output", required=True, help="folder of the results")
    table.set_defaults(run=_table)
    job = commands.add_parser("job", help="run one job, given as JSON on standard input")
    job.set_defaults(run=_job)
    return parser


def _run(options: argparse.Namespace) -> int:
    from ..benchmark.matrix import Matrix
    from ..benchmark.plan import plan
    from ..benchmark.runner import command, run_matrix
    from ..benchmark.table import write_tables

    matrix = Matrix.read(options.matrix)
    jobs = plan(matrix, options.data, options.output)
    if options.dry_run:
        print("\n".join(command(step) for job in jobs for step in job["steps"]))
        return 0
    failed = run_matrix(jobs, options.jobs)
    print(write_tables(matrix, options.output))
    return 1 if failed else 0


def _table(options: argparse.Namespace) -> int:
    from ..benchmark.matrix import Matrix
    from ..benchmark.table import write_tables

    print(write_tables(Matrix.read(options.matrix), options.output))
    return 0


def _job(options: argparse.Namespace) -> int:
    from ..benchmark.runner import run_job

    run_job(json.load(sys.stdin))
    return 0
