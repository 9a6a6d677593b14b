# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What makes sampling by diffusion cheaper: each way as a ratio against plain sampling in the same run."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from monai.networks.nets import DiffusionModelUNet
from timing import shortest
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from monai_anomaly.networks.blocks import NetworkFolds
from monai_anomaly.networks.maps import DiffusionSampler
from monai_anomaly.utils import write_json

SMALL: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 2,
    "out_channels": 1,
    "channels": (16, 32, 64, 64),
    "attention_levels": (False, False, False, True),
    "num_res_blocks": 1,
    "num_head_channels": 8,
    "norm_num_groups": 8,
}


def members_at_once(members: nn.ModuleList) -> Callable[[Tensor, Tensor], Tensor]:
    """All members as one network: from (K, B, 2C, *S) and times (B,) to (K, B, C, *S)."""
    parameters, buffers = stack_module_state(list(members))
    base = copy.deepcopy(members[0]).to("meta")

    def one(own: Any, own_buffers: Any, image: Tensor, times: Tensor) -> Tensor:
        predicted: Tensor = functional_call(base, (own, own_buffers), (image, times))
        return predicted

    mapped = vmap(one, in_dims=(0, 0, 0, None))
    return lambda images, times: mapped(parameters, buffers, images, times)


@torch.no_grad()
def measure(options: argparse.Namespace) -> dict[str, float]:
    """Ratios, larger where the way named is faster."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    folds = NetworkFolds(partial(DiffusionModelUNet, **SMALL), 3).eval().to(device)
    image = (torch.rand(options.batch_size, 1, options.size, options.size) * 2 - 1).to(device)
    joined, times = torch.cat([image, image], 1), torch.zeros(len(image), dtype=torch.long, device=device)
    member = folds[0]
    compiled: Any = torch.compile(member)
    stacked, at_once = joined.expand(3, *joined.shape), members_at_once(folds.members)
    sampler = DiffusionSampler(num_steps=5, prediction="velocity").to(device)

    def in_bfloat16() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            member(joined, times)

    def wait(function: Callable[[], object]) -> Callable[[], object]:
        return (lambda: (function(), torch.cuda.synchronize())) if device.type == "cuda" else function

    best = shortest(
        {
            name: wait(function)
            for name, function in {
                "plain": lambda: member(joined, times),
                "compiled": lambda: compiled(joined, times),
                "bfloat16": in_bfloat16,
                "three members": lambda: [network(joined, times) for network in folds.members],
                "three at once": lambda: at_once(stacked, times),
                "five steps": lambda: sampler(member, image),
            }.items()
        },
        options.repeats,
    )
    return {
        "seconds of a network evaluation, an image": best["plain"] / len(image),
        "plain / torch.compile": best["plain"] / best["compiled"],
        "plain / bfloat16": best["plain"] / best["bfloat16"],
        "members one by one / members at once (vmap)": best["three members"] / best["three at once"],
        "sampling of five steps / five evaluations": best["five steps"] / (5 * best["plain"]),
    }


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="cores to use (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = measure(options)
    for name, value in result.items():
        print(f"{name:50s} {value:.4g}")
    if options.output:
        write_json(options.output, result)


if __name__ == "__main__":
    main()
