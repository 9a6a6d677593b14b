# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations


class Keys:
    """Names of the fields in a sample, a batch and an engine's output.

    ``IMAGE`` and ``LABEL`` agree with MONAI's ``CommonKeys``; a label is a pixel mask, a target the class of the whole
    image. A synthetic anomaly adds the image without it (``CLEAN``), where it is (``SUPPORT``), the kind (``TASK``) and
    what was drawn (``PARAMS``). ``FEATURES`` is what a frozen encoder makes of an image, where it was asked before.
    """

    IMAGE = "image"
    LABEL = "label"
    TARGET = "target"
    PATIENT = "patient"
    FOREGROUND = "foreground"
    INDEX = "index"
    MAP = "anomaly_map"
    SCORE = "score"
    RECONSTRUCTION = "reconstruction"
    SPREAD = "spread"
    CLEAN = "clean"
    SOURCE = "source"
    SUPPORT = "support"
    TASK = "task"
    PARAMS = "params"
    FEATURES = "features"
