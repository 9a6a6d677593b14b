# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What happens to the voxels of an anomaly: parts that draw for one image and act on a whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ...functional.blending import MODES, SMALLEST_BOX, poisson_blend_boxes
from ...functional.deformation import KINDS, push_exponent, radial_factor
from ...functional.noise import fractal_noise
from ...functional.shapes import relative_radius
from ...functional.spline import REACH, sample_spline
from ..checks import check_choice, check_positive, check_range, check_sizes
from .placing import PatchBatch, VoxelBatch
from .plan import UNITS, Frame, Patch
from .sources import SamePlace, SourceBox, source_boxes, stacked_sources


class AlphaBlend:
    """Mix with another image: ``(1 - alpha) x + alpha y`` at the same place (J. Tan et al.: FPI, 2020).

    Args:
        alpha: smallest and largest weight of the foreign image; paper's default (0.05, 0.95).
    """

    smallest = 1
    voxels = True
    foreign = True

    def __init__(self, alpha: Sequence[float] = (0.05, 0.95)) -> None:
        self.alpha = check_range("alpha", alpha, 0, 1)
        self.place = SamePlace()

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the foreign image and its weight."""
        patch.weight = float(rng.uniform(*self.alpha))
        return self.place(rng, patch, frame)

    def apply(self, batch: VoxelBatch) -> Tensor:
        """Mix."""
        foreign = batch.take(stacked_sources(batch), range(len(batch)))
        return batch.values + batch.weights * (foreign - batch.values)


class PoissonBlend:
    """Blend another image in by its gradients, see :func:`~monai_anomaly.functional.poisson_blend`.

    Args:
        mode: guidance: "mixed" (default), "source" or "pii".
        alpha: smallest and largest weight of the foreign image, read by "pii"; paper's default (0.05, 0.95).
        source_box: draws the part of the foreign image that goes in; default: the same place.
        erode: how often the mask is eroded before, default 0; OpenCV's blending, and so the published NSA, has 3.
        border: what stays as it is: "box" (default), the outermost voxels of the patch's box, as in many-tasks and the
            image-conditioned diffusion paper; "image", those of the image alone, as in PII: the equations reach one
            voxel beyond the patch, all of which may change.
    """

    voxels = False
    foreign = True

    def __init__(
        self,
        mode: str = "mixed",
        alpha: Sequence[float] = (0.05, 0.95),
        source_box: SourceBox | None = None,
        erode: int = 0,
        border: str = "box",
    ) -> None:
        check_choice("mode", mode, MODES)
        check_choice("border", border, ("box", "image"))
        if erode < 0:
            raise ValueError(f"erode must be 0 or more, got {erode!r}")
        self.mode = mode
        self.alpha = check_range("alpha", alpha, 0, 1)
        self.source_box = source_box or SamePlace()
        self.erode = erode
        self.border = border
        self.smallest = SMALLEST_BOX if border == "box" else 1

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the foreign image, the part of it, and its weight."""
        if self.mode == "pii":
            patch.weight = float(rng.uniform(*self.alpha))
        ready = eroded_patch(patch, self.erode)
        if ready is not None and self.border == "image":
            ready = framed_patch(ready, frame.shape)
        if ready is None or not ready.mask.any() or min(ready.mask.shape) < SMALLEST_BOX:
            return None
        return self.source_box(rng, ready, frame)

    def apply(self, batch: PatchBatch) -> Tensor:
        """Blend all boxes at once."""
        alpha = batch.weights.flatten()
        return poisson_blend_boxes(batch.boxes, source_boxes(batch), batch.masks, batch.sizes, self.mode, alpha)


