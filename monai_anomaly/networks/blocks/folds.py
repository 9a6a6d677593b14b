# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ...utils import derive_seed
from .ensemble import make_member


class NetworkFolds(nn.Module):
    """Networks of the same kind that are trained apart, one a fold, and asked together.

    The buffer ``present`` says which of them have been trained; the others are left out.

    Args:
        member: makes one untrained network when called without arguments (``"_mode_": "callable"`` in a bundle).
        num_members: number of networks N; 10 in the image-conditioned diffusion paper.
        seed: network i starts from weights drawn with a seed made of (seed, i).
        same_start: whether all start from the same weights, those of network 0, as two modules whose difference tells
            of their data alone; default False.
        one_at_a_time: whether only the network in use is on the images' device, the others in the main memory: for
            networks that do not fit together. Default False.
        max_asked: ask at most that many of the trained networks, spread evenly over their numbers, so that few of them
            have learned from as many different folds as possible; None (default): all.

    Raises:
        ValueError: when ``num_members`` or ``max_asked`` is not positive.
    """

    def __init__(
        self,
        member: Callable[[], nn.Module],
        num_members: int = 10,
        seed: int = 0,
        one_at_a_time: bool = False,
        same_start: bool = False,
        max_asked: int | None = None,
    ) -> None:
        super().__init__()
        if num_members < 1:
            raise ValueError(f"num_members must be positive, got {num_members}.")
        if max_asked is not None and max_asked < 1:
            raise ValueError(f"max_asked must be positive, or None for all trained members, got {max_asked}.")
        starts = [0] * num_members if same_start else range(num_members)
        self.members = nn.ModuleList(fold_member(member, start, seed) for start in starts)
        self.present: Tensor
        self.register_buffer("present", torch.ones(num_members, dtype=torch.bool))
        self.one_at_a_time = one_at_a_time
        self.max_asked = max_asked

    def __getitem__(self, index: int) -> nn.Module:
        """One of the networks."""
        return self.members[index]

    def keep(self, present: list[int]) -> None:
        """Leave out all members but these.

        Raises:
            ValueError: when there is none.
        """
        if not present:
            raise ValueError("none of the members has been trained")
        self.present.zero_()
        self.present[present] = True

    def asked(self) -> list[int]:
        """Numbers of the members that are asked: all trained ones, or ``max_asked`` of them."""
        present: list[int] = torch.nonzero(self.present).flatten().tolist()
        if self.max_asked is None or self.max_asked >= len(present):
            return present
        return [present[int(place)] for place in np.linspace(0, len(present) - 1, self.max_asked).round()]

    def each(self, device: torch.device) -> Iterator[tuple[int, nn.Module]]:
        """Yield the members that are asked and their numbers.

        With ``one_at_a_time`` each is on ``device`` while it is in use; otherwise they stay where they are, which is
        where the caller has moved the whole.
        """
        for index in self.asked():
            member = self.members[index]
            if not self.one_at_a_time:  # not moved, else a traced map would hold the device it was traced on
                yield index, member
                continue
            yield index, member.to(device)
            if device.type != "cpu":
                member.cpu()

    def require_all_at_once(self, user: str) -> None:
        """Refuse to ask some of the networks, or one at a time, for what compares all of them.

        Args:
            user: name of what compares them.

        Raises:
            ValueError: when ``max_asked`` or ``one_at_a_time`` is set.
        """
        if self.max_asked is not None or self.one_at_a_time:
            raise ValueError(
                f"{user} compares all trained networks at once: leave max_asked and one_at_a_time as they are by "
                f"default, got {self.max_asked!r} and {self.one_at_a_time!r}"
            )


def fold_member(member: Callable[[], nn.Module], fold: int, seed: int = 0) -> nn.Module:
    """Make the untrained network of one fold alone, as :class:`NetworkFolds` makes it.

    Args:
        member: see :class:`NetworkFolds`.
        fold: number of the network.
        seed: see :class:`NetworkFolds`.
    """
    return make_member(member, derive_seed(seed, fold))
