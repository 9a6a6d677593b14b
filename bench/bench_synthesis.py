# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Cost of synthetic anomalies, each as a ratio against a reference measured in the same run."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose, Resize
from timing import shortest
from tqdm import tqdm

from monai_anomaly.data import load_datalist, sample_dir
from monai_anomaly.functional import poisson_blend
from monai_anomaly.transforms import (
    BatchAnomaly,
    ImageSource,
    LoadImageChecked,
    LungMask,
    RandAnatPaste,
    RandAnomalyd,
    RandCoarseNoise,
    RandCutPaste,
    RandCutPasteScar,
    RandFPI,
    RandNSA,
    RandPerlinTexture,
    RandPII,
    ScaleSourceRange,
    many_tasks,
)
from monai_anomaly.utils import write_json


def sample_images(count: int, size: int) -> torch.Tensor:
    """Healthy chest radiographs of the embedded sample, (count, 1, size, size), in [0, 1]."""
    folder = Path(sample_dir())
    load = Compose([LoadImageChecked(), ScaleSourceRange(0.0, 1.0), Resize((size, size), mode="area")])
    items = load_datalist(folder / "datalist.json", "training")[:count]
    return torch.stack([load(item["image"]).as_tensor() for item in items])


def corruptions(images: torch.Tensor) -> dict[str, Any]:
    """Every corruption, with its published defaults."""
    source = ImageSource(list(images))
    tasks = {
        "CutPaste": RandCutPaste(),
        "CutPaste scar": RandCutPasteScar(),
        "AnatPaste, mask given": RandAnatPaste(),
        "FPI": RandFPI(source=source),
        "PII": RandPII(source=source),
        "NSA": RandNSA(source=source),
        "DRAEM": RandPerlinTexture(prob=1.0),
        "DAE noise": RandCoarseNoise(),
    }
    names = ["Poisson blend", "Poisson blend, other set", "sink", "source", "smooth intensity"]
    tasks |= {f"many-tasks: {name}": task for name, task in zip(names, many_tasks(source, source), strict=True)}
    tasks["diffusion: fractal intensity"] = many_tasks(source, source, edition="diffusion")[-1]
    return tasks


def seconds(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    """Shortest time of a call of each, measured in turns: what else the machine does can only add to it."""
    return list(shortest({str(place): function for place, function in enumerate(functions)}, repeats).values())


def copy_and_mean(images: np.ndarray) -> None:
    """The reference of all corruptions: copy each image and take its mean."""
    for image in images:
        image.copy().mean()


def poisson_ratio(repeats: int) -> dict[str, float]:
    """Sparse direct solve over discrete sine transform, a patch of 64 x 64 with the same equations."""
    rng = np.random.RandomState(0)
    target, source = rng.rand(1, 128, 128), rng.rand(1, 64, 64)
    arguments = (target, source, np.ones((64, 64), dtype=bool), (30, 30), "pii", 0.5)
    dst, direct = (functools.partial(poisson_blend, *arguments, solver) for solver in ("dst", "sparse"))
    fast, slow = seconds([dst, direct], repeats)
    return {"ratio": slow / fast, "largest difference": float(np.abs(dst()[0] - direct()[0]).max())}


def lung_ratio(images: torch.Tensor, repeats: int) -> float:
    """AnatPaste that computes the lung mask each time, over one that gets it."""
    transform, image = RandAnatPaste(), images[0]
    mask = LungMask()(image)

    def run(**given: Any) -> None:
        transform.set_random_state(0)
        for _ in range(8):
            transform(image, **given)

    cached, computed = seconds([lambda: run(foreground=mask), run], repeats)
    return computed / cached


def corruption_costs(images: torch.Tensor, repeats: int) -> dict[str, dict[str, float]]:
    """Cost of each corruption an image, and what a batch saves."""
    masks = torch.stack([LungMask()(image) for image in images])
    plain = images.numpy()[:, 0]
    samples = [
        {"image": MetaTensor(image, affine=torch.eye(4)), "mask": mask}
        for image, mask in zip(images, masks, strict=True)
    ]
    result = {}
    for name, transform in tqdm(corruptions(images).items(), desc="corruptions"):
        given = masks if name.startswith("AnatPaste") else None
        key = None if given is None else "mask"
        as_dict, batched = RandAnomalyd("image", transform, foreground_key=key), BatchAnomaly(transform)

        def one_by_one(transform: Any = transform, given: Any = given) -> None:
            transform.set_random_state(0)
            for row, image in enumerate(images):
                transform(image, None if given is None else given[row])

        def through_dictionaries(as_dict: Any = as_dict) -> None:
            as_dict.set_random_state(0)
            list_data_collate([as_dict(sample) for sample in samples])

        def at_once(batched: Any = batched, given: Any = given) -> None:
            batched.set_random_state(0)
            batched(images, given)

        reference, single, dictionary, batch = seconds(
            [lambda: copy_and_mean(plain), one_by_one, through_dictionaries, at_once], repeats
        )
        result[name] = {
            "images per second": len(images) / single,
            "one by one / copy and mean": single / reference,
            "one by one / batch": single / batch,
            "dictionaries and collate / batch": dictionary / batch,
        }
    return result


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="pixels a side (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="cores to use (default: %(default)s)")
    parser.add_argument("--output", help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images = sample_images(options.batch_size, options.size)
    poisson = poisson_ratio(options.repeats)
    print(f"sparse direct solve / Poisson blend, 64 x 64: {poisson['ratio']:.1f}", end=" ")
    print(f"(largest difference {poisson['largest difference']:.0e})")
    lungs = lung_ratio(images, options.repeats)
    print(f"AnatPaste, mask computed each time / mask given: {lungs:.1f}")
    costs = corruption_costs(images, options.repeats)
    columns = list(next(iter(costs.values())))
    print(f"\n{'':32s}" + "".join(f"{column:>36s}" for column in columns))
    for name, row in costs.items():
        print(f"{name:32s}" + "".join(f"{row[column]:36.1f}" for column in columns))
    if options.output:
        write_json(options.output, {"poisson": poisson, "lung mask": lungs, "corruptions": costs})


if __name__ == "__main__":
    main()
