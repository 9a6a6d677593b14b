# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any


def locals_of_caller(module: str, function: str) -> Mapping[str, Any]:
    """Local variables of the innermost call of a function that is under way; empty where there is none.

    MONAI tells neither a configuration which file it was read from nor a network which command loads it. The few places
    that must know look here, and do without where a release of MONAI names things otherwise.

    Args:
        module: dotted name of the module that defines the function.
        function: name of the function.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == function and frame.f_globals.get("__name__") == module:
            return frame.f_locals
        frame = frame.f_back
    return {}
