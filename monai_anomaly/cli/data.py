# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Commands on data. What they need is imported only when they run, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

# as in monai_anomaly.data.datalist and data.audit.unlabeled
SECTIONS = ("training", "unlabeled", "validation", "testing")
UNLABELED_USES = ("ignored", "learned", "transductive")


def main(arguments: Sequence[str] | None = None, prog: str = "python -m monai_anomaly.data") -> int:
    """Run one command and return its exit status: 0; 1 where the audit finds errors; 2 when the input is wrong.

    Args:
        arguments: the command line without the program's name; default is the process's own.
        prog: what the program is called in its help.
    """
    parser = argparse.ArgumentParser(prog=prog, description="Make and check datalists.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_convert_csv(commands)
    _add_convert_folder(commands)
    _add_validate(commands)
    _add_phantom(commands)
    _add_sample(commands)
    _add_unlabeled(commands)
    _add_audit(commands)
    options = parser.parse_args(arguments)
    from ..utils.failures import run_command

    return run_command(lambda: options.run(options))


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise ValueError(f"expected NAME=VALUE, got {text!r}")
    return dict(text.split("=", 1) for text in texts)  # type: ignore[misc]


def _summary(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _report(output: Path, counts: dict[str, int], base: Path) -> None:
    print(f"{output}: {_summary(counts)}")
    if os.path.realpath(base) != os.path.realpath(output.parent):
        print(f"its paths are relative to {base}: give this folder as dataset_dir")


def _add_convert_csv(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("convert-csv", help="datalist from a CSV with one row an image")
    parser.add_argument("index", type=Path, help="CSV file with columns image, mask, label, patient, split")
    parser.add_argument("output", type=Path, help="datalist JSON to write")
    parser.add_argument("--where", nargs="+", action="extend", default=[], metavar="COLUMN=VALUE", help="rows to keep")
    parser.add_argument(
        "--where-eval",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN=VALUE",
        help="rows to keep in validation and testing; the other sections keep all",
    )
    parser.add_argument("--split-column", default="split", help="column that decides the section (default split)")
    parser.add_argument(
        "--section",
        nargs="+",
        action="extend",
        default=[],
        metavar="VALUE=SECTION",
        help=f"section ({', '.join(SECTIONS)}) of a further value of the split column",
    )
    parser.add_argument(
        "--column",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=COLUMN",
        help="column of image, label (mask), target, patient or foreground, where it has another name",
    )
    parser.add_argument("--extra", nargs="+", action="extend", default=[], help="numeric columns to carry over, e.g. z")
    parser.add_argument("--base-dir", type=Path, help="folder the paths are relative to (default: that of the CSV)")
    parser.add_argument(
        "--unlabeled-targets",
        action="store_true",
        help="write the targets of 'unlabeled' too, for the command 'unlabeled' and for reports; no method sees them",
    )
    parser.set_defaults(run=_run_convert_csv)


def _run_convert_csv(options: argparse.Namespace) -> None:
    from ..data.convert_csv import convert_csv

    counts = convert_csv(
        options.index,
        options.output,
        options.where,
        options.where_eval,
        options.split_column,
        _pairs(options.column),
        _pairs(options.section),
        options.extra,
        options.base_dir,
        options.unlabeled_targets,
    )
    _report(options.output, counts, options.base_dir or options.index.parent)


def _add_convert_folder(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("convert-folder", help="datalist from a folder with normal/, abnormal/ and masks/")
    parser.add_argument("root", type=Path, help="folder with normal/, abnormal/ and optionally masks/")
    parser.add_argument("output", type=Path, help="datalist JSON to write")
    parser.add_argument("--validation", type=float, default=0.15, help="fraction of normal patients (default 0.15)")
    parser.add_argument("--testing", type=float, default=0.25, help="fraction of normal patients (default 0.25)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    parser.add_argument(
        "--patient-pattern", help="regular expression whose first group is the patient, e.g. '(p[0-9]+)_'"
    )
    parser.add_argument("--base-dir", type=Path, help="folder the paths are relative to (default: ROOT)")
    parser.set_defaults(run=_run_convert_folder)


def _run_convert_folder(options: argparse.Namespace) -> None:
    from ..data.convert_folder import convert_folder

    counts = convert_folder(
        options.root,
        options.output,
        options.validation,
        options.testing,
        options.seed,
        options.patient_pattern,
        options.base_dir,
    )
    _report(options.output, counts, options.base_dir or options.root)
    if options.patient_pattern is None:
        print("each file counts as a patient of its own: where a patient has several images, give --patient-pattern")


def _add_validate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("validate", help="check the form of a datalist and that its files exist")
    parser.add_argument("datalist", type=Path)
    parser.add_argument(
        "--base-dir", type=Path, help="folder the paths are relative to (default: that of the datalist)"
    )
    parser.set_defaults(run=_run_validate)


def _run_validate(options: argparse.Namespace) -> None:
    from ..data.datalist import validate_datalist

    print(f"{options.datalist}: {_summary(validate_datalist(options.datalist, options.base_dir))}")


def _add_phantom(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("phantom", help="generate a small data set to try things out")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--spatial-dims", type=int, default=2, choices=(2, 3))
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default 64)")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_run_phantom)


def _run_phantom(options: argparse.Namespace) -> None:
    from ..data.phantom import make_phantom

    print(make_phantom(options.folder, options.spatial_dims, options.size, seed=options.seed))


def _add_sample(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("sample", help="print the folder of an embedded sample")
    parser.add_argument("name", nargs="?", default="radiographs", help="radiographs (default) or retina")
    parser.set_defaults(run=_run_sample)


def _run_sample(options: argparse.Namespace) -> None:
    from ..data.sample_data import sample_dir

    print(sample_dir(options.name))


def _add_unlabeled(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "unlabeled",
        help="datalist whose unlabeled set has a chosen ratio of anomalous images",
        description="Draw from the unlabeled images of a datalist, which must have targets, a set of a chosen ratio of "
        "anomalous ones, by patient. The other sections stay as they are; no method sees the targets.",
    )
    parser.add_argument("datalist", type=Path, help="datalist JSON with targets in its section 'unlabeled'")
    parser.add_argument("output", type=Path, help="datalist JSON to write; its paths stay those of DATALIST")
    parser.add_argument(
        "--ratio", type=float, help="share of anomalous images, 0 to 1, e.g. 0.6 (default: keep all images)"
    )
    parser.add_argument("--size", type=int, help="with --ratio: number of images (default: that of the smaller class)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default 0)")
    parser.add_argument(
        "--compat", choices=["ddad"], help="with --ratio: first images in file order, as DDAD's code does"
    )
    parser.add_argument(
        "--without",
        nargs="+",
        action="extend",
        default=[],
        metavar="IMAGE",
        help="images to leave out first, such as those that the audit found in the test set",
    )
    parser.add_argument(
        "--dataset-dir", type=Path, help="folder the paths are relative to, for --without (default: that of DATALIST)"
    )
    parser.set_defaults(run=_run_unlabeled)


def _run_unlabeled(options: argparse.Namespace) -> None:
    from ..data.unlabeled_pool import draw_datalist

    info = draw_datalist(
        options.datalist,
        options.output,
        options.ratio,
        options.size,
        options.seed,
        options.compat,
        options.without,
        options.dataset_dir,
    )
    shares = "" if info["ratio"] is None else f", {info['anomalous']} of them anomalous (ratio {info['ratio']:.3f})"
    print(f"{options.output}: unlabeled {info['size']}{shares}")
    if os.path.realpath(options.output.parent) != os.path.realpath(options.datalist.parent):
        print(f"its paths are those of {options.datalist}: give the same dataset_dir, by default its folder")


def _add_audit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "audit",
        help="look at every file of a datalist and at what could be scored without learning",
        description="Check every file of a datalist, look for copies across sections, and score trivial baselines. "
        "Exit code 1 where there are errors.",
    )
    parser.add_argument("datalist", help="datalist JSON")
    parser.add_argument("--dataset-dir", help="folder that its paths are relative to (default: that of the datalist)")
    parser.add_argument("--output-dir", help="folder for audit.json; an unchanged audit there is taken over")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, help="only these sections")
    parser.add_argument("--spatial-dims", type=int, choices=(2, 3), help="demand so many spatial axes")
    parser.add_argument("--in-channels", type=int, help="demand so many channels")
    parser.add_argument("--num-workers", type=int, help="decoding threads (default: number of cores, at most 8)")
    parser.add_argument(
        "--unlabeled",
        choices=UNLABELED_USES,
        default=UNLABELED_USES[0],
        help="what the method does with unlabeled images: ignored (default), learned (test images must not be among "
        "them), transductive (it learns from the test images themselves, which is marked in every report)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the whole audit as JSON instead of tables")
    parser.set_defaults(run=_run_audit)


def _run_audit(options: argparse.Namespace) -> int:
    from ..data.audit.cli import run

    return run(options)
