# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""``train``, ``evaluate`` and ``infer``: a run of a bundle, said in fewer words than ``monai.bundle run`` needs."""

from __future__ import annotations

import argparse
import os
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..bundle.recipe_names import recipe_names

_EPILOG = """Every setting of the bundle is an option: --max-epochs 50, --spatial-size "[128,128]"; its docs/README.md
lists them. The command of MONAI that does the same is printed before it runs."""
_HYPHENED = ("output-dir", "dataset-dir", "dry-run")  # options of ours; others are settings of a bundle
_BUNDLES = "bundle"  # in the output folder: what was made from recipes


def train(arguments: Sequence[str], prog: str = "monai-anomaly train") -> int:
    """Train all that a bundle trains: with its pipeline, or all folds, where it has such."""
    return _run(arguments, _parser(prog, "Train a method; the same command goes on after an interruption."), "train")


def evaluate(arguments: Sequence[str], prog: str = "monai-anomaly evaluate") -> int:
    """Score the test set with what ``train`` has left in the same output folder."""
    text = "Score the test set of a training: metrics.json, scores.csv and report.html in its output folder."
    return _run(arguments, _parser(prog, text), "evaluate")


def infer(arguments: Sequence[str], prog: str = "monai-anomaly infer") -> int:
    """Write scores and maps of new images."""
    text = "Score new images, all of --dataset-dir or those of --datalist: scores.csv and a heat map for each."
    parser = _parser(prog, text)
    parser.add_argument("--checkpoint", metavar="FILE", help="trained weights (default: models/model.pt of the bundle)")
    return _run(arguments, parser, "infer")


def _parser(prog: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} BUNDLE --output-dir DIR [options] [--SETTING VALUE ...]",
        description=description,
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument(
        "bundle",
        metavar="BUNDLE",
        help=f"a bundle's folder, or a name; its bundle is then made in DIR/{_BUNDLES}: {', '.join(recipe_names())}",
    )
    parser.add_argument("--output-dir", required=True, metavar="DIR", help="everything that is written")
    add_images(parser)
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="NAME", help="more configurations of the bundle, such as paper"
    )
    parser.add_argument(
        "--dry-run",
        nargs="?",
        const="True",
        default="False",
        choices=("True", "False"),
        metavar="True",
        help="print the command and, of a training, what each step would cost; run nothing",
    )
    return parser


def add_images(parser: argparse.ArgumentParser) -> None:
    """The options that say which images are meant."""
    add = parser.add_argument
    add("--datalist", metavar="FILE", help="your images (default: the embedded radiographs)")
    add("--dataset-dir", metavar="DIR", help="folder its paths are relative to (default: that of the datalist)")
    add("--sample", metavar="NAME", help="or an embedded sample: radiographs, retina")


def use_sample(options: argparse.Namespace) -> None:
    """Put the datalist and the folder of the embedded sample, where one is named, into the options."""
    if options.sample is None:
        return
    if options.datalist or options.dataset_dir:
        raise ValueError("--sample has a datalist and a folder of its own: leave out --datalist and --dataset-dir")
    from ..data.sample_data import sample_dir

    options.dataset_dir = sample_dir(options.sample)
    options.datalist = os.path.join(options.dataset_dir, "datalist.json")


def _run(arguments: Sequence[str], parser: argparse.ArgumentParser, kind: str) -> int:
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        parser.error("BUNDLE comes first")
    options, settings = parser.parse_known_args([as_written(argument) for argument in arguments])
    from ..utils.failures import run_command

    command: list[str] = []
    status = run_command(lambda: command.extend(_command(options, kind, settings)))
    if status == 0:
        print(shown(command), flush=True)
    dry = options.dry_run == "True"
    if status or (dry and kind != "train"):
        return status
    # not within run_command: how a run ends after an error, the bundle itself has said
    return run_module("monai.bundle", [*command, "--dry_run", "True"] if dry else command)


