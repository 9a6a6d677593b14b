# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""The allow list follows from the recipes and from what the folders export, and MONAI's own parts stay reviewed."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

import monai_anomaly
from monai_anomaly.bundle.build import bundle_files, recipe_names
from monai_anomaly.bundle.lint import allow_list, targets
from monai_anomaly.bundle.lint.allow_list import COMPUTING, NAMED, recipe_targets
from monai_anomaly.bundle.lint.config_tree import walk
from monai_anomaly.bundle.lint.paths import WRITTEN, is_path
from monai_anomaly.bundle.lint.targets import exports, locate, parameters, target_problem

OWN_COMPUTING = [name for name in COMPUTING if name.startswith("monai_anomaly.")]
#: Calls by which code reads, writes, downloads, imports or starts something.
SIGNS = re.compile(
    r"(open|eval|exec|compile|__import__|locate|import_module|optional_import|system|popen|Popen|run_cmd|check_output"
    r"|load|loads|dump|dumps|save|savez|savetxt|to_csv|read_csv|imwrite|fromfile|memmap|tofile|write|write_text"
    r"|write_bytes|rmtree|unlink|makedirs|mkdir|move|copyfile|rename|replace_file|urlretrieve|urlopen|download_url"
    r"|load_url|load_state_dict_from_url|hf_hub_download|from_pretrained|extractall|getenv|SummaryWriter)"
)
#: Parts of other packages that make such calls and may be named all the same, and why.
REVIEWED = {
    "monai.data.dataset.PersistentDataset": "cache_dir is a written folder; weights_only may not be false",
    "monai.data.decathlon_datalist.load_decathlon_datalist": "its path is a read one",
    "monai.data.image_reader.NibabelReader": "reads images",
    "monai.data.image_reader.NumpyReader": "allow_pickle may not be true",
    "monai.data.image_reader.PILReader": "reads images",
    "monai.data.image_reader.PydicomReader": "reads images",
    "monai.data.image_writer.ITKWriter": "write is called by SaveImaged alone, with a path of its own",
    "monai.data.image_writer.NibabelWriter": "write is called by SaveImaged alone, with a path of its own",
    "monai.data.image_writer.PILWriter": "write is called by SaveImaged alone, with a path of its own",
    "monai.engines.evaluator.SupervisedEvaluator": "compile_kwargs may not be given",
    "monai.engines.trainer.SupervisedTrainer": "compile_kwargs may not be given",
    "monai.handlers.checkpoint_loader.CheckpointLoader": "weights only; load_path is a read path",
    "monai.inferers.inferer.PatchInferer": "merger_cls may only be one of MONAI's that keeps its patches in memory",
    "monai.metrics.utils.get_mask_edges": "imports cucim, by that name",
    "monai.transforms.io.array.LoadImage": "reader may only be one of MONAI's",
    "monai.transforms.post.dictionary.SaveClassificationd": "output_dir is a written folder, filename a name",
    "torch.nn.modules.module.Module": "load is a function in it; compile only prepares its own forward",
    "torch.utils.tensorboard.writer.SummaryWriter": "log_dir is a written folder",
    "ignite.handlers.ema_handler.EMAHandler": "eval is a module's mode",
    "ignite.metrics.classification_report.ClassificationReport": "makes a text of its figures",
    "ignite.handlers.tqdm_logger.ProgressBar": "writes to the screen",
    "ignite.handlers.param_scheduler.ConcatScheduler": "keeps its state in a temporary file of its own naming",
    "ignite.handlers.param_scheduler.LRScheduler": "keeps its state in a temporary file of its own naming",
    "ignite.handlers.param_scheduler.ParamGroupScheduler": "keeps its state in a temporary file of its own naming",
}


def folders(root: str) -> Iterator[str]:
    """A package and the packages in it."""
    module = importlib.import_module(root)
    yield root
    for info in pkgutil.iter_modules(getattr(module, "__path__", [])):
        if info.ispkg:
            yield from folders(f"{root}.{info.name}")


