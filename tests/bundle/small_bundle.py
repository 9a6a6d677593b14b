# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_anomaly.bundle.lint import lint_bundle

NETWORK = {
    "_target_": "monai.networks.nets.AutoEncoder",
    "spatial_dims": 2,
    "in_channels": "@in_channels",
    "out_channels": 1,
    "channels": [4, 8],
    "strides": [2, 2],
}
TENSOR = {
    "type": "image",
    "format": "magnitude",
    "modality": "MR",
    "num_channels": 1,
    "spatial_shape": ["16*n", "16*n"],
    "dtype": "float32",
    "value_range": [-1, 1],
    "is_patch_data": False,
    "channel_def": {"0": "image"},
}
METADATA: dict[str, Any] = {
    "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
    "version": "0.1.0",
    "changelog": {"0.1.0": "first version"},
    "monai_version": "1.6.1",
    "pytorch_version": "2.13.0",
    "numpy_version": "2.4.6",
    "required_packages_version": {"monai-anomaly": "0.1.0", "pytorch-ignite": "0.5.5"},
    "name": "small bundle",
    "task": "reconstruct",
    "description": "An autoencoder for tests",
    "authors": "nobody",
    "copyright": "Copyright (c) nobody",
    "intended_use": "not for diagnostic purposes",
    "data_source": "none",
    "data_type": "png",
    "image_classes": "one channel",
    "label_classes": "one channel",
    "pred_classes": "one channel",
    "eval_metrics": {},
    "references": [],
    "network_data_format": {
        "inputs": {"image": TENSOR},
        "outputs": {"pred": {**TENSOR, "channel_def": {"0": "anomaly"}}},
    },
}
COMMON: dict[str, Any] = {
    "imports": ["$import os", "$import ignite.distributed as idist"],
    "bundle_root": ".",
    "dataset_dir": "data",
    "output_dir": "$os.path.join(@bundle_root, 'eval')",
    "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
    "in_channels": 1,
    "network_def": NETWORK,
    "network": "$@network_def.to(@device)",
    "initialize": ["@check_options", "$monai.utils.set_determinism(seed=0)"],
    "check_options": {"_target_": "monai_anomaly.bundle.options.check_options"},
}


def data_section(prefix: str) -> dict[str, Any]:
    """Data, inferer and handlers of a section, ``prefix`` being where it will stand."""
    return {
        "preprocessing": {"_target_": "monai.transforms.EnsureTyped", "keys": "image"},
        "dataset": {"_target_": "monai.data.Dataset", "data": [{"image": 1.0}], "transform": f"@{prefix}preprocessing"},
        "dataloader": {"_target_": "monai.data.DataLoader", "dataset": f"@{prefix}dataset", "batch_size": 1},
        "inferer": {"_target_": "monai.inferers.SimpleInferer"},
        "postprocessing": {"_target_": "monai.transforms.Activationsd", "keys": "pred", "sigmoid": True},
    }


def evaluator(prefix: str, handlers: str) -> dict[str, Any]:
    """An evaluator over the section at ``prefix``."""
    return {
        "_target_": "monai.engines.SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": f"@{prefix}dataloader",
        "network": "@network",
        "inferer": f"@{prefix}inferer",
        "postprocessing": f"@{prefix}postprocessing",
        "val_handlers": handlers,
    }


def small_configs() -> dict[str, Any]:
    """Configs of a complete bundle of MONAI parts, by their path in the bundle; fresh for each caller."""
    saver = {
        "_target_": "monai.handlers.CheckpointSaver",
        "save_dir": "@output_dir",
        "save_dict": {"model": "@network"},
    }
    train = {
        **COMMON,
        "val_interval": 1,
        "train": {
            **data_section("train#"),
            "handlers": [saver],
            "trainer": {
                "_target_": "monai.engines.SupervisedTrainer",
                "device": "@device",
                "max_epochs": 1,
                "train_data_loader": "@train#dataloader",
                "network": "@network",
                "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.001},
                "loss_function": {"_target_": "torch.nn.MSELoss"},
                "inferer": "@train#inferer",
                "postprocessing": "@train#postprocessing",
                "train_handlers": "@train#handlers",
            },
        },
        "validate": {
            **data_section("validate#"),
            "handlers": [{"_target_": "monai.handlers.StatsHandler"}],
            "evaluator": evaluator("validate#", "@validate#handlers"),
        },
        "run": ["$@train#trainer.run()"],
    }
    inference = {
        **COMMON,
        **data_section(""),
        "handlers": [{"_target_": "monai.handlers.StatsHandler"}],
        "evaluator": evaluator("", "@handlers"),
        "run": ["$@evaluator.run()"],
    }
    configs = {
        "metadata": METADATA,
        "train": train,
        "inference": inference,
        "evaluate": {"validate#handlers": [], "run": ["$@validate#evaluator.run()"]},
        "multi_gpu_train": {
            "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu', idist.get_local_rank())",
            "initialize": ["@check_options", "$torch.distributed.init_process_group('gloo')"],
        },
    }
    copied: dict[str, Any] = json.loads(json.dumps(configs))
    return {f"configs/{name}.json": content for name, content in copied.items()}


LOGGING = """[loggers]
keys=root

[handlers]
keys=console

[formatters]
keys=plain

[logger_root]
level=INFO
handlers=console

[handler_console]
class=StreamHandler
formatter=plain
args=(sys.stdout,)

[formatter_plain]
format=%(message)s
"""


def write_bundle(root: Path, configs: dict[str, Any] | None = None) -> Path:
    """Write a bundle named ``small_bundle`` below ``root``.

    Args:
        root: an existing folder.
        configs: content of the configs by path; default is :func:`small_configs`.
    """
    bundle = root / "small_bundle"
    for folder in ("configs", "docs", "models"):
        (bundle / folder).mkdir(parents=True)
    for path, content in (small_configs() if configs is None else configs).items():
        (bundle / path).write_text(json.dumps(content), encoding="utf-8")
    (bundle / "LICENSE").write_text("Apache-2.0\n", encoding="utf-8")
    (bundle / "docs" / "README.md").write_text("# Small bundle\n", encoding="utf-8")
    (bundle / "configs" / "logging.conf").write_text(LOGGING, encoding="utf-8")
    return bundle


TRAIN, INFERENCE, EVALUATE, META = (f"configs/{name}.json" for name in ("train", "inference", "evaluate", "metadata"))
MULTI_GPU, LOGGING_FILE, WEIGHTS = "configs/multi_gpu_train.json", "configs/logging.conf", "models/model.pt"


def edit(root: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a config of a bundle in place."""
    config = json.loads((root / file).read_text())
    change(config)
    (root / file).write_text(json.dumps(config))


def put(root: Path, file: str, identifier: str, value: Any) -> None:
    """Set a nested value of a config, ``/`` between the keys."""

    def change(config: dict[str, Any]) -> None:
        *parents, last = identifier.split("/")
        for key in parents:
            config = config[key]
        config[last] = value

    edit(root, file, change)


def remove(root: Path, file: str, identifier: str) -> None:
    """Delete a nested value of a config, ``/`` between the keys."""

    def change(config: dict[str, Any]) -> None:
        *parents, last = identifier.split("/")
        for key in parents:
            config = config[key]
        del config[last]

    edit(root, file, change)


def fired(root: Path, severity: str | None = None) -> set[tuple[str, str]]:
    """Rule and file of every finding."""
    return {(item.rule, item.file) for item in lint_bundle(root) if severity in (None, item.severity)}
