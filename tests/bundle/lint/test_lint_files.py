# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch
from small_bundle import EVALUATE, INFERENCE, LOGGING, LOGGING_FILE, META, MULTI_GPU, TRAIN, WEIGHTS, fired

from monai_anomaly.bundle.lint import lint_bundle
from monai_anomaly.bundle.lint.allow_list import RECIPES
from monai_anomaly.bundle.lint.finding import ERROR, WARNING


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


def test_the_logging_configuration_of_our_bundles_is_allowed(bundle: Path) -> None:
    shutil.copy(RECIPES / "files" / "logging.conf", bundle / LOGGING_FILE)
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


@pytest.mark.parametrize("folder", ["runs/first", "eval"])
def test_outputs_of_runs_may_stay_but_must_be_inert(bundle: Path, folder: str) -> None:
    outputs = bundle / folder
    outputs.mkdir(parents=True)
    torch.save({"a": torch.zeros(2)}, outputs / "model.pt")
    (outputs / "metrics.json").write_text('{"file": "/home/me/image.png"}')
    (outputs / "scores.csv").write_text("image,score\n/home/me/image.png,1\n")
    assert lint_bundle(bundle) == []
    torch.save({"a": os.system}, outputs / "model.pt")
    (outputs / "train.json").write_text("{\"run\": \"$__import__('os').system('id')\"}")
    found = fired(bundle, ERROR)
    assert ("weights", f"{folder}/model.pt") in found and ("expression", f"{folder}/train.json") in found


def test_configurations_of_runs_are_named_once(bundle: Path) -> None:
    for folder in ("runs/first/bundles/other/configs", "eval", "docs"):
        (bundle / folder).mkdir(parents=True, exist_ok=True)
        (bundle / folder / "train.json").write_text('{"loss": {"_target_": "torch.nn.L1Loss"}, "run": ["$@loss"]}')
        folds = {"device": "$torch.device('cpu')", "file": "$os.path.join(@root, 'a')", "root": "/data"}
        (bundle / folder / "all_folds.json").write_text(json.dumps(folds))
    assert fired(bundle, WARNING) == {("run-config", "runs"), ("run-config", "eval")}
    assert fired(bundle, ERROR) == {("live-data", "docs/train.json"), ("live-data", "docs/all_folds.json")}


def test_a_torchscript_file_must_be_one(bundle: Path) -> None:
    torch.jit.script(torch.nn.ReLU()).save(str(bundle / "models" / "model.ts"))
    assert lint_bundle(bundle) == []
    torch.save({}, bundle / "models" / "model.ts")
    assert ("weights", "models/model.ts") in fired(bundle, ERROR)


@pytest.mark.parametrize(
    "code",
    [
        'ops.aten.save(x, "/tmp/x")',
        'torch. from_file("/etc/hostname", False, 4)',
        'torch\\\n  . \\\n  from_file("x")',
        'torch.from_file ("x")',
        'x.save("/tmp/x")',
        "ops. other.run(x)",
        'torch.# a\n  from_file("x")',
        "ops # a\n  .other.run(x)",
        "torch .classes.a.b(x)",
    ],
)
def test_torchscript_that_touches_files(bundle: Path, code: str) -> None:
    for text, found in ((code, {("weights", "models/model.ts")}), ("torch.add(x, 1)", set[tuple[str, str]]())):
        with zipfile.ZipFile(bundle / "models/model.ts", "w") as archive:
            archive.writestr("model/code/x.py", f"def forward(self, x):\n  return ({text}, ops.prim.data(x))\n")
        assert fired(bundle) == found


def test_an_exported_program_must_be_one_without_compiled_code(bundle: Path) -> None:
    path = bundle / "models" / "model.pt2"
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(2),)), str(path))
    assert lint_bundle(bundle) == []
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model/data/aotinductor/model.so", b"")
    assert [item.message for item in lint_bundle(bundle)] == ["holds compiled code"]
    torch.save({}, path)
    assert ("weights", "models/model.pt2") in fired(bundle, ERROR)


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
        ("large-files", {"path": "models/net.py"}),
        ("large-files", {"path": "configs/train.json"}),
        ("large-files", {"filepath": "configs/train.json"}),
    ],
)
def test_large_files_are_checked(bundle: Path, suffix: str, rule: str, change: dict[str, str]) -> None:
    name = f"large_files.{suffix}"
    (bundle / name).write_text(json.dumps({"large_files": [{**ENTRY, **change}]}))  # JSON is YAML too
    assert fired(bundle) == ({(rule, name)} if rule else set())


@pytest.mark.parametrize(
    "text", ["large_files: 3", "- a", "large_files: [{path: x}]", "a: [", "!!python/name:os.system"]
)
def test_a_broken_list_of_large_files_is_found(bundle: Path, text: str) -> None:
    (bundle / "large_files.yml").write_text(text)
    assert ("large-files", "large_files.yml") in fired(bundle, ERROR)


def test_a_list_without_spaces_is_read_in_time(bundle: Path) -> None:
    (bundle / "large_files.yml").write_text("a" * 2**19)
    before = time.process_time()
    assert ("large-files", "large_files.yml") in fired(bundle, ERROR)
    assert time.process_time() - before < 60  # it took many minutes when every letter was a place to begin
