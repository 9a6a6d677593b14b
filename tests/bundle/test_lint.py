# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_bundle import LOGGING, METADATA, NETWORK, small_configs, write_bundle

from monai_anomaly.bundle.cli import main
from monai_anomaly.bundle.finding import ERROR, Finding
from monai_anomaly.bundle.lint import has_errors, lint_bundle
from monai_anomaly.bundle.targets import is_allowed, target_problem

TRAIN, INFERENCE, EVALUATE, META = (f"configs/{name}.json" for name in ("train", "inference", "evaluate", "metadata"))
MULTI_GPU, LOGGING_FILE, WEIGHTS = "configs/multi_gpu_train.json", "configs/logging.conf", "models/model.pt"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle without any fault, its weights included."""
    root = write_bundle(tmp_path)
    torch.save({"weight": torch.zeros(2), "epoch": 3}, root / WEIGHTS)
    return root


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


def test_a_faultless_bundle_has_no_findings(bundle: Path) -> None:
    assert lint_bundle(bundle) == []


def test_a_bundle_without_weights_has_a_warning(tmp_path: Path) -> None:
    findings = lint_bundle(write_bundle(tmp_path))
    assert [(item.rule, item.severity) for item in findings] == [("weights-missing", "warning")]
    assert not has_errors(findings)


# --- targets ---------------------------------------------------------------------------------------------------------

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


def test_the_longest_entry_decides() -> None:
    assert is_allowed("monai.utils.set_determinism")
    assert not is_allowed("monai.utils.set_determinism_and_more")
    assert not is_allowed("torch.nnx.Linear")
    assert not is_allowed("os")


def test_a_class_named_like_one_of_monai_is_found(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import monai_anomaly.transforms as ours

    def make(name: str) -> type:
        return type(name, (), {"__module__": "monai_anomaly.transforms"})

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


# --- values ----------------------------------------------------------------------------------------------------------

VALUES = {
    "expression": ["$__import__('os').system('x')", "$().__class__.__bases__", "$torch.hub.load('a', 'b')", "$lambda: 1"],
    "import": ["$import os; os.system('x')", "$import subprocess", "$from os import system"],
    "macro": ["%../../etc/passwd.json", "%/etc/x.json#a", "%configs/../../x.json", "%docs/x.json", "%configs/x.yaml"],
    "path": ["/home/someone/data", "/Users/someone", "C:\\data\\x", "~/data", "/mnt/data", "$'/home/someone/' + 'x'"],
    "download": ["https://example.org/x.pt", "s3://bucket/x", "$'https://example.org'"],
    "reference": ["@no_such_id", "$@train#no_such.run()", "@::::::::::x", "%no_such_id", "@train#handlers#7"],
}
HONEST_VALUES = [
    "$@bundle_root + '/models/model.pt'",
    "%network_def",
    "%train#handlers",
    "%configs/inference.json#network_def",
    "@train#handlers#0",
    "@::in_channels",
    "data/images",
    "/workspace/data/x",
    "50 %",
    "a@b.org",
]


@pytest.mark.parametrize(("rule", "value"), [(rule, value) for rule, values in VALUES.items() for value in values])
def test_hostile_or_broken_values_are_found(bundle: Path, rule: str, value: str) -> None:
    put(bundle, TRAIN, "extra", value)
    assert (rule, TRAIN) in fired(bundle, ERROR)


@pytest.mark.parametrize("value", HONEST_VALUES)
def test_honest_values_are_not_reported(bundle: Path, value: str) -> None:
    put(bundle, TRAIN, "extra", value)
    assert lint_bundle(bundle) == []


def test_a_macro_to_a_missing_file_is_found(bundle: Path) -> None:
    put(bundle, TRAIN, "extra", "%configs/more.json#a")
    assert ("macro", TRAIN) in fired(bundle, ERROR)
    (bundle / "configs" / "more.json").write_text('{"a": 1}')
    assert lint_bundle(bundle) == []


def test_files_that_macros_can_reach_are_linted(bundle: Path) -> None:
    (bundle / "configs" / "more").mkdir()
    (bundle / "configs" / "more" / "deep.JSON").write_text('{"a": "$eval(1)"}')
    assert ("expression", "configs/more/deep.JSON") in fired(bundle, ERROR)


def test_an_import_outside_its_list_is_found(bundle: Path) -> None:
    put(bundle, TRAIN, "extra", "$import os")
    assert ("import", TRAIN) in fired(bundle, ERROR)


def test_an_overlay_sees_the_imports_of_its_base(bundle: Path) -> None:
    put(bundle, EVALUATE, "checkpoint", "$os.path.join(@output_dir, 'model.pt')")
    assert lint_bundle(bundle) == []
    put(bundle, TRAIN, "imports", ["$import ignite.distributed as idist"])
    assert ("expression", EVALUATE) in fired(bundle, ERROR)


def test_a_key_that_becomes_code_is_found(bundle: Path) -> None:
    """MONAI pastes parent keys into relative references: this one calls ``system`` when its value is resolved."""
    from monai.bundle import ConfigParser

    key = "y][__import__('os').getpid()"
    resolved = ConfigParser.resolve_relative_ids(f"x::{key}::v", "$[@::w]")
    assert "__import__('os').getpid()" in resolved
    put(bundle, TRAIN, "x", {key: {"w": 1, "v": "$[@::w]"}})
    assert ("key", TRAIN) in fired(bundle, ERROR)


@pytest.mark.parametrize("key", ["pretrained", "download", "adapt_standard_resnet"])
def test_fetching_arguments_are_found(bundle: Path, key: str) -> None:
    put(bundle, INFERENCE, "network_def", {**NETWORK, key: False})
    assert lint_bundle(bundle) == []
    put(bundle, INFERENCE, "network_def", {**NETWORK, key: True})
    assert ("download", INFERENCE) in fired(bundle, ERROR)


@pytest.mark.parametrize(("key", "bad", "good"), [("allow_pickle", True, False), ("weights_only", False, True)])
def test_unpickling_arguments_are_found(bundle: Path, key: str, bad: bool, good: bool) -> None:
    put(bundle, INFERENCE, "extra", {key: good})
    assert lint_bundle(bundle) == []
    put(bundle, INFERENCE, "extra", {key: bad})
    assert ("pickle", INFERENCE) in fired(bundle, ERROR)


def test_a_text_that_looks_like_a_reference_is_a_warning(bundle: Path) -> None:
    put(bundle, TRAIN, "extra", "@output_dir/maps")
    assert fired(bundle) == {("reference-text", TRAIN)}


@pytest.mark.parametrize("value", ["$__import__('os').system('x')", "@train", "%/etc/x.json"])
def test_metadata_must_be_inert(bundle: Path, value: str) -> None:
    put(bundle, META, "description", value)
    assert ("metadata-live", META) in fired(bundle, ERROR)


def test_metadata_must_not_be_instantiated(bundle: Path) -> None:
    put(bundle, META, "eval_metrics", {"_target_": "os.getcwd"})
    assert ("metadata-live", META) in fired(bundle, ERROR)


# --- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", ["bundle_root", "device", "dataset_dir", "train/trainer/max_epochs", "train/inferer"])
def test_a_missing_train_property_is_found(bundle: Path, identifier: str) -> None:
    remove(bundle, TRAIN, identifier)
    assert ("property", TRAIN) in fired(bundle, ERROR)


@pytest.mark.parametrize("identifier", ["dataset", "evaluator", "network_def", "inferer"])
def test_a_missing_inference_property_is_found(bundle: Path, identifier: str) -> None:
    remove(bundle, INFERENCE, identifier)
    assert ("property", INFERENCE) in fired(bundle, ERROR)


def test_a_property_under_another_id_is_found(bundle: Path) -> None:
    put(bundle, TRAIN, "my_handlers", [])
    put(bundle, TRAIN, "train/trainer/train_handlers", "@my_handlers")
    assert ("property", TRAIN) in fired(bundle, ERROR)


@pytest.mark.parametrize(
    ("file", "identifier"),
    [
        (TRAIN, "val_interval"),
        (TRAIN, "run"),
        (TRAIN, "train/dataset/data"),
        (TRAIN, "validate/handlers"),
        (INFERENCE, "postprocessing"),
        (INFERENCE, "network"),
        (EVALUATE, "run"),
        (MULTI_GPU, "device"),
    ],
)
def test_ids_that_other_programs_read_must_be_there(bundle: Path, file: str, identifier: str) -> None:
    remove(bundle, file, identifier)
    assert ("app-id", file) in fired(bundle, ERROR)


def test_an_overlay_must_replace_something(bundle: Path) -> None:
    put(bundle, EVALUATE, "validate#nothing#here", 1)
    assert ("overlay", EVALUATE) in fired(bundle, ERROR)


def test_an_overlay_is_laid_over_train_as_monai_does(bundle: Path) -> None:
    from monai.bundle import ConfigParser

    from monai_anomaly.bundle.config_tree import overlay

    put(bundle, EVALUATE, "validate#dataset#data", [])
    put(bundle, EVALUATE, "+train", {"extra": 1})
    put(bundle, EVALUATE, "+imports", ["$import glob"])
    put(bundle, EVALUATE, "train#handlers#0#save_dir", "x")
    files = [bundle / TRAIN, bundle / EVALUATE]
    merged, homeless = overlay(*(json.loads(path.read_text()) for path in files))
    assert homeless == []
    assert merged == ConfigParser.load_config_files([str(path) for path in files])


def test_the_checkpoint_must_hold_the_model(bundle: Path) -> None:
    put(bundle, TRAIN, "train/handlers", [{"_target_": "monai.handlers.CheckpointSaver", "save_dict": {"net": "@network"}}])
    assert ("checkpoint", TRAIN) in fired(bundle, ERROR)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["LICENSE", TRAIN, INFERENCE, EVALUATE, MULTI_GPU, META, LOGGING_FILE, "docs/README.md"]
)
def test_a_missing_file_is_found(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert ("file-missing", name) in fired(bundle, ERROR)


@pytest.mark.parametrize("name", ["scripts/net.py", "a.pkl", "b.SO", "docs/x.ipynb", "models/x.npy", "configs/run.sh"])
def test_code_and_pickles_are_found(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("x = 1\n")
    assert ("executable-file", name) in fired(bundle, ERROR)


@pytest.mark.parametrize("content", [b"#!/bin/sh\nid\n", b"\x7fELF\x02\x01\x01", b"MZ\x90\x00"])
def test_code_is_found_under_any_name(bundle: Path, content: bytes) -> None:
    (bundle / "docs" / "figure.png").write_bytes(content)
    assert ("executable-file", "docs/figure.png") in fired(bundle, ERROR)


@pytest.mark.parametrize("name", ["configs/train.yaml", "configs/inference.yml", "docs/x.yaml"])
def test_yaml_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).write_text("a: 1\n")
    assert ("yaml", name) in fired(bundle, ERROR)


def test_an_unknown_kind_of_file_is_a_warning(bundle: Path) -> None:
    (bundle / "docs" / "x.xyz").write_text("")
    assert fired(bundle) == {("file-type", "docs/x.xyz")}


@pytest.mark.parametrize("directory", [False, True])
def test_links_are_refused(bundle: Path, tmp_path: Path, directory: bool) -> None:
    outside = tmp_path / "outside"
    if directory:
        outside.mkdir()
    else:
        outside.write_text("{}")
    (bundle / "docs" / "link.txt").symlink_to(outside)
    assert ("symlink", "docs/link.txt") in fired(bundle, ERROR)


def test_a_config_that_is_a_link_is_not_read(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text('{"a": "$eval(1)"}')
    (bundle / "configs" / "more.json").symlink_to(tmp_path / "outside.json")
    assert fired(bundle) == {("symlink", "configs/more.json")}


def test_a_large_file_is_found(bundle: Path) -> None:
    with (bundle / "docs" / "large.png").open("wb") as stream:
        stream.truncate(26 * 2**20)
    assert ("file-size", "docs/large.png") in fired(bundle, ERROR)


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": Infinity}', '{"a": 1, "a": 2}', '{"a": ', "[1]", "\xff{"])
def test_broken_json_is_found(bundle: Path, text: str) -> None:
    (bundle / EVALUATE).write_bytes(text.encode("latin-1"))
    assert ("json", EVALUATE) in fired(bundle, ERROR)


@pytest.mark.parametrize("file", ["docs/README.md", "LICENSE.txt"])
def test_a_personal_path_in_a_text_is_found(bundle: Path, file: str) -> None:
    (bundle / file).write_text("data is in /home/" + "someone/data\n")
    assert ("path", file) in fired(bundle, ERROR)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("class=StreamHandler", "class=rich.logging.RichHandler"),
        ("class=StreamHandler", "class=eval"),
        ("args=(sys.stdout,)", "args=(__import__('os').system('x'),)"),
        ("args=(sys.stdout,)", "args=(os.path.join('a', 'b'),)"),
        ("[loggers]", "loggers"),
    ],
)
def test_logging_that_runs_code_is_found(bundle: Path, old: str, new: str) -> None:
    assert old in LOGGING
    (bundle / LOGGING_FILE).write_text(LOGGING.replace(old, new))
    assert ("logging", LOGGING_FILE) in fired(bundle, ERROR)


def test_logging_to_a_file_is_allowed(bundle: Path) -> None:
    new = LOGGING.replace("class=StreamHandler", "class=logging.handlers.RotatingFileHandler")
    (bundle / LOGGING_FILE).write_text(new.replace("args=(sys.stdout,)", "args=('run.log', 'a', 1000)"))
    assert lint_bundle(bundle) == []


class Unlisted:
    """A class that a weights-only load refuses."""


@pytest.mark.parametrize("kind", ["object", "function", "legacy", "text", "damaged"])
def test_weights_that_run_code_are_found(bundle: Path, kind: str) -> None:
    path = bundle / WEIGHTS
    if kind == "object":
        torch.save({"a": Unlisted()}, path)
    elif kind == "function":
        torch.save({"a": os.system}, path)
    elif kind == "legacy":
        torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    elif kind == "text":
        path.write_text("not weights")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", b"\x80\x02garbage")
    assert ("weights", WEIGHTS) in fired(bundle, ERROR)


def test_a_torchscript_file_must_be_one(bundle: Path) -> None:
    torch.jit.script(torch.nn.ReLU()).save(str(bundle / "models" / "model.ts"))
    assert lint_bundle(bundle) == []
    torch.save({}, bundle / "models" / "model.ts")
    assert ("weights", "models/model.ts") in fired(bundle, ERROR)


ENTRY = {"path": "models/model.pt", "url": "https://example.org/model.pt", "hash_type": "sha256", "hash_val": "0" * 64}


@pytest.mark.parametrize("suffix", ["yml", "yaml", "json"])
@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("", {}),
        ("large-files-hash", {"hash_type": "md5", "hash_val": "0" * 32}),
        ("large-files-hash", {"hash_val": ""}),
        ("large-files", {"path": "../model.pt"}),
        ("large-files", {"path": "/etc/model.pt"}),
        ("large-files", {"url": "http://example.org/model.pt"}),
        ("executable-file", {"path": "models/net.py"}),
    ],
)
def test_large_files_are_checked(bundle: Path, suffix: str, rule: str, change: dict[str, str]) -> None:
    name = f"large_files.{suffix}"
    (bundle / name).write_text(json.dumps({"large_files": [{**ENTRY, **change}]}))  # JSON is YAML too
    assert fired(bundle) == ({(rule, name)} if rule else set())


@pytest.mark.parametrize("text", ["large_files: 3", "- a", "large_files: [{path: x}]", "a: [", "!!python/name:os.system"])
def test_a_broken_list_of_large_files_is_found(bundle: Path, text: str) -> None:
    (bundle / "large_files.yml").write_text(text)
    assert ("large-files", "large_files.yml") in fired(bundle, ERROR)


# --- names and metadata ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rule"), [("chest_anomaly_detection", "name-detection"), ("Small", "name"), ("a-b", "name"), ("a__b", "name")]
)
def test_a_bad_name_is_found(bundle: Path, name: str, rule: str) -> None:
    renamed = bundle.rename(bundle.parent / name)
    assert (rule, ".") in fired(renamed, ERROR)


def test_the_name_in_the_metadata_spells_the_folder(bundle: Path) -> None:
    put(bundle, META, "name", "Another name")
    assert fired(bundle) == {("name-metadata", META)}
    put(bundle, META, "name", "Small Bundle")
    assert lint_bundle(bundle) == []


def test_metadata_outside_the_schema_is_found(bundle: Path) -> None:
    remove(bundle, META, "task")
    assert ("metadata", META) in fired(bundle, ERROR)


def test_own_bundles_need_more_metadata(bundle: Path) -> None:
    remove(bundle, META, "data_source")
    assert lint_bundle(bundle) == []
    put(bundle, TRAIN, "extra", {"_target_": "monai_anomaly.anything"})
    assert ("metadata-own", META) in fired(bundle, ERROR)


# --- output ----------------------------------------------------------------------------------------------------------


def test_nothing_is_run(bundle: Path, tmp_path: Path) -> None:
    """A marker file would tell of any evaluation, import, unpickling or logging set-up."""
    marker = tmp_path / "marker"
    touch = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    put(bundle, TRAIN, "initialize", [f"${touch}"])
    put(bundle, TRAIN, "extra", {"_target_": "pathlib.Path.touch", "self": str(marker)})
    put(bundle, META, "version", f"${touch}")
    (bundle / LOGGING_FILE).write_text(LOGGING.replace("args=(sys.stdout,)", f"args=({touch},)"))
    (bundle / "yaml.py").write_text(f"{touch}\n")
    (bundle / "sitecustomize.py").write_text(f"{touch}\n")
    assert has_errors(lint_bundle(bundle))
    assert not marker.exists()


def test_the_command_prints_and_exits(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(bundle)]) == 0
    assert "small_bundle: 0 errors, 0 warnings" in capsys.readouterr().out
    put(bundle, TRAIN, "extra", "$eval(1)")
    assert main(["lint", str(bundle)]) == 1
    output = capsys.readouterr().out
    assert "error [expression] configs/train.json:extra: in '$eval(1)': the call of 'eval' is not allowed ->" in output
    assert main(["lint", "--json", str(bundle)]) == 1
    (found,) = json.loads(capsys.readouterr().out)[str(bundle)]
    assert found["rule"] == "expression"
    assert set(found) == {"rule", "file", "path", "message", "remedy", "severity"}


def test_strict_counts_warnings(bundle: Path) -> None:
    put(bundle, META, "name", "Another name")
    assert main(["lint", str(bundle)]) == 0
    assert main(["lint", "--strict", str(bundle)]) == 1


def test_a_wrong_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["lint", str(tmp_path / "nothing")])
    assert "give the bundle's folder" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is not a folder"):
        lint_bundle(tmp_path / "nothing")


def test_the_command_runs_inside_a_hostile_folder(bundle: Path, tmp_path: Path) -> None:
    """``python -m`` puts the current folder first; what MONAI imports late must not come from the bundle."""
    marker = tmp_path / "marker"
    (bundle / "yaml.py").write_text(f"open({str(marker)!r}, 'w')\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "monai_anomaly.bundle", "lint", "."]
    result = subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert "error [executable-file] yaml.py" in result.stdout
    assert not marker.exists()


def test_findings_say_what_to_do(bundle: Path) -> None:
    put(bundle, TRAIN, "extra", "@nothing")
    (found,) = lint_bundle(bundle)
    expected = Finding("reference", TRAIN, "extra", "'@nothing' leads nowhere", "define the id or mend the name")
    assert found == expected


def test_the_example_has_every_mandatory_key() -> None:
    assert {"configs/metadata.json", "configs/train.json"} <= set(small_configs())
    assert METADATA["version"] in METADATA["changelog"]
