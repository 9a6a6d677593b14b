# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from ..utils import atomic_path

logger = logging.getLogger(__name__)


class CheckpointFile:
    """A file that a run goes on from, and beside it the one before, for the day that the newer one cannot be read.

    Both are replaced whole and are on the disk before they are, so neither a kill nor a power cut costs both.

    Args:
        path: the file; the one before has ``_before`` in its name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.before = self.path.with_name(f"{self.path.stem}_before{self.path.suffix}")
        self._is_broken = False  # the newest file, which must not take the place of the one before

    def save(self, state: dict[str, Any]) -> None:
        """Write a new file and keep the one that was there.

        Raises:
            OSError: naming the file, when there is no room for it; what was there still is.
        """
        with atomic_path(self.path, durable=True) as temporary:
            torch.save(state, temporary)
            if self.path.is_file() and not self._is_broken:
                self._keep()
        self._is_broken = False

    def _keep(self) -> None:
        with atomic_path(self.before) as temporary:
            temporary.unlink(missing_ok=True)  # a kill between the next two steps leaves it
            try:
                os.link(self.path, temporary)
            except OSError:  # a file system without links
                shutil.copyfile(self.path, temporary)

    def load(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """What the newest readable file holds; None where there is no file.

        Raises:
            ValueError: naming the files and the remedy, when none of those that are there can be read.
        """
        problems = []
        for path in filter(Path.is_file, (self.path, self.before)):
            try:
                state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            except Exception as error:  # PyTorch raises many kinds for a broken file, some without a text
                problems.append(f"{path} cannot be read ({str(error).partition(chr(10))[0] or type(error).__name__})")
                continue
            self._is_broken = bool(problems)
            for problem in problems:
                logger.warning("%s: going on from the checkpoint before, %s", problem, path.name)
            return state
        if problems:
            raise ValueError(
                f"{'; '.join(problems)}: a full disk or a power cut may have cut it off; put back a copy, or delete "
                f"{self.path.name} to start this training anew"
            )
        return None