def parts(folder: str) -> dict[str, Any]:
    """Classes and functions that a folder exports, by their full names."""
    module = importlib.import_module(folder)
    table = {f"{folder}.{name}": value for name, value in exports(module).items()}
    return {name: value for name, value in table.items() if inspect.isclass(value) or inspect.isfunction(value)}


def test_every_target_of_every_recipe_is_accepted() -> None:
    for name in recipe_names():
        for content in bundle_files(name).values():
            for path, value in walk(content):
                if path.endswith("_target_"):
                    assert target_problem(value) is None


def test_recipes_name_public_parts_of_ours() -> None:
    for target in recipe_targets():
        folder, _, name = target.rpartition(".")
        assert folder == "monai_anomaly.bundle.options" or name in importlib.import_module(folder).__all__


@pytest.mark.parametrize("folder", [name for root in OWN_COMPUTING for name in folders(root)])
def test_what_computing_folders_export_is_accepted(folder: str) -> None:
    own = {name: part for name, part in parts(folder).items() if part.__module__.startswith("monai_anomaly.")}
    assert [problem for name in own if (problem := target_problem(name))] == []


@pytest.mark.parametrize(
    "folder",
    [
        name
        for top in pkgutil.iter_modules(monai_anomaly.__path__)
        if top.ispkg and f"monai_anomaly.{top.name}" not in OWN_COMPUTING
        for name in folders(f"monai_anomaly.{top.name}")
    ],
)
def test_of_other_folders_only_what_recipes_name_is_accepted(folder: str) -> None:
    named = {id(locate(target)) for target in recipe_targets()}
    for name, part in parts(folder).items():
        assert (target_problem(name) is None) == (id(part) in named), name


def test_a_new_recipe_brings_its_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = "monai_anomaly.data.draw_unlabeled"
    assert target_problem(target) is not None
    (tmp_path / "new.json").write_text(json.dumps({"train": {"items": {"_target_": target}}}))
    monkeypatch.setattr(allow_list, "RECIPES", tmp_path)
    for cached in (recipe_targets, targets._problem):
        cached.cache_clear()
    try:
        assert target_problem(target) is None
    finally:
        monkeypatch.undo()
        for cached in (recipe_targets, targets._problem):
            cached.cache_clear()
    assert target_problem(target) is not None


@pytest.mark.parametrize("target", NAMED)
def test_what_is_named_is_there(target: str) -> None:
    assert target_problem(target) is None


@lru_cache(maxsize=1)
def accepted() -> dict[str, Any]:
    """Every accepted part, by the name of its home."""
    names = [name for root in COMPUTING for folder in folders(root) for name in parts(folder)]
    found = [locate(name) for name in {*names, *NAMED, *recipe_targets()} if target_problem(name) is None]
    return {f"{part.__module__}.{part.__qualname__}": part for part in found}  # type: ignore[attr-defined]


def calls(part: Any) -> set[str]:
    """Names of what the source of a class or function calls."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
    except (OSError, TypeError):
        return set()
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {getattr(function, "attr", getattr(function, "id", "")) for function in functions}


def test_parts_of_other_packages_that_touch_files_are_reviewed() -> None:
    """A new version of MONAI, PyTorch or Ignite may bring another: look at it before adding it to either table."""
    suspicious = {
        home
        for home, part in accepted().items()
        if not home.startswith("monai_anomaly.") and any(SIGNS.fullmatch(name) for name in calls(part))
    }
    assert suspicious <= set(REVIEWED)


def test_parts_of_ours_that_write_take_a_folder_to_write_into() -> None:
    writing = {"atomic_path", "write_text", "write_json", "mkdir", "Popen", "unlink"}
    for home, part in accepted().items():
        if home.startswith("monai_anomaly.") and calls(part) & writing:
            assert any(WRITTEN.fullmatch(name) for name in parameters(home)), home


def test_paths_of_our_parts_are_known_as_paths() -> None:
    for home in accepted():
        if home.startswith("monai_anomaly."):
            texts = [name for name, parameter in parameters(home).items() if "bool" not in str(parameter.annotation)]
            named = [name for name in texts if re.search(r"(^|_)(dir|path|paths|file|files|folder)$", name)]
            assert [name for name in named if not is_path(home, name)] == [], home
