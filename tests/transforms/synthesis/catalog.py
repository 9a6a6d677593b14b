# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Every corruption, as the tests of what all have in common make it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from monai_anomaly.transforms import (
    RandAnatPaste,
    RandAnomalyMixture,
    RandCoarseNoise,
    RandCutPaste,
    RandCutPasteScar,
    RandCutPasteUnion,
    RandFPI,
    RandFractalIntensity,
    RandNSA,
    RandPerlinTexture,
    RandPII,
    RandPoissonBlend,
    RandSinkDeform,
    RandSmoothIntensity,
    RandSourceDeform,
    many_tasks,
)


def _everywhere(image: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(image[:1], dtype=torch.bool)


def _mixture(source: Any = None, **kwargs: Any) -> RandAnomalyMixture:
    return RandAnomalyMixture(many_tasks(source, source, **kwargs), p_clean=0.2)


# name -> (maker, whether it pastes from another image, dimensions it is defined for)
CORRUPTIONS: dict[str, tuple[Callable[..., Any], bool, tuple[int, ...]]] = {
    "anat_paste": (lambda **kwargs: RandAnatPaste(foreground=_everywhere, **kwargs), False, (2,)),
    "coarse_noise": (RandCoarseNoise, False, (2, 3)),
    "cut_paste": (RandCutPaste, False, (2, 3)),
    "cut_paste_scar": (RandCutPasteScar, False, (2,)),
    "cut_paste_union": (RandCutPasteUnion, False, (2,)),
    "fpi": (RandFPI, True, (2, 3)),
    "fractal_intensity": (RandFractalIntensity, False, (2, 3)),
    "mixture": (_mixture, True, (2, 3)),
    "nsa": (RandNSA, True, (2, 3)),
    "perlin_texture": (RandPerlinTexture, False, (2,)),
    "pii": (RandPII, True, (2, 3)),
    "poisson_blend": (RandPoissonBlend, True, (2, 3)),
    "sink": (RandSinkDeform, False, (2, 3)),
    "smooth_intensity": (RandSmoothIntensity, False, (2, 3)),
    "source": (RandSourceDeform, False, (2, 3)),
}

CASES = [(name, dims) for name, (_, _, known) in CORRUPTIONS.items() for dims in known]
UNBOUNDED = {"coarse_noise"}  # published without clipping
FOREIGN_RANGE = {"perlin_texture"}  # a texture lies in the value range, not in that of the image


def make(name: str, **kwargs: Any) -> Any:
    """A corruption by its name."""
    return CORRUPTIONS[name][0](**kwargs)


def source_of(name: str, image: torch.Tensor) -> torch.Tensor | None:
    """Another image of the same kind, where the corruption pastes from one."""
    return image.flip(-1) if CORRUPTIONS[name][1] else None
