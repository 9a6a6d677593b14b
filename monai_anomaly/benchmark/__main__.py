# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys

from ..cli.benchmark import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
