# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_bundle import EVALUATE, INFERENCE, MULTI_GPU, TRAIN, fired, put

from monai_anomaly.bundle.lint import lint_bundle
from monai_anomaly.bundle.lint.finding import ERROR
from monai_anomaly.bundle.lint.targets import target_problem

HOSTILE_TARGETS: list[Any] = [
    "subprocess.getoutput",
    "os.system",
    "builtins.eval",
    "eval",
    "breakpoint",
    "torch.os.system",
    "torch.load",
    "torch.jit.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.serialization.load",
    "torch.storage._load_from_bytes",
    "torch.package.PackageImporter",
    "torch.utils.cpp_extension.load",
    "torch.utils.model_zoo.load_url",
    "torch.utils.data.os.system",
    "torch.utils.data.datapipes.iter.FileOpener",
    "torch.distributed.run.main",
    "torch.nn.modules.module.warnings.warn",
    "torch.nn.Linear.forward",
    "monai.config.sys",
    "monai.config.deviceconfig.os.system",
    "monai.data.utils.torch.load",
    "monai.data.utils.pickle.loads",
    "monai.data.image_reader.Path",
    "monai.bundle.run",
    "monai.bundle.download",
    "monai.bundle.ConfigParser",
    "monai.bundle.scripts.load",
    "monai.apps.download_url",
    "monai.apps.DecathlonDataset",
    "monai.apps.auto3dseg.AutoRunner",
    "monai.apps.nnunet.nnUNetV2Runner",
    "monai.auto3dseg.algo_from_pickle",
    "monai.fl.client.MonaiAlgo",
    "monai.utils.run_cmd",
    "monai.utils.misc.run_cmd",
    "monai.utils.instantiate",
    "monai.utils.module.instantiate",
    "monai.utils.optional_import",
    "monai.utils.safeeval.safe_eval",
    "monai.losses.PerceptualLoss",
    "monai.networks.nets.densenet.load_state_dict_from_url",
    "monai.networks.nets.resnet",
    "monai.networks.nets",
    "monai.networks.nets.NoSuchNetwork",
    "monai.transforms.Compose.__init__.__globals__",
    "monai..transforms.Compose",
    "monai.transforms.Compose ",
    "monai.transforms.C\u043empose",
    "ignite.distributed.Parallel",
    "ignite.engine.engine.functools.partial",
    "monai_anomaly.bundle.cli.main",
    "monai_evil.Network",
    "torchvision.models.resnet18",
    "Compose",
    "scripts.net.Network",
    "$@network.forward",
    "@target_name",
    "%train#trainer#_target_",
    "",
    7,
    ["os.system"],
    {"a": "b"},
]
HONEST_TARGETS = [
    "monai.transforms.LoadImaged",
    "monai.transforms.Compose",
    "monai.transforms.compose.Compose",
    "monai.networks.nets.UNet",
    "monai.handlers.from_engine",
    "monai.data.load_decathlon_datalist",
    "monai.data.DistributedSampler",
    "monai.utils.set_determinism",
    "torch.nn.MSELoss",
    "torch.nn.parallel.DistributedDataParallel",
    "torch.optim.Adam",
    "torch.optim.lr_scheduler.StepLR",
    "torch.utils.data.DataLoader",
    "torch.amp.GradScaler",
    "torch.device",
    "torch.Generator",
    "ignite.metrics.Loss",
    "ignite.handlers.EarlyStopping",
]


@pytest.mark.parametrize("target", HOSTILE_TARGETS, ids=str)
def test_hostile_targets_are_refused(bundle: Path, target: Any) -> None:
    put(bundle, INFERENCE, "network_def", {"_target_": target})
    assert ("target", INFERENCE) in fired(bundle, ERROR)


@pytest.mark.parametrize("target", HONEST_TARGETS)
def test_honest_targets_are_allowed(target: str) -> None:
    assert target_problem(target) is None


def test_a_target_is_found_anywhere(bundle: Path) -> None:
    evil = "subprocess.getoutput"
    put(bundle, TRAIN, "train/handlers", [{"_target_": "monai.handlers.StatsHandler", "x": [{"_target_": evil}]}])
    put(bundle, EVALUATE, "network_def#_target_", evil)
    put(bundle, MULTI_GPU, "+network_def", {"_target_": evil})
    assert {("target", file) for file in (TRAIN, EVALUATE, MULTI_GPU)} <= fired(bundle, ERROR)


def test_a_class_named_like_one_of_monai_is_found(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import monai_anomaly.transforms as ours

    def make(name: str) -> type:
        return type(name, (), {"__module__": "monai_anomaly.transforms"})

    monkeypatch.setattr(ours, "__all__", [*ours.__all__, "Compose", "NobodyElseHasThis"])
    monkeypatch.setattr(ours, "Compose", make("Compose"), raising=False)
    monkeypatch.setattr(ours, "NobodyElseHasThis", make("NobodyElseHasThis"), raising=False)
    put(bundle, TRAIN, "train/preprocessing/_target_", "monai_anomaly.transforms.Compose")
    assert ("target-collision", TRAIN) in fired(bundle, ERROR)
    put(bundle, TRAIN, "train/preprocessing/_target_", "monai_anomaly.transforms.NobodyElseHasThis")
    assert "target-collision" not in {rule for rule, _ in fired(bundle)}


@pytest.mark.parametrize("mode", ["debug", "$'debug'", "@mode", 1])
def test_debugging_modes_are_refused(bundle: Path, mode: Any) -> None:
    put(bundle, INFERENCE, "network_def/_mode_", mode)
    assert ("mode", INFERENCE) in fired(bundle, ERROR)


def test_starting_a_debugger_is_refused(bundle: Path) -> None:
    put(bundle, INFERENCE, "network_def/_debug_", True)
    assert ("mode", INFERENCE) in fired(bundle, ERROR)


def test_a_component_may_be_a_callable(bundle: Path) -> None:
    put(bundle, INFERENCE, "collate", {"_target_": "monai.data.list_data_collate", "_mode_": "callable"})
    assert lint_bundle(bundle) == []


@pytest.mark.parametrize("reader", ["subprocess.getoutput", "breakpoint", "eval", ["ITKReader", "os.system"], "@name"])
def test_readers_are_located_by_monai_too(bundle: Path, reader: Any) -> None:
    loader = {"_target_": "monai.transforms.LoadImaged", "keys": "image", "reader": reader}
    put(bundle, INFERENCE, "preprocessing", loader)
    assert ("target", INFERENCE) in fired(bundle, ERROR)


@pytest.mark.parametrize("reader", ["ITKReader", "monai.data.PILReader", ["NibabelReader", "itkreader"], None])
def test_readers_of_monai_are_allowed(bundle: Path, reader: Any) -> None:
    loader = {"_target_": "monai.transforms.LoadImaged", "keys": "image", "reader": reader}
    put(bundle, INFERENCE, "preprocessing", loader)
    assert lint_bundle(bundle) == []
