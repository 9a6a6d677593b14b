# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Puts this folder on the path of the tests below it: ``reference_mae`` serves more than one of them."""

from __future__ import annotations
