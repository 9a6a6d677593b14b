# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import sys

from .matrix import Matrix
from .plan import plan
from .runner import command, run_job, run_matrix
from .table import write_tables


def _run(options: argparse.Namespace) -> int:
    matrix = Matrix.read(options.matrix)
    jobs = plan(matrix, options.data, options.output)
    if options.dry_run:
        print("\n".join(command(step) for job in jobs for step in job["steps"]))
        return 0
    failed = run_matrix(jobs, options.jobs)
    print(write_tables(matrix, options.output))
    return 1 if failed else 0


def _table(options: argparse.Namespace) -> int:
    print(write_tables(Matrix.read(options.matrix), options.output))
    return 0


def _job(options: argparse.Namespace) -> int:
    run_job(json.load(sys.stdin))
    return 0


def main() -> int:
    """Entry point of ``python -m monai_anomaly.benchmark``."""
    parser = argparse.ArgumentParser(
        prog="python -m monai_anomaly.benchmark", description="Methods x data sets x seeds."
    )
    commands = parser.add_subparsers(required=True)
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
    options = parser.parse_args()
    try:
        return int(options.run(options))
    except (ValueError, OSError) as error:
        if options.run is _job:  # its log shall say where it happened
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
