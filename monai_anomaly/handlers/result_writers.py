# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from ..data.audit.unlabeled import TRANSDUCTIVE, transductive_text
from ..functional.bootstrap import bootstrap_scores
from ..functional.curves import IMAGE_STATISTICS
from ..metrics import ReconstructionContent
from ..utils import Keys, csv_text, finite_or_none, lock_folder, read_settings, release_folder, write_json, write_text
from .image_rows import ImageRows, Row
from .member_loader import member_settings

_PARTIAL = "scores.partial.csv"


class ScoresWriter(ImageRows):
    """Writes ``scores.csv``: image, patient, target and score of every image, in the order of the datalist.

    A name or patient that a spreadsheet would take for a formula has an apostrophe before it
    (:func:`~monai_anomaly.utils.read_csv` takes it off).
    The file is there as soon as the last batch is scored: should a metric or the report fail, the scores are not lost.
    When an image stops the run, the scores before it, of several processes those of the first, are kept in
    ``scores.partial.csv``. While it runs, no other process may write results into the folder.

    Args:
        output_dir: folder of the file, made if missing.
        base_dir: folder of the data set; files in it are named relative to it.

    Raises:
        ValueError: at the start of a run, when the folder is in use by another process.
    """

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._finish_after_last_batch)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._keep_what_is_there)

    def _forget(self, engine: Engine) -> None:
        super()._forget(engine)
        if idist.get_rank() == 0:
            lock_folder(self.output_dir)
            (self.output_dir / _PARTIAL).unlink(missing_ok=True)  # of a run before this one
        if not engine.has_event_handler(self._release, Events.COMPLETED):
            engine.add_event_handler(Events.COMPLETED, self._release)  # now: after those that still write into it

    def _release(self, engine: Engine) -> None:
        release_folder(self.output_dir)

    def _finish_after_last_batch(self, engine: Engine) -> None:
        if engine.state.iteration == engine.state.epoch_length:
            self._finish(engine)

    def _keep_what_is_there(self, engine: Engine, error: Exception) -> None:
        # not gathered: the other processes may wait elsewhere
        if self._rows and idist.get_rank() == 0:
            self._write(_PARTIAL, self._rows)
        release_folder(self.output_dir)
        raise error

    def write(self, engine: Engine, rows: list[Row]) -> None:
        """Write the file, all or nothing."""
        self._write("scores.csv", rows)

    def _write(self, name: str, rows: list[Row]) -> None:
        write_text(self.output_dir / name, csv_text(rows, ["image", "patient", "target", "score"]))


