# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What is left of an ensemble of diffusion models when one network learns to do its work in one evaluation.

The student starts from the weights of member 0. It learns, from training images with synthetic anomalies of all
tasks, to give in a single step from noise what the mean of the ensemble's restorations is.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator, Sequence

import torch
from measure_diffusion import (
    add_options,
    append_row,
    asked,
    bundle_parser,
    evaluate,
    load_ensemble,
    map_of,
    print_row,
    restorations,
)
from monai.utils import set_determinism
from torch import Tensor, nn
from tqdm import tqdm

from monai_anomaly.networks.maps import DiffusionMap, DiffusionSampler

ONE_STEP = {"num_steps": 1, "spacing": "trailing", "eta": 0.0}  # the level that holds noise alone


def section_of(options: argparse.Namespace, section: str) -> argparse.Namespace:
    """The options for one section; the limit is for the validation alone."""
    limit = options.limit if section == "validation" else None
    return argparse.Namespace(**vars(options) | {"section": section, "limit": limit})


def corrupted_images(options: argparse.Namespace) -> Tensor:
    """Training images (N, C, *S) with synthetic anomalies, each as often as there are epochs of them."""
    parser = bundle_parser(section_of(options, "training"))
    parser.update({"train_tasks": "$@tasks", "foreground": options.foreground})
    dataset = parser.get_parsed_content("train#dataset")
    keys = range(options.variants * len(dataset))
    return torch.stack([torch.as_tensor(dataset[key]["image"]) for key in tqdm(keys, desc="anomalies")])


def batches(size: int, options: argparse.Namespace) -> Iterator[Tensor]:
    """Rows of each batch of all epochs."""
    generator = torch.Generator().manual_seed(options.seed)
    for _ in tqdm(range(options.epochs), desc="student"):
        yield from torch.randperm(size, generator=generator).split(options.batch_size)


def distill(teacher: DiffusionMap, images: Tensor, restored: Tensor, options: argparse.Namespace) -> nn.Module:
    """Train the student on images and what the ensemble makes of them."""
    student = copy.deepcopy(teacher.network[0]).train()
    sampler = DiffusionSampler(prediction=options.prediction, **ONE_STEP)
    optimizer = torch.optim.AdamW(student.parameters(), lr=options.learning_rate)
    steps = options.epochs * -(-len(images) // options.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for rows in batches(len(images), options):
        loss = nn.functional.l1_loss(sampler(student, images[rows])[0], restored[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return student.eval()


@torch.no_grad()
def measure(student: nn.Module, options: argparse.Namespace) -> None:
    """Print and write what the student makes of a section, one row for each residual."""
    _, batch = load_ensemble(options)
    images = torch.as_tensor(batch["image"]).as_subclass(Tensor)
    sampler = DiffusionSampler(prediction=options.prediction, **ONE_STEP)
    start = time.perf_counter()
    restored = torch.cat([sampler(student, part)[0] for part in images.split(options.batch_size)])
    seconds = (time.perf_counter() - start) / len(images)
    for residual in options.residuals:
        maps = map_of(student, restored, images, residual, options.background)
        row = {**ONE_STEP, "residual": residual, "members": 1, "evaluations": 1}
        row |= {"seconds an image": seconds, "metrics": evaluate(maps, batch, options.draws)}
        row["difference to the image"] = float((restored - images).abs().mean())
        print_row(row)
        append_row(options, len(images), row)


def main(arguments: Sequence[str] | None = None) -> None:
    """Distill, print what the student does on the sections, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser)
    parser.add_argument("--sections", nargs="+", default=["validation", "testing"])
    parser.add_argument("--foreground", help="as in the training")
    parser.add_argument("--teacher-members", type=int, default=10)
    parser.add_argument("--teacher-steps", type=int, default=5)
    parser.add_argument("--variants", type=int, default=2, help="synthetic anomalies of each training image")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    set_determinism(options.seed)
    teacher, _ = load_ensemble(section_of(options, options.sections[0]))
    images = corrupted_images(options)
    settings = {"num_steps": options.teacher_steps, "prediction": options.prediction}
    with torch.no_grad():
        members = asked(teacher, options.teacher_members)
        results, _ = restorations(teacher, images, settings, options.batch_size, members)
    student = distill(teacher, images, torch.stack(list(results.values())).mean(0), options)
    for section in options.sections:
        measure(student, section_of(options, section))


if __name__ == "__main__":
    main()