class RadialWarp:
    """Pull the voxels of a convex shape towards a random one of them ("sink") or push them away ("source").

    Args:
        kind: "sink" or "source".
        push: smallest and largest distance that voxels move where they move most. Paper's default (0.5, 10) pixels for
            radiographs of 256 x 256, given here as a fraction of the mean image size.
        unit: what it counts in: "fraction" (default), "voxel" or "mm", for which distances are those of the body.
    """

    smallest = 3
    voxels = True

    def __init__(self, kind: str, push: Sequence[float] | None = None, unit: str = "fraction") -> None:
        check_choice("kind", kind, KINDS)
        check_choice("unit", unit, UNITS)
        check_sizes(unit, push=push)
        push = (0.5 / 256, 10 / 256) if push is None else push
        self.kind = kind
        self.push = check_range("push", push, 0)
        self.unit = unit

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the center and the exponent; None where the shape has been cut or is too small to move anything."""
        if patch.shape is None or patch.shape.mask.shape != patch.mask.shape:
            return None
        center = patch.voxels[rng.randint(len(patch.voxels))]
        edge = np.argwhere(inner_edge(patch.mask))
        voxel = 1 / frame.extent("mm") if self.unit == "mm" else 1.0
        mean_radius = float(np.linalg.norm((edge - center) * voxel, axis=1).mean())
        if mean_radius == 0:
            return None
        unit = float(np.mean(frame.shape)) if self.unit == "fraction" else 1.0
        furthest = mean_radius / np.sqrt(2)
        low, high = self.push[0] * unit, self.push[1] * unit
        smallest = min(max(0.1 * furthest, low), 0.9 * furthest)
        push = float(rng.uniform(smallest, max(min(0.9 * furthest, high), 0.1 * furthest)))
        patch.parameters = {
            "center": center.astype(float),
            "push": push,
            "exponent": push_exponent(push, mean_radius),
            "sink": self.kind == "sink",
            "low": patch.shape.low,
            "inverse": patch.shape.inverse,
            "half": patch.shape.half,
            "box": patch.shape.kind == "box",
        }
        return patch

    def apply(self, batch: VoxelBatch) -> Tensor:
        """Warp all voxels at once."""
        center, low = batch.numbers("center"), batch.numbers("low")
        box = torch.tensor([bool(patch.parameters["box"]) for patch in batch.patches])
        inverse, half = batch.numbers("inverse"), batch.numbers("half")
        rho = relative_radius(batch.points + low[:, None], center + low, inverse, half, box)
        factor = radial_factor(rho, batch.numbers("exponent"), batch.numbers("sink"))[..., None]
        read = torch.lerp(center[:, None], batch.points, factor)
        return sample_spline(batch.spline(), read + REACH)


class IntensityChange:
    """Add or subtract a smooth bump, or fractal noise: ``x + sign_c (scale/2 + Gamma(3, scale)) ramp``.

    The ramp rises from 0 at the edge of the mask to 1 at the depth ``(0.02 + Gamma(3, 0.01)) min(image size)``, at most
    at the mask's deepest voxel. All channels share one magnitude, each has its own sign.

    Args:
        scale: strength as a fraction of the value range; paper's default 0.2, with noise 0.1.
        fractal: whether the ramp is multiplied by fractal noise, default False; True in the edition of the
            image-conditioned diffusion paper.
    """

    smallest = 1
    voxels = True

    def __init__(self, scale: float = 0.2, fractal: bool = False) -> None:
        check_positive(scale=scale)
        self.scale = scale
        self.fractal = fractal

    def draw(self, rng: np.random.RandomState, patch: Patch, frame: Frame) -> Patch | None:
        """Draw the bump and its signs."""
        spacing = np.asarray(frame.spacing or (1.0,) * patch.mask.ndim)
        # framed, so that a mask that fills its box falls off on all sides
        depth = ndimage.distance_transform_edt(framed(patch.mask), spacing)[inside(patch.mask)]
        reach = float(np.min(spacing * frame.shape)) * (0.02 + rng.gamma(3, 0.01))
        ramp = np.minimum(depth / min(reach, depth.max()), 1)
        if self.fractal:
            ramp = ramp * fractal_noise(rng, patch.mask.shape)
        signs = rng.choice([-1.0, 1.0], frame.channels)
        strength = (self.scale / 2 + rng.gamma(3, self.scale)) * frame.data_range * signs
        patch.parameters = {"ramp": ramp[patch.mask].astype(np.float32), "strength": strength.astype(np.float32)}
        return patch

    def apply(self, batch: VoxelBatch) -> Tensor:
        """Add all bumps."""
        ramp = batch.stack([patch.parameters["ramp"] for patch in batch.patches])
        return batch.values + batch.numbers("strength")[..., None] * ramp[:, None]


def eroded_patch(patch: Patch, times: int) -> Patch | None:
    """Erode the mask of a patch by a cube of 3 voxels; None where nothing is left of it."""
    if times:
        patch.mask = ndimage.binary_erosion(patch.mask, np.ones((3,) * patch.mask.ndim), iterations=times)
    return patch if patch.mask.any() else None


def framed_patch(patch: Patch, shape: tuple[int, ...]) -> Patch:
    """Put one voxel around the box of a patch, and leave out of its mask what lies on the border of the image."""
    corner = np.array(patch.corner)
    before = np.minimum(corner, 1)
    after = np.minimum(shape - corner - patch.mask.shape, 1)
    patch.inner = tuple(slice(int(low), int(low) + n) for low, n in zip(before, patch.mask.shape, strict=True))
    wide = np.pad(patch.mask, np.stack([before, after], 1))
    patch.mask = np.zeros_like(wide)
    patch.mask[inside(wide)] = wide[inside(wide)]
    patch.corner = tuple((corner - before).tolist())
    return patch


def inner_edge(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask with a neighbor along some axis outside it, (*P), bool."""
    wide = framed(mask)
    core = mask.copy()
    for axis in range(mask.ndim):
        for step in (0, 2):
            place = list(inside(mask))
            place[axis] = slice(step, step + mask.shape[axis])
            core &= wide[tuple(place)]
    return mask & ~core


def framed(mask: np.ndarray) -> np.ndarray:
    """A mask with one voxel around it that is not in it."""
    wide = np.zeros([length + 2 for length in mask.shape], dtype=bool)
    wide[inside(mask)] = mask
    return wide


def inside(mask: np.ndarray) -> tuple[slice, ...]:
    """Where a mask is in its frame."""
    return (slice(1, -1),) * mask.ndim