class MetricsWriter(ImageRows):
    """Writes ``metrics.json``: metrics with their intervals, the trivial baselines beside them, the audit's warnings.

    Stands after an :class:`AnomalyMetrics` handler, whose results it writes. Baselines come from the ``audit.json`` in
    the same folder; their intervals are drawn here, over the same patients. Where the audit says that the method learns
    from the test images themselves, or the settings of the training do, the file has ``"transductive": true`` and a
    warning that stands first. Reconstructions that carry nothing of their images are a warning, too, and the working
    point of a :class:`HealthyReference` is taken over.

    Args:
        output_dir: folder of the file, made if missing.
        method: name of the method, for titles.
        settings: what else should be on record, such as seed and epochs: plain values.
        section: section(s) of the datalist evaluated.
        num_draws: bootstrap draws for the baselines.
        audit_dir: folder of ``audit.json``; None: ``output_dir``.
        checkpoint: file of the weights; the settings they were trained with are in it, or beside it in
            ``training.json``. Or a folder with the weights of folds.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        method: str = "",
        settings: Mapping[str, Any] | None = None,
        section: str | Sequence[str] = "testing",
        num_draws: int = 1000,
        audit_dir: str | os.PathLike[str] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(output_dir)
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.audit_dir = self.output_dir if audit_dir is None else Path(audit_dir)
        self.method = method
        self.settings = dict(settings or {})
        self.section = section
        self.num_draws = num_draws

    def _forget(self, engine: Engine) -> None:
        super()._forget(engine)
        self._content = ReconstructionContent()

    def row(self, item: Mapping[str, Any]) -> Row:
        """A row as in ``scores.csv``; what the reconstruction has of the image is added up."""
        if Keys.RECONSTRUCTION in item:
            self._content.update(item[Keys.IMAGE], item[Keys.RECONSTRUCTION])
        return super().row(item)

    def _finish(self, engine: Engine) -> None:
        self._about_reconstructions = self._content.warnings()  # of all processes, so all of them ask
        super()._finish(engine)

    def write(self, engine: Engine, rows: list[Row]) -> None:
        """Write the file, all or nothing, and print the table."""
        audit = read_audit(self.audit_dir)
        summary = engine.state.metric_summary  # type: ignore[attr-defined]
        scores = audit_scores(audit, self.section, rows)
        training = self._training()
        warnings = [warning["message"] for warning in audit.get("warnings", [])]
        mark: dict[str, Any] = {}
        if _is_transductive(audit, training):
            # whatever audit the evaluation finds, what the weights learned from stays on record
            mark = {TRANSDUCTIVE: True}
            told = [text for text in warnings if text.startswith(TRANSDUCTIVE)]
            others = [text for text in warnings if text not in told]
            warnings = (told or [transductive_text("learned from test images")]) + others
        content = {
            "method": self.method,
            **mark,
            "metrics": summary["metrics"],
            "baselines": self._baselines(scores, rows),
            "counts": summary["counts"],
            "working_point": getattr(engine.state, "working_point", None),
            "warnings": self._about_reconstructions
            + warnings
            + _unseen_images(audit, scores, rows)
            + summary["warnings"],
            "settings": training | self.settings | summary["settings"],
        }
        write_json(self.output_dir / "metrics.json", content)
        print(format_metrics(content))

    def _training(self) -> dict[str, Any]:
        """Settings of the training, not of this command, which cannot know them."""
        if self.checkpoint is None:
            return {}
        known = member_settings(self.checkpoint) if self.checkpoint.is_dir() else read_settings(self.checkpoint)
        return {"checkpoint": self.checkpoint.name, "training": known or "unknown"}

    def _baselines(self, baselines: Mapping[str, Sequence[float | None]], rows: list[Row]) -> dict[str, dict[str, Any]]:
        table = {}
        for name, scores in baselines.items():
            scored = [
                # without a name every image is its own patient, as for the method's own intervals
                (score, row["target"], row["patient"] or row["image"] or f"image {i}")
                for i, (score, row) in enumerate(zip(scores, rows, strict=True))
                if score is not None and row["target"] is not None
            ]
            if not scored:
                continue
            intervals = bootstrap_scores(
                IMAGE_STATISTICS,
                torch.tensor([score for score, _, _ in scored], dtype=torch.float64),
                torch.tensor([target for _, target, _ in scored]),
                [patient for _, _, patient in scored],
                self.num_draws,
            )
            table[name] = {
                metric: {key: finite_or_none(interval[key]) for key in ("value", "low", "high")}  # type: ignore[literal-required]
                for metric, interval in intervals.items()
            }
        return table


def _is_transductive(audit: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    training = settings.get("training")
    trained = training.get(TRANSDUCTIVE) if isinstance(training, Mapping) else None
    # folds that differ in a setting give a list of its values
    learned = any(value is True for value in (trained if isinstance(trained, list) else [trained]))
    return learned or audit.get("unlabeled") == TRANSDUCTIVE


def read_audit(folder: Path) -> dict[str, Any]:
    """Content of ``audit.json`` in ``folder``, or nothing where there was no audit."""
    path = folder / "audit.json"
    audit: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return audit


def audit_scores(
    audit: Mapping[str, Any], section: str | Sequence[str], rows: Sequence[Row]
) -> dict[str, list[float | None]]:
    """Scores of the trivial baselines for the evaluated images, None for those that the audit did not see.

    An image is found by its file; where no row names one, all images of the section in their order are meant.

    Args:
        audit: content of ``audit.json``.
        section: section, or sections, that were evaluated.
        rows: the evaluated images.

    Returns:
        baseline name to one score a row; without baselines that have no score here.
    """
    sections = [section] if isinstance(section, str) else list(section)
    images = audit.get("images", {})
    files = [file for name in sections for file in images.get(name, [])]
    nameless = not any(row.get("source") for row in rows)
    evaluated = files if nameless and len(files) == len(rows) else [_absolute(row.get("source")) for row in rows]
    table = {}
    for baseline, by_section in audit.get("baselines", {}).items():
        known: dict[str | None, float | None] = {}
        for name in sections:
            known |= zip(images.get(name, []), by_section.get(name, {}).get("scores", []), strict=False)
        scores = [known.get(file) for file in evaluated]
        if any(score is not None for score in scores):
            table[baseline] = scores
    return table


def _absolute(file: str | None) -> str | None:
    return os.path.abspath(file) if file else None


def _unseen_images(
    audit: Mapping[str, Any], scores: Mapping[str, Sequence[float | None]], rows: Sequence[Row]
) -> list[str]:
    """Warn where the baselines are missing or stand for a part of the images."""
    seen = max((sum(score is not None for score in values) for values in scores.values()), default=0)
    if not audit.get("baselines") or seen == len(rows):
        return []
    return [f"the trivial baselines stand for {seen} of the {len(rows)} evaluated images: the audit saw no others"]


def format_metrics(content: Mapping[str, Any]) -> str:
    """The metrics of ``metrics.json`` and its trivial baselines as a table for a terminal."""
    lines = [f"{'':36s} {'value':>7s}   95 % interval"]
    lines += [_line(name, entry) for name, entry in content["metrics"].items()]
    for name, metrics in content["baselines"].items():
        lines += [_line(f"{name} (no learning)", metrics["image_auroc"])]
    lines += [f"warning: {warning}" for warning in content["warnings"]]
    return "\n".join(lines)


def _line(name: str, entry: Mapping[str, Any]) -> str:
    value = "undefined" if entry["value"] is None else f"{entry['value']:.3f}"
    interval = "" if entry["low"] is None else f"[{entry['low']:.3f}, {entry['high']:.3f}]"
    return f"{name:36s} {value:>7s}   {interval}" + ("  (oracle threshold)" if entry.get("oracle") else "")
