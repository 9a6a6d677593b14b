# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The parts that a ``_target_`` may name: everything else is refused.

Two rules. In folders that only compute (networks, losses, transforms, ...), every public class or function of the
folder may be named, but for those in ``EXCEPT``, which download, import by name or keep files of their own. In folders
that read, write, start processes or open connections, only what is listed may be named: of monai, torch and ignite in
``NAMED``, of monai_anomaly what the recipes in this package name. So a new method is accepted together with its recipe,
and a new helper of this package is not, until a recipe needs it.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from .config_tree import walk

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
PACKAGES = ("monai", "monai_anomaly", "torch", "ignite")
#: Folders of which every public class or function may be named.
COMPUTING = (
    *(f"monai_anomaly.{name}" for name in ("functional", "inferers", "losses", "metrics", "networks", "transforms")),
    *(f"monai.{name}" for name in ("engines", "inferers", "losses", "metrics", "optimizers", "transforms")),
    *(f"monai.networks.{name}" for name in ("blocks", "layers", "nets", "schedulers")),
    *("torch.nn", "torch.optim", "torch.optim.lr_scheduler", "torch.optim.swa_utils", "torch.distributions"),
    "ignite.metrics",
)
#: Of which of them functions may be named, too; those of the others call what they are given with any arguments.
WITH_FUNCTIONS = ("monai_anomaly", "monai.metrics", "monai.networks", "monai.optimizers", "ignite.metrics")
#: What of these may not be named, by the module or name where it is defined.
EXCEPT = (
    # fetch weights from the network, some of them by default
    "monai.losses.perceptual",
    "monai.networks.blocks.backbone_fpn_utils",
    "monai.networks.blocks.fcn",
    "monai.networks.blocks.text_embedding",
    "monai.networks.nets.milmodel",
    "monai.networks.nets.resnet.get_medicalnet_pretrained_resnet_args",
    "monai.networks.nets.resnet.get_pretrained_resnet_medicalnet",
    "monai.networks.nets.torchvision_fc",
    "monai.networks.nets.transchex",
    "ignite.metrics.gan",
    # import what a text names, such as a module that the bundle brings along
    "monai.networks.nets.flexible_unet.FlexUNetEncoderRegister",
    *(
        f"monai.transforms.utility.array.{name}"
        for name in ("TorchVision", "RandTorchVision", "TorchIO", "RandTorchIO")
    ),
    *(f"monai.transforms.utility.array.{name}" for name in ("CuCIM", "RandCuCIM")),
    *(
        f"monai.transforms.utility.dictionary.{name}d"
        for name in ("TorchVision", "RandTorchVision", "TorchIO", "RandTorchIO", "CuCIM", "RandCuCIM")
    ),
    # call what they are given with any arguments, among them the file name that SaveImage takes
    "monai.transforms.io.array.SaveImage",
    "ignite.metrics.metrics_lambda",
    # read or write files of their own choice
    "monai.inferers.merger.ZarrAvgMerger",
    "monai.networks.nets.cell_sam_wrapper",
    "monai.transforms.io.array.WriteFileMapping",
    "monai.transforms.io.dictionary.WriteFileMappingd",
)
_DATA = (
    *("ArrayDataset", "CacheDataset", "Dataset", "IterableDataset", "SmartCacheDataset", "ZipDataset"),
    *("GridPatchDataset", "PatchDataset", "PatchIter", "PatchIterd", "ShuffleBuffer", "PersistentDataset"),
    *("DataLoader", "ThreadDataLoader", "DistributedSampler", "DistributedWeightedRandomSampler"),
    *("decollate_batch", "list_data_collate", "pad_list_data_collate", "worker_init_fn"),
    *("load_decathlon_datalist", "partition_dataset", "partition_dataset_classes", "select_cross_validation_folds"),
    *("ITKReader", "NibabelReader", "NrrdReader", "NumpyReader", "PILReader", "PydicomReader"),
    *("ITKWriter", "NibabelWriter", "PILWriter"),
)
_HANDLERS = (
    *("AveragePrecision", "CalibrationError", "ConfusionMatrix", "HausdorffDistance", "IgniteMetricHandler"),
    *("MeanAbsoluteError", "MeanDice", "MeanIoUHandler", "MeanSquaredError", "MetricLogger", "PanopticQuality"),
    *("PeakSignalToNoiseRatio", "ROCAUC", "RootMeanSquaredError", "SurfaceDistance"),
    *("CheckpointLoader", "CheckpointSaver", "ClassificationSaver", "MetricsSaver"),
    *("TensorBoardImageHandler", "TensorBoardStatsHandler", "StatsHandler"),
    *("DecollateBatch", "EarlyStopHandler", "GarbageCollector", "LrScheduleHandler"),
    *("PostProcessing", "SmartCacheHandler", "ValidationHandler"),
    *("from_engine", "stopping_fn_from_loss", "stopping_fn_from_metric"),
)
_IGNITE_HANDLERS = (
    *("EMAHandler", "EarlyStopping", "EpochOutputStore", "ProgressBar"),
    *("TerminateOnNan", "TimeLimit", "Timer", "ConcatScheduler", "CosineAnnealingScheduler", "LRScheduler"),
    *("LinearCyclicalScheduler", "ParamGroupScheduler", "PiecewiseLinear", "ReduceLROnPlateauScheduler"),
    "create_lr_scheduler_with_warmup",
)
_TORCH_DATA = (
    *("BatchSampler", "ChainDataset", "ConcatDataset", "DataLoader", "Dataset", "DistributedSampler"),
    *("IterableDataset", "RandomSampler", "Sampler", "SequentialSampler", "StackDataset", "Subset"),
    *("SubsetRandomSampler", "TensorDataset", "WeightedRandomSampler", "default_collate", "default_convert"),
    "random_split",
)
#: What may be named in the folders of monai, torch and ignite that do not only compute.
NAMED = (
    *(f"monai.data.{name}" for name in _DATA),
    *(f"monai.handlers.{name}" for name in _HANDLERS),
    *(f"monai.utils.{name}" for name in ("CommonKeys", "set_determinism")),
    *(f"ignite.handlers.{name}" for name in _IGNITE_HANDLERS),
    *(f"torch.utils.data.{name}" for name in _TORCH_DATA),
    "torch.utils.tensorboard.SummaryWriter",
    *("torch.amp.GradScaler", "torch.amp.autocast", "torch.cuda.amp.GradScaler"),
    *("torch.Generator", "torch.Size", "torch.device"),
)


@lru_cache(maxsize=1)
def recipe_targets() -> frozenset[str]:
    """Every ``_target_`` of this package that its own recipes name."""
    found = set()
    for file in RECIPES.rglob("*.json"):
        for path, value in walk(json.loads(file.read_text(encoding="utf-8"))):
            if path.endswith("_target_") and isinstance(value, str) and value.startswith("monai_anomaly."):
                found.add(value)
    return frozenset(found)


def covers(prefix: str, path: str) -> bool:
    """Whether the dotted ``path`` is ``prefix`` or lies in it."""
    return path == prefix or path.startswith(prefix + ".")


def computing_folder(path: str) -> str | None:
    """The longest of ``COMPUTING`` in which the dotted ``path`` lies, or None."""
    return max((folder for folder in COMPUTING if covers(folder, path)), key=len, default=None)


def listed_names() -> frozenset[str]:
    """Every full name that is allowed by being listed or used, not by the folder it is in."""
    return frozenset(NAMED) | recipe_targets()