def as_written(argument: str) -> str:
    """An option with hyphens where it is one of the parser's, with underscores where it is a setting of the bundle."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    hyphened = name.replace("_", "-")
    return f"--{hyphened if hyphened in _HYPHENED else name.replace('-', '_')}{equals}{value}"


def _command(options: argparse.Namespace, kind: str, settings: Sequence[str]) -> list[str]:
    """Arguments of ``python -m monai.bundle``; a bundle that is given by name is made."""
    use_sample(options)
    bundle = _bundle_folder(options.bundle, options.output_dir)
    names = _configurations(bundle, kind, options.config, settings)
    files = [str(bundle / "configs" / f"{name}.json") for name in names]
    given = {name: getattr(options, name, None) for name in ("datalist", "dataset_dir", "checkpoint", "output_dir")}
    if given["datalist"] and not given["dataset_dir"]:
        given["dataset_dir"] = os.path.dirname(given["datalist"]) or "."
    command = ["run", "--config_file", files[0] if len(files) == 1 else "[" + ",".join(map(repr, files)) + "]"]
    command += ["--bundle_root", str(bundle)]
    command += [part for name, value in given.items() if value for part in (f"--{name}", _as_path(value))]
    return [*command, *settings, *(_said_by_training(bundle, settings) if kind == "evaluate" else [])]


def _as_path(text: str) -> str:
    """A path that MONAI's command line does not take for a number, a list or another value of Python."""
    from fire.parser import DefaultParseValue

    return text if isinstance(DefaultParseValue(text), str) else os.path.join(".", text)


def _said_by_training(bundle: Path, settings: Sequence[str]) -> list[str]:
    """Settings with which ``train`` has trained and scored the whole of a bundle, unless they are given."""
    from ..benchmark.comparison import Method

    given = {setting[2:].partition("=")[0] for setting in settings if setting.startswith("--")}
    if "fold" in given:
        return []
    said = Method(bundle.name, bundle, training_configurations(bundle)).said_by_training(given)
    return [part for name, value in said.items() for part in (f"--{name}", str(value))]


def _bundle_folder(bundle: str, output_dir: str) -> Path:
    """The folder that is meant, or that of the recipe's bundle in the output folder, made where it is missing."""
    if is_bundle_folder(bundle):
        return Path(bundle)
    if bundle not in recipe_names():
        raise ValueError(f"{bundle} is neither the folder of a bundle nor one of {', '.join(recipe_names())}")
    folder = Path(output_dir) / _BUNDLES / bundle
    if not folder.is_dir():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(f"several processes cannot make the bundle {bundle}: give its folder, see bundle create")
        from ..bundle.build import create_bundle

        create_bundle(bundle, folder.parent)
    return folder


def is_bundle_folder(bundle: str) -> bool:
    """Whether a bundle is given by its folder."""
    return (Path(bundle) / "configs").is_dir()


def _configurations(bundle: Path, kind: str, more: Sequence[str], settings: Sequence[str]) -> list[str]:
    """Names of the configuration files of a run, in their order."""
    known = sorted(path.stem for path in (bundle / "configs").glob("*.json"))
    if unknown := [name for name in more if name not in known]:
        raise ValueError(f"{bundle} has no configuration {', '.join(unknown)}; there are {', '.join(known)}")
    if kind == "infer":
        return ["inference", *more]
    if kind == "evaluate":
        return ["train", *more, "evaluate"]
    one_fold = any(setting.partition("=")[0] == "--fold" for setting in settings)
    return ["train", *more] if one_fold else training_configurations(bundle, more)


def training_configurations(bundle: Path, more: Sequence[str] = ()) -> list[str]:
    """Names of the configuration files that train all of a bundle: its pipeline, or all folds, where it has such."""
    known = {path.stem for path in (bundle / "configs").glob("*.json")}
    if "pipeline" in known:
        return ["train", *more, "evaluate", "all_folds", "pipeline"]
    return ["train", *more, *(["all_folds"] if "all_folds" in known and "all_folds" not in more else [])]


def shown(arguments: Sequence[str]) -> str:
    """A command of ``monai.bundle`` over several lines, to be read and copied."""
    lines = [["python", "-m", "monai.bundle", arguments[0]]]
    for argument in arguments[1:]:
        if argument.startswith("--"):
            lines.append([])
        lines[-1].append(argument)
    return " \\\n    ".join(" ".join(map(_quoted, line)) for line in lines)


def _quoted(text: str) -> str:
    """As the documentation writes it: a list of names, which holds single quotes, in double ones."""
    plain = "'" in text and not set(text) & set('"$`\\!')
    return f'"{text}"' if plain else shlex.quote(text)


def run_module(module: str, arguments: Sequence[str]) -> int:
    """Run a module in this process as ``python -m`` does; what it raises ends the process as it would there."""
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0
