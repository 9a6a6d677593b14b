# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the maps of an exported network are those of the original."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx

TOLERANCE = 1e-4
# Where an activation is zero up to rounding, the rounding decides on which side of its edge it falls, and with it a
# gradient: few pixels of few images may jump, by what one unit of the network contributes.
JUMP_SHARE = 0.01
JUMP_FACTOR = 100
_KINKED = ("threshold_backward", "leaky_relu_backward", "hardtanh_backward", "elu_backward")


@dataclass(frozen=True)
class Parity:
    """How far two sets of maps are apart.

    Args:
        difference: largest difference of two values, as a share of the largest value of the original ones.
        share: share of the values that differ by more than the tolerance.
    """

    difference: float
    share: float

    def holds(self, tolerance: float, jumps: bool) -> bool:
        """Return whether the maps are the same, up to rounding.

        Args:
            tolerance: what rounding may move, as a share of the largest value.
            jumps: whether the maps are made of gradients, see :func:`takes_gradient`: then one value of a hundred may
                differ by more, up to a hundred times the tolerance.
        """
        if not jumps:
            return self.difference <= tolerance
        return self.share <= JUMP_SHARE and self.difference <= JUMP_FACTOR * tolerance


def compare_maps(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> Parity:
    """Compare the maps of an exported network with those of the original.

    Args:
        actual: maps (B, 1, *S) of the exported network.
        expected: those of the original, with a value above zero.
        tolerance: what counts as different, as a share of the largest value.
    """
    difference = (actual - expected).abs() / expected.abs().max()
    return Parity(float(difference.max()), float((difference > tolerance).float().mean()))


def takes_gradient(graph: fx.GraphModule) -> bool:
    """Return whether a captured network takes the gradient of an activation, which jumps where this is zero."""
    return any(str(node.target).partition(".")[2].startswith(_KINKED) for node in graph.graph.nodes)
