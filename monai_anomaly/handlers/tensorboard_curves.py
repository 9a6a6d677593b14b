# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

from monai.handlers import TensorBoardStatsHandler

from ..utils import check_output


class TensorBoardCurves(TensorBoardStatsHandler):
    """MONAI's ``TensorBoardStatsHandler``, which writes where the run of a bundle may write, and nowhere else.

    Args:
        log_dir: folder of the event file.
        kwargs: other arguments of ``TensorBoardStatsHandler``, without ``summary_writer``, which has its own folder.

    Raises:
        ValueError: when ``log_dir`` is outside the folders of the run, or there is a ``summary_writer``.
    """

    def __init__(self, log_dir: str = "./runs", **kwargs: Any) -> None:
        if "summary_writer" in kwargs:
            raise ValueError("summary_writer has a folder of its own: give log_dir")
        super().__init__(log_dir=str(check_output(log_dir)), **kwargs)
