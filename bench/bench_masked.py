# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""What two shortcuts of AMAE save, each as a ratio in the same run: masks stacked in the batch, and features kept."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from timing import shortest
from torch import Tensor

from monai_anomaly.data import AnomalyDataset, EncodedDataset, EpochSampler, load_datalist, sample_dir
from monai_anomaly.engines import MaskedBatch, prepare_pair_batch
from monai_anomaly.losses import MaskedReconstructionLoss
from monai_anomaly.networks.nets import EncoderClassifier, MaskedAutoencoder
from monai_anomaly.utils import write_json

BUNDLES = {  # the networks of the bundles as they are by default, and that of the paper
    "small": {"spatial_size": 64, "patch_size": 8, "hidden_size": 96, "num_layers": 4, "num_heads": 4}
    | {"decoder_hidden_size": 96, "decoder_num_heads": 4},
    "ViT-S/16": {"spatial_size": 224, "network_channels": 3},
}
# a batch and its masks: the bundle's training, its test in larger batches, and its test as it is by default
SIZES = (("small", 16, 2), ("small", 16, 4), ("small", 4, 4), ("small", 1, 4), ("ViT-S/16", 1, 4))


def measure_masks(name: str, batch_size: int, masks: int, repeats: int) -> dict[str, float]:
    """Time of a training step, and of scoring, with the masks one after the other over that with all in one batch."""
    network = MaskedAutoencoder(**BUNDLES[name])  # type: ignore[arg-type]
    size = network.spatial_size
    batch = {"image": torch.rand(batch_size, 1, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1}
    image, _, _, shown = MaskedBatch(network, num_masks=masks)(batch)
    kept, loss = shown["kept"], MaskedReconstructionLoss()

    def step(parts: tuple[Tensor, ...]) -> None:
        network.zero_grad()
        for part in parts:
            (loss(network(image, part)) / len(parts)).backward()

    @torch.no_grad()
    def score(parts: tuple[Tensor, ...]) -> None:
        for part in parts:
            network(image, part)

    ways: dict[str, Callable[[], None]] = {
        "step, loop": lambda: step(kept.split(1, 1)),
        "step, stacked": lambda: step((kept,)),
        "score, loop": lambda: score(kept.split(1, 1)),
        "score, stacked": lambda: score((kept,)),
    }
    best = shortest(ways, repeats)
    return {
        f"{name}, {masks} masks, batch of {batch_size}: training step, loop / stacked": best["step, loop"]
        / best["step, stacked"],
        f"{name}, {masks} masks, batch of {batch_size}: scoring, loop / stacked": best["score, loop"]
        / best["score, stacked"],
    }


def epoch_of(dataset: AnomalyDataset | EncodedDataset, network: EncoderClassifier) -> Callable[[], object]:
    """One epoch of stage 1 on a data set, the loader included."""
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=DataLoader(dataset, batch_size=16, sampler=EpochSampler(dataset)),
        network=network,
        optimizer=torch.optim.AdamW(network.head.parameters(), 2.5e-4),
        loss_function=torch.nn.CrossEntropyLoss(),
        prepare_batch=prepare_pair_batch,
        decollate=False,
    )

    def run() -> None:
        trainer.state.epoch = 0
        trainer.run()

    return run


def measure_features(repeats: int, variants: int) -> dict[str, float]:
    """Time of an epoch of stage 1 on the embedded sample, as the bundle has it, without and with kept features."""
    parser = ConfigParser()
    parser.read_config("bundles/amae_stage1/configs/train.json")
    parser.update({"items": load_datalist(sample_dir() + "/datalist.json", "training"), "variants": variants})
    network: Any = parser.get_parsed_content("base_network")
    plain = parser.get_parsed_content("train#dataset")
    kept = parser.get_parsed_content("train#samples")
    best = shortest({"plain": epoch_of(plain, network), "kept": epoch_of(kept, network)}, repeats)
    return {
        "stage 1, an epoch: seconds with kept features": best["kept"],
        "stage 1, an epoch: encoded anew / with kept features": best["plain"] / best["kept"],
    }


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="cores to use, one run each")
    parser.add_argument("--variants", type=int, default=4, help="kept variants, for the time of an epoch any will do")
    parser.add_argument("--output", help="JSON file for the figures")
    options = parser.parse_args()
    torch.manual_seed(0)
    result: dict[str, dict[str, float]] = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        figures = measure_features(options.repeats, options.variants)
        for name, batch_size, masks in SIZES:
            figures |= measure_masks(name, batch_size, masks, options.repeats)
        result[f"{threads} cores" if threads > 1 else "1 core"] = figures
    for cores, figures in result.items():
        for label, value in figures.items():
            print(f"{cores}, {label:70s} {value:.4g}")
    if options.output:
        write_json(options.output, result)


if __name__ == "__main__":
    main()
