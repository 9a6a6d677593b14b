# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The five synthetic tasks of many-tasks, in the edition of 2023 and in that of the image-conditioned diffusion paper.

References:
    M. Baugh, J. Tan, J. P. Mueller, M. Dombrowski, J. Batten, B. Kainz: "Many Tasks Make Light Work: Learning to
    Localise Medical Anomalies from Multiple Synthetic Tasks", MICCAI 2023; M. Baugh, H. Reynaud, S. N. Marimont,
    S. Cechnicka, J. P. Mueller, G. Tarroni, B. Kainz: "Image-conditioned Diffusion Models for Medical Anomaly
    Detection", 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ...functional.blending import MODES
from ...functional.labelling import binary_label, flipped_gaussian_label
from ...utils import derive_seed
from ..checks import check_choice
from .anomaly import Corruptor, RandAnomaly
from .corruptors import IntensityChange, PoissonBlend, RadialWarp
from .dictionary import RandAnomalyd
from .placements import UniformPlacement
from .plan import Sources
from .shapes import RandomDeformedShape
from .sources import RandomSourceBox

EDITIONS = ("many-tasks", "diffusion")
PUSH = {"many-tasks": (0.5 / 256, 10 / 256), "diffusion": (0.5 / 128, 5 / 128)}
NUM_TASKS = 5
POISSON_SAME, POISSON_OTHER, SINK, SOURCE, INTENSITY = range(NUM_TASKS)


