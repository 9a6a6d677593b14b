# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

from ...utils import message_of_ours
from ..datalist import TESTING, VALIDATION
from .datalist_audit import DatalistAudit
from .items import Finding, grouped


def run(args: argparse.Namespace) -> int:
    """Audit, print, and return the exit code: 1 where the data has errors, else 0.

    Args:
        args: options of the command ``audit``, see ``monai_anomaly/cli/data.py``.
    """
    audit_logger = logging.getLogger("monai_anomaly.data.audit")
    level = audit_logger.level
    audit_logger.setLevel(logging.ERROR)  # the table shows the warnings
    try:
        result = _audit(args)
    except ValueError as error:
        if message_of_ours(error) is None:
            raise
        print(json.dumps({"failure": str(error)}, indent=2) if args.json else f"error: {error}")
        return 1
    finally:
        audit_logger.setLevel(level)
    print(json.dumps(result, indent=2) if args.json else format_audit(result))
    return 1 if result["errors"] else 0


def _audit(args: argparse.Namespace) -> dict[str, Any]:
    return DatalistAudit(
        args.datalist,
        args.dataset_dir,
        args.output_dir,
        args.sections,
        args.num_workers,
        args.seed,
        args.spatial_dims,
        args.in_channels,
        progress=not args.json,
        unlabeled=args.unlabeled,
    ).inspect()


def format_audit(result: dict[str, Any]) -> str:
    """Return an audit as text: counts, errors, warnings, baselines."""
    parts = [f"Audit of {result['datalist']}", _counts(result["counts"])]
    parts += [_findings("Errors", result["errors"]), _findings("Warnings", result["warnings"])]
    if result["baselines"]:
        parts.append(_baselines(result["baselines"]))
    return "\n\n".join(parts)


def _table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: list[str]) -> str:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def _counts(counts: dict[str, dict[str, int]]) -> str:
    columns = ["images", "healthy", "anomalous", "unknown", "patients"]
    return _table(["section", *columns], [[name, *(str(count[c]) for c in columns)] for name, count in counts.items()])


def _findings(title: str, findings: list[Finding]) -> str:
    groups = grouped(findings)
    lines = [f"  [{f['code']}] {f['message']}\n      remedy: {f['remedy']}" for f in groups]
    if len(groups) < len(findings):
        lines.append("  (--json lists them one by one)")
    return "\n".join([f"{title}: {len(findings) or 'none'}", *lines])


def _baselines(baselines: dict[str, dict[str, dict[str, Any]]]) -> str:
    columns = [(section, metric) for section in (VALIDATION, TESTING) for metric in ("image_auroc", "image_ap")]
    rows = [[name, *(_cell(sections.get(s, {}).get(m)) for s, m in columns)] for name, sections in baselines.items()]
    short = {"image_auroc": "AUROC", "image_ap": "AP"}
    table = _table(["baseline", *(f"{section} {short[metric]}" for section, metric in columns)], rows)
    return f"Trivial baselines (no learning; below 0.5 the score is inverted)\n\n{table}"


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
