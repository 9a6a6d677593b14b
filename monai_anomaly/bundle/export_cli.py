# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``export``; nothing heavy is imported before it runs."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path


def add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command ``export`` to those of a parser."""
    command = commands.add_parser(
        "export",
        help="write the map network to TorchScript, ONNX or .pt2, and compare it with the original",
        description="Write the map network of a bundle, weights and settings included, to one file for any number of "
        "images. The file takes its place only when its maps of real images are those of the network.",
        epilog="Any other --NAME VALUE is a setting of the bundle, such as --num_steps 5: see its docs/README.md.",
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle")
    command.add_argument("--format", choices=("torchscript", "onnx", "pt2"), default="torchscript", help="file format")
    command.add_argument("--checkpoint", type=Path, help="weights (default: models/model.pt of the bundle)")
    command.add_argument("--output", type=Path, help="file to write (default: models/model.ts, .onnx or .pt2)")
    command.add_argument(
        "--config_file", nargs="+", default=["inference.json"], metavar="NAME", help="configurations in configs/"
    )
    command.add_argument("--images", help="folder, image or datalist to compare with (default: the embedded sample)")
    command.add_argument("--tolerance", type=float, default=1e-4, help="share of the largest value (default 1e-4)")
    command.add_argument("--trust", action="store_true", help="run the bundle's configs even when lint finds errors")
    command.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    """Export as the command line says; settings of the bundle are the words in ``options.settings``."""
    from .export import FORMATS, BundleNetwork, parse_settings
    from .lint import has_errors, lint_bundle

    root = bundle_folder(options.bundle)
    if not options.trust and has_errors(lint_bundle(root)):
        raise ValueError(f"lint finds errors in {root}, so nothing in it is run: see the command lint, or --trust")
    output = options.output or root / "models" / f"model{FORMATS[options.format]}"
    with quiet():
        network = BundleNetwork(
            root, options.checkpoint, options.config_file, parse_settings(options.settings), options.images
        )
        exported = network.export(options.format, output, options.tolerance)
    print(exported)
    return 0


def export_by_words(words: Sequence[str]) -> int:
    """Run ``export`` with the words of a command line; return its status.

    Args:
        words: the command line, from ``export`` on.
    """
    parser = argparse.ArgumentParser(prog="python -m monai_anomaly.bundle")
    add_export(parser.add_subparsers(required=True))
    options, settings = parser.parse_known_args(words)
    options.settings = settings
    from ..utils.failures import run_command

    return run_command(lambda: run_export(options))


def bundle_folder(bundle: Path) -> Path:
    """The folder itself, which must be one.

    Raises:
        SystemExit: when it is none.
    """
    if not bundle.is_dir():
        print(f"{bundle} is not a folder: give the bundle's folder, which holds configs/metadata.json", file=sys.stderr)
        raise SystemExit(2)
    return bundle


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """MONAI logs every argument of every command and warns that configs are code, which lint has looked after."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
