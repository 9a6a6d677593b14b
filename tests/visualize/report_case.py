# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import numpy as np

METRICS: dict[str, Any] = {
    "method": "D2UE",
    "metrics": {
        "image_auroc": {"value": 0.8, "low": 0.7, "high": 0.9, "oracle": False},
        "image_ap": {"value": 0.75, "low": 0.6, "high": 0.85, "oracle": False},
        "pixel_ap": {"value": 0.3, "low": None, "high": None, "oracle": False},
        "pixel_best_dice": {"value": 0.4, "low": 0.3, "high": 0.5, "oracle": True},
    },
    "baselines": {
        "mean_intensity": {
            "image_auroc": {"value": 0.6, "low": 0.5, "high": 0.72},
            "image_ap": {"value": 0.5, "low": 0.4, "high": 0.55},
        },
        "foreground_area": {
            "image_auroc": {"value": 0.3, "low": 0.2, "high": 0.4},
            "image_ap": {"value": 0.4, "low": 0.3, "high": 0.5},
        },
    },
    "counts": {
        "images": 12,
        "healthy": 8,
        "anomalous": 4,
        "patients": 11,
        "prevalence": 1 / 3,
        "pixel_prevalence": None,
    },
    "warnings": ["first warning"],
    "settings": {"num_members": 3, "seed": 0},
}


def report_rows(count: int = 12, side: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a report: every third image anomalous, scores overlapping, one tie between the classes."""
    draw = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        target = int(i % 3 == 0)
        picture = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
        thumbnails = {"image": picture, "reconstruction": picture // 2, "heatmap": 255 - picture}
        thumbnails["mask"] = picture if target else None
        score = float(draw.normal() + target)
        rows.append(
            {
                "file": f"images/{count - i:04d}.png",
                "score": score,
                "target": target,
                "patient": f"p{i}",
                "thumbnails": thumbnails,
            }
        )
    rows[1]["score"] = rows[0]["score"]
    return rows