class ManyTasksAnomaly(RandAnomaly):
    """What the five tasks share: shape, placement, label, and one to four anomalies an image.

    Args:
        corruptor: changes the voxels.
        edition: "many-tasks" (2023; default) or "diffusion": sizes and places relative to the object, and the label is
            the support, since there the target is the clean image.
        labeller: None (default): of the edition; "many-tasks" has
            :func:`~monai_anomaly.functional.flipped_gaussian_label`.
        shape: draws the mask; None (default): of the edition.
        kwargs: see :class:`RandAnomaly`; ``max_anomalies`` is 4, and ``keep_mask`` True in "many-tasks", whose label
            fills the holes in what changed.
    """

    def __init__(
        self,
        corruptor: Corruptor,
        edition: str = "many-tasks",
        labeller: Callable[..., Any] | None = None,
        shape: RandomDeformedShape | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("edition", edition, EDITIONS)
        settings: dict[str, Any] = {"max_anomalies": 4, "keep_mask": edition == "many-tasks", **kwargs}
        if edition == "many-tasks":
            default: Callable[..., Any] = flipped_gaussian_label
            shape = shape or RandomDeformedShape()
            placement = UniformPlacement(0.5)
        else:
            default = binary_label
            shape = shape or RandomDeformedShape(relative_to="foreground")
            placement = UniformPlacement(0.5, decay=0.5, decay_every=1000, near="region", max_attempts=5000)
        super().__init__(shape, placement, corruptor, labeller or default, **settings)
        self.edition = edition


class RandPoissonBlend(ManyTasksAnomaly):
    """Tasks 0 and 1: blend in a rotated, scaled part of an image of the same data set, or of another.

    Args:
        source: images to blend in, see :class:`RandAnomaly`; None: given at each call, or the rest of the batch.
        mode: guidance, "mixed" (default) or "source".
        kwargs: see :class:`ManyTasksAnomaly`.
    """

    def __init__(self, source: Sources | None = None, mode: str = "mixed", **kwargs: Any) -> None:
        check_choice("mode", mode, MODES[:2])
        super().__init__(PoissonBlend(mode, source_box=RandomSourceBox()), source=source, **kwargs)


class RandSinkDeform(ManyTasksAnomaly):
    """Task 2: pull the surroundings into the center of a shape.

    Args:
        push: see :class:`RadialWarp`; None (default): of the edition, at most 10 pixels of 256 or 5 of 128.
        push_unit: see :class:`RadialWarp`.
        kwargs: see :class:`ManyTasksAnomaly`.
    """

    def __init__(self, push: Sequence[float] | None = None, push_unit: str = "fraction", **kwargs: Any) -> None:
        super().__init__(_warp("sink", push, push_unit, **kwargs), **kwargs)


class RandSourceDeform(ManyTasksAnomaly):
    """Task 3: enlarge the center of a shape.

    Args:
        push: see :class:`RadialWarp`; None (default): of the edition, at most 10 pixels of 256 or 5 of 128.
        push_unit: see :class:`RadialWarp`.
        kwargs: see :class:`ManyTasksAnomaly`.
    """

    def __init__(self, push: Sequence[float] | None = None, push_unit: str = "fraction", **kwargs: Any) -> None:
        super().__init__(_warp("source", push, push_unit, **kwargs), **kwargs)


class RandSmoothIntensity(ManyTasksAnomaly):
    """Task 4 of 2023: brighten or darken a shape, rising smoothly from its edge.

    Args:
        scale: see :class:`IntensityChange`, default 0.2.
        kwargs: see :class:`ManyTasksAnomaly`.
    """

    def __init__(self, scale: float = 0.2, **kwargs: Any) -> None:
        super().__init__(IntensityChange(scale), **kwargs)


class RandFractalIntensity(ManyTasksAnomaly):
    """Task 4 of the diffusion paper: as the smooth change, times fractal noise.

    Args:
        scale: see :class:`IntensityChange`, default 0.1.
        kwargs: see :class:`ManyTasksAnomaly`; the edition is "diffusion".
    """

    def __init__(self, scale: float = 0.1, **kwargs: Any) -> None:
        super().__init__(IntensityChange(scale, fractal=True), **{"edition": "diffusion", **kwargs})


def _warp(kind: str, push: Sequence[float] | None, unit: str, edition: str = EDITIONS[0], **kwargs: Any) -> RadialWarp:
    """Warp whose push, where none is given, is that of the edition."""
    check_choice("edition", edition, EDITIONS)
    return RadialWarp(kind, PUSH[edition] if push is None and unit == "fraction" else push, unit)


def many_tasks(
    source: Sources | None = None, other: Sources | None = None, edition: str = "many-tasks", **kwargs: Any
) -> list[ManyTasksAnomaly]:
    """Return the five tasks in the order of their numbers, from which a fold takes some.

    Args:
        source: images of the same data set, for task 0.
        other: images of another data set, for task 1.
        edition: "many-tasks" or "diffusion".
        kwargs: given to each task, see :class:`ManyTasksAnomaly`.
    """
    check_choice("edition", edition, EDITIONS)
    settings: dict[str, Any] = {"edition": edition, **kwargs}
    intensity = RandFractalIntensity if edition == "diffusion" else RandSmoothIntensity
    return [
        RandPoissonBlend(source, task=POISSON_SAME, **settings),
        RandPoissonBlend(other, task=POISSON_OTHER, **settings),
        RandSinkDeform(task=SINK, **settings),
        RandSourceDeform(task=SOURCE, **settings),
        intensity(task=INTENSITY, **settings),
    ]


def task_folds(num_tasks: int = NUM_TASKS, num_train: int = 3) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return all choices of training tasks, in lexicographic order, each with the remaining validation tasks.

    Args:
        num_tasks: number of tasks, paper's default 5.
        num_train: how many of them a fold trains on, paper's default 3, which makes ten folds.
    """
    if not 0 < num_train < num_tasks:
        raise ValueError(f"num_train must be in 1..{num_tasks - 1}, got {num_train!r}")
    chosen = combinations(range(num_tasks), num_train)
    return [(tasks, tuple(task for task in range(num_tasks) if task not in tasks)) for tasks in chosen]


def task_fold(tasks: Sequence[Any], fold: int, num_train: int = 3, seed: int = 0) -> dict[str, Any]:
    """Return what one fold is made of: ``train``, the tasks to train on, ``held_out``, the others, and ``seed``.

    Args:
        tasks: all tasks, in the order of their numbers.
        fold: number of the fold, see :func:`task_folds`.
        num_train: how many tasks a fold trains on, paper's default 3.
        seed: seed of the ensemble, from which that of the fold is made.

    Raises:
        ValueError: when there is no such fold.
    """
    folds = task_folds(len(tasks), num_train)
    if not 0 <= fold < len(folds):
        raise ValueError(f"fold must be in 0..{len(folds) - 1}, got {fold!r}")
    train, held_out = folds[fold]
    return {
        "train": [tasks[task] for task in train],
        "held_out": [tasks[task] for task in held_out],
        "seed": derive_seed(seed, fold),
    }


def fold_data(
    items: Sequence[Any], train_tasks: Sequence[int], num_tasks: int = NUM_TASKS
) -> tuple[list[Any], list[Any]]:
    """Return the items to train and to validate a fold on: as its tasks, no item is in both.

    The items are cut into as many contiguous parts as there are tasks; the parts numbered as the training tasks are for
    training. If that is less than the rest, the two are exchanged.

    Args:
        items: of the training section, in a fixed order, the images of a patient together.
        train_tasks: numbers of the training tasks, see :func:`task_folds`.
        num_tasks: number of tasks.
    """
    if len(items) < num_tasks:
        raise ValueError(f"{len(items)} items cannot be cut into {num_tasks} parts")
    parts = np.array_split(np.arange(len(items)), num_tasks)
    train, validation = (
        [items[place] for task, part in enumerate(parts) if (task in train_tasks) == wanted for place in part]
        for wanted in (True, False)
    )
    return (train, validation) if len(train) >= len(validation) else (validation, train)


class RandPoissonBlendd(RandAnomalyd):
    """Dictionary version of :class:`RandPoissonBlend`."""

    corruption = RandPoissonBlend


class RandSinkDeformd(RandAnomalyd):
    """Dictionary version of :class:`RandSinkDeform`."""

    corruption = RandSinkDeform


class RandSourceDeformd(RandAnomalyd):
    """Dictionary version of :class:`RandSourceDeform`."""

    corruption = RandSourceDeform


class RandSmoothIntensityd(RandAnomalyd):
    """Dictionary version of :class:`RandSmoothIntensity`."""

    corruption = RandSmoothIntensity


class RandFractalIntensityd(RandAnomalyd):
    """Dictionary version of :class:`RandFractalIntensity`."""

    corruption = RandFractalIntensity


RandPoissonBlendD = RandPoissonBlendDict = RandPoissonBlendd
RandSinkDeformD = RandSinkDeformDict = RandSinkDeformd
RandSourceDeformD = RandSourceDeformDict = RandSourceDeformd
RandSmoothIntensityD = RandSmoothIntensityDict = RandSmoothIntensityd
RandFractalIntensityD = RandFractalIntensityDict = RandFractalIntensityd
