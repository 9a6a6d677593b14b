# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os

import torch
from ignite.engine import Engine

from ..data.datalist import UNLABELED
from ..data.pseudo_items import PSEUDO_LABELS
from ..data.unlabeled_pool import unlabeled_targets
from ..functional.pseudo_labels import Mode, PseudoLabels, pseudo_labels, purity
from ..utils import finite_or_none, write_json
from .image_rows import ImageRows, Row

logger = logging.getLogger(__name__)


class PseudoLabelWriter(ImageRows):
    """Writes ``pseudo_labels.json``: which unlabeled images a classifier is sure of, for stage 2 of AMAE.

    Beside the two lists of images it holds thresholds and counts and, where the datalist tells what the images are, how
    pure the lists are. That is for the reader; nothing learns from it.

    Args:
        output_dir: folder of the file, made if missing.
        base_dir: folder of the data set; files are named relative to it.
        datalist: datalist of the images, for the purity; None: not reported.
        percent: see :func:`monai_anomaly.functional.pseudo_labels`, as the mode.
        mode: reading of the paper's rule.
        section: section of the images.

    Raises:
        ValueError: at the end, when no image is called abnormal, since stage 2 cannot do without; the file is there.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        base_dir: str | os.PathLike[str],
        datalist: str | os.PathLike[str] | None = None,
        percent: float = 50.0,
        mode: Mode = "per_predicted_class",
        section: str = "unlabeled",
    ) -> None:
        super().__init__(output_dir, base_dir)
        pseudo_labels(torch.tensor([0.1, 0.9]), percent, mode)  # refuses settings out of range before any work
        self.datalist = datalist
        self.percent = percent
        self.mode = mode
        self.section = section

    def write(self, engine: Engine, rows: list[Row]) -> None:
        """Write the file, all or nothing, and say what is in it."""
        chosen = pseudo_labels([row["score"] for row in rows], self.percent, self.mode)
        names = {kind: [rows[i]["image"] for i in getattr(chosen, kind).tolist()] for kind in ("normal", "abnormal")}
        content = {
            "percent": self.percent,
            "mode": self.mode,
            "section": self.section,
            "thresholds": {
                "normal": finite_or_none(chosen.threshold_normal),
                "abnormal": finite_or_none(chosen.threshold_abnormal),
            },
            "counts": _counts(chosen, len(rows)),
            "purity": self._purity(rows, chosen),
            **names,
        }
        path = self.output_dir / PSEUDO_LABELS
        write_json(path, content)
        logger.info("pseudo-labels: %s, purity %s, in %s", content["counts"], content["purity"], path)
        if not names["abnormal"]:
            raise ValueError(
                f"{path}: no unlabeled image is called abnormal, so stage 2 has nothing to learn the abnormal "
                "distribution from: use stage 1 alone, train it longer, add unlabeled images, or take "
                "--pseudo_label_mode global, which always calls a share of them abnormal"
            )

    def _purity(self, rows: list[Row], chosen: PseudoLabels) -> dict[str, float | None]:
        """Share of the chosen images that are what they are called; None where nobody knows."""
        targets: list[int | None] = [None] * len(rows)
        if self.datalist is not None:
            known = unlabeled_targets(self.datalist, self.base_dir) if self.section == UNLABELED else {}
            targets = [known.get(row["source"], row["target"]) for row in rows]
        shares = purity(chosen, [-1 if target is None else target for target in targets])
        return {kind: finite_or_none(share) for kind, share in shares._asdict().items()}


def _counts(chosen: PseudoLabels, total: int) -> dict[str, int]:
    normal, abnormal = len(chosen.normal), len(chosen.abnormal)
    return {"unlabeled": total, "normal": normal, "abnormal": abnormal, "left_out": total - normal - abnormal}
