# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import ignite.distributed as idist
from tqdm import tqdm

from ...utils import check_output, write_json
from ..datalist import SECTIONS, PathLike
from .checks import count_items, find_errors, find_warnings
from .image_digest import digest_items, with_shared_thumbnails
from .items import AuditItem, Finding, fingerprint, grouped, read_items, unread_warnings
from .retaken import find_retaken
from .scores import baseline_warnings, duplicate_warnings, find_shared_pictures, score_baselines
from .unlabeled import (
    IGNORED,
    LEARNED,
    TRANSDUCTIVE,
    UNLABELED_USES,
    missing_unlabeled,
    retaken_warnings,
    shown_test_images,
    transductive_warning,
    without_test_copies,
)

AUDIT_VERSION = 5
AUDIT_FILE = "audit.json"
_MOST_THREADS = 8

logger = logging.getLogger(__name__)


class AuditError(ValueError):
    """The data cannot be used; the text lists the errors with files and remedies, equal ones together.

    Args:
        datalist: the file audited.
        errors: as in ``audit.json``.
    """

    def __init__(self, datalist: str, errors: Sequence[Finding]) -> None:
        groups = grouped(errors)
        lines = [f"  [{e['code']}] {e['message']}: {e['remedy']}" for e in groups]
        if len(groups) < len(errors):
            lines.append(f"  one by one, with their files, in {AUDIT_FILE}")
        super().__init__("\n".join([f"audit of {datalist} found {len(errors)} error(s):", *lines]))
        self.datalist = datalist
        self.errors = list(errors)


class DatalistAudit:
    """Look at every file of a datalist before training, and at what could be reached without learning.

    Each file is decoded once, in threads, into a small thumbnail and a few numbers; all comparisons work on these.

    Args:
        datalist: JSON file with the sections ``training``, ``unlabeled``, ``validation``, ``testing`` or some of them.
        dataset_dir: folder that its paths are relative to; None (default): the folder of the datalist.
        output_dir: folder for ``audit.json``; None (default) writes nothing. An audit found there is taken over when
            neither the datalist nor size and time of any file have changed since, and it had no errors.
        sections: sections to look at; None (default): all that are there.
        num_workers: decoding threads; None (default): the number of cores, at most 8.
        seed: of the random choice of training images for the PCA baseline, used above 4,000 of them.
        spatial_dims: number of spatial axes to demand (2 or 3); None (default): that all images have the same.
        in_channels: number of channels to demand; None (default): that all images have the same.
        progress: whether to show a progress bar.
        unlabeled: what the method does with unlabeled images. ``"ignored"`` (default): it does not see them.
            ``"learned"``: it learns from the section ``unlabeled``, which must be there and must not show what is in
            ``testing``: exact copies, near-duplicates and pictures of one scene taken again are errors.
            ``"transductive"``: it learns from the test images themselves; allowed, and marked in every report.

    Raises:
        ValueError: for other arguments.

    Example:
        >>> from monai_anomaly.data import DatalistAudit, sample_dir
        >>> audit = DatalistAudit(f"{sample_dir()}/datalist.json", sections=["validation"], progress=False)
        >>> result = audit.run()
        >>> result["errors"]
        []
    """

    def __init__(
        self,
        datalist: PathLike,
        dataset_dir: PathLike | None = None,
        output_dir: PathLike | None = None,
        sections: Sequence[str] | None = None,
        num_workers: int | None = None,
        seed: int = 0,
        spatial_dims: int | None = None,
        in_channels: int | None = None,
        progress: bool = True,
        unlabeled: str = IGNORED,
    ) -> None:
        if sections is not None and (isinstance(sections, str) or not sections or set(sections) - set(SECTIONS)):
            raise ValueError(f"sections must be None or a list of some of {list(SECTIONS)}, got {sections!r}")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"num_workers must be at least 0 or None, got {num_workers!r}")
        if spatial_dims not in (None, 2, 3):
            raise ValueError(f"spatial_dims must be 2, 3 or None, got {spatial_dims!r}")
        if in_channels is not None and in_channels < 1:
            raise ValueError(f"in_channels must be at least 1 or None, got {in_channels!r}")
        if unlabeled not in UNLABELED_USES:
            raise ValueError(f"unlabeled must be one of {list(UNLABELED_USES)}, got {unlabeled!r}")
        self.unlabeled = unlabeled
        self.datalist = os.fspath(datalist)
        self.dataset_dir = dataset_dir
        self.output_dir = None if output_dir is None else check_output(output_dir)
        self.sections = None if sections is None else list(sections)
        self.num_workers = min(_MOST_THREADS, os.cpu_count() or 1) if num_workers is None else num_workers
        self.seed = seed
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.progress = progress

    def run(self) -> dict[str, Any]:
        """Return the audit, log its warnings, and stop where the data has errors.

        In a distributed run the first rank works and tells the others the outcome, so that all go on or stop together.

        Returns:
            What ``audit.json`` holds: ``datalist``, ``fingerprint``, ``version``, ``unlabeled``, ``counts``,
            ``errors`` (empty), ``warnings``, ``images``, ``near_duplicates``, ``retaken`` and ``baselines``.

        Raises:
            AuditError: listing every error of the data.
            ValueError: when the datalist cannot be read.
        """
        result = _on_first_rank(self.inspect)
        if result["errors"]:
            raise AuditError(result["datalist"], result["errors"])
        return result

    def inspect(self) -> dict[str, Any]:
        """Return the audit with its errors instead of raising them; on this process only."""
        started = time.perf_counter()
        items, errors = read_items(self.datalist, self.dataset_dir, self.sections)
        settings = [AUDIT_VERSION, self.sections, self.seed, self.spatial_dims, self.in_channels, self.unlabeled]
        mark = fingerprint(self.datalist, items, settings)
        result = self._stored(mark)
        if result is None:
            result = self._examine(items, errors, mark)
            if self.output_dir is not None:
                write_json(self.output_dir / AUDIT_FILE, result, shared=True)
            logger.info("audited %d images in %.1f s", len(items), time.perf_counter() - started)
        for warning in result["warnings"]:
            logger.warning("%s: %s: %s", warning["code"], warning["message"], warning["remedy"])
        return result

    def _examine(self, items: list[AuditItem], errors: list[Finding], mark: str) -> dict[str, Any]:
        digests = digest_items([item.item for item in items], self.num_workers, self.spatial_dims)
        bar = tqdm(
            with_shared_thumbnails(digests, len(items)), "audit", len(items), unit="image", disable=not self.progress
        )
        for item, digest in zip(items, bar, strict=True):
            item.digest = digest
        baselines = score_baselines(items, self.seed)
        shared = find_shared_pictures(items)
        learned, transductive = self.unlabeled == LEARNED, self.unlabeled == TRANSDUCTIVE
        retaken = find_retaken(items, self.num_workers) if learned else []
        if learned:
            errors = errors + missing_unlabeled(items, self.datalist) + shown_test_images(items, shared, retaken)
        # each of these is then an error of its own, or what was asked for
        warned = without_test_copies(shared) if learned or transductive else shared
        warnings = [transductive_warning(items)] if transductive else []
        warnings += unread_warnings(self.datalist) + find_warnings(items, self.unlabeled)
        warnings += duplicate_warnings(warned) + retaken_warnings(retaken)
        return {
            "datalist": self.datalist,
            "fingerprint": mark,
            "version": AUDIT_VERSION,
            "unlabeled": self.unlabeled,
            "counts": count_items(items),
            "errors": errors + find_errors(items, self.in_channels, self.unlabeled),
            "warnings": warnings + baseline_warnings(baselines),
            "images": _files_by_section(items),
            "near_duplicates": shared,
            "retaken": retaken,
            "baselines": baselines,
        }

    def _stored(self, mark: str) -> dict[str, Any] | None:
        """Return the audit of the same data in the output folder; one with errors is done again, they may be mended."""
        if self.output_dir is None:
            return None
        try:
            stored = json.loads((self.output_dir / AUDIT_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = isinstance(stored, dict) and stored.get("fingerprint") == mark and not stored.get("errors")
        return stored if same else None


def _files_by_section(items: Sequence[AuditItem]) -> dict[str, list[str]]:
    """Files in the order of the baselines' scores."""
    files: dict[str, list[str]] = {}
    for item in items:
        files.setdefault(item.section, []).append(item.file)
    return files


def _on_first_rank(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run ``work`` on rank 0 and return its result, or raise its failure, on every rank."""
    if idist.get_world_size() == 1:
        return work()
    failure: Exception | None = None
    message: dict[str, Any] = {}
    if idist.get_rank() == 0:
        try:
            message = {"result": work()}
        except Exception as error:  # the other ranks wait: whatever happens here, they must hear of it
            failure, message = error, {"failure": f"{type(error).__name__}: {error}"}
    # ASCII only: the broadcast of a string counts characters, not bytes
    message = json.loads(str(idist.broadcast(json.dumps(message), src=0, safe_mode=True)))
    if failure is not None:
        raise failure
    if "failure" in message:
        raise ValueError(f"the audit failed on rank 0: {message['failure']}")
    return dict(message["result"])
