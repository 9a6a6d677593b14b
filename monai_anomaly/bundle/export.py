# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Export of a bundle's map network to TorchScript, ONNX and ``.pt2``; each file is compared with the network first."""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, fx, nn

from ..data import inference_items, load_datalist, sample_dir
from ..transforms import LoadImageChecked, ScaleSourceRange
from ..utils import atomic_path, plain_tensor, read_settings
from .capture import capture, switches
from .export_formats import FORMATS, WRITERS, read_exported
from .parity import TOLERANCE, compare_maps, takes_gradient

_NUM_IMAGES = 5


@dataclass(frozen=True)
class Exported:
    """A network that was exported and found equal to the original.

    Args:
        path: the file.
        format: one of :data:`FORMATS`.
        shape: shape of a batch of images, any number of them: (C, *S).
        difference: largest difference of two maps, as a share of the largest value of the original one.
        images: number of images that were compared.
    """

    path: Path
    format: str
    shape: tuple[int, ...]
    difference: float
    images: int

    def __str__(self) -> str:
        """One line for people."""
        shape = ", ".join(map(str, self.shape))
        return (
            f"{self.path}: {self.format}, images (any number, {shape}); maps of {self.images} images differ by at most "
            f"{self.difference:.1g} of the largest value"
        )


class BundleNetwork:
    """The map network of a bundle with its weights, on the CPU in evaluation mode, as a graph of plain operators.

    Args:
        bundle_dir: folder of the bundle.
        checkpoint: weights, a file or, for ensembles whose members are trained apart, the ``output_dir`` of their
            training; None (default): those that the bundle reads by itself, ``models/model.pt``.
        config_files: configurations in ``configs``, later ones over earlier ones; default ``inference.json`` alone.
        settings: values of the configuration to set, as on the command line of ``monai.bundle run``.
        images: folder, image file or datalist whose images are used to compare; None (default): radiographs of the
            embedded sample, brought to the shape of the network's images.

    Raises:
        ValueError: naming file and remedy, when a file is missing or does not fit, or a setting is unknown.
    """

    def __init__(
        self,
        bundle_dir: str | os.PathLike[str],
        checkpoint: str | os.PathLike[str] | None = None,
        config_files: Sequence[str] = ("inference.json",),
        settings: Mapping[str, Any] | None = None,
        images: str | os.PathLike[str] | None = None,
    ) -> None:
        self.root = Path(bundle_dir).resolve()
        self.files = [_config(self.root, name) for name in config_files]
        self.parser = read_configuration(self.root, checkpoint, config_files, settings)
        self.network = self._network()
        self.images = self._images(images)
        self._graph: fx.GraphModule | None = None

    @property
    def graph(self) -> fx.GraphModule:
        """The network as a graph, made when it is first asked for."""
        if self._graph is None:
            self._graph = capture(self.network, self.images[:2])
        return self._graph

    def export(self, format: str, output: str | os.PathLike[str], tolerance: float = TOLERANCE) -> Exported:
        """Write the network to a file, which takes its place only when its maps are those of the network.

        Maps made of gradients may jump in a few places, where rounding decides: see :class:`.parity.Parity`.

        Args:
            format: one of :data:`FORMATS`.
            output: the file to write; its name must end as the format's do.
            tolerance: largest difference of two maps, as a share of the largest value of the original one; default
                1e-4.

        Raises:
            ValueError: when the format is unknown, its packages are missing, or the maps differ.
        """
        if format not in FORMATS:
            raise ValueError(f"format must be one of {tuple(FORMATS)}, got {format!r}")
        if Path(output).suffix != FORMATS[format]:
            raise ValueError(f"the name of a file of format {format} ends in {FORMATS[format]}, got {output}")
        with atomic_path(output) as temporary:
            WRITERS[format](self.graph, self.images[:2], temporary, self._documents(format, tolerance))
            difference = self._compare(read_exported(temporary), tolerance, format)
        return Exported(Path(output), format, tuple(self.images.shape[1:]), difference, len(self.images))

    def _network(self) -> nn.Module:
        network = self.parser.get_parsed_content("network_def")
        if not isinstance(network, nn.Module):
            raise ValueError(f"network_def of {self.files[0]} is a {type(network).__name__}, not a network")
        load_checkpoint(self.parser, network)
        return network.cpu().eval().requires_grad_(False)

    def _images(self, source: str | os.PathLike[str] | None) -> Tensor:
        if source is not None:
            items = inference_items(source, limit=_NUM_IMAGES)
            preprocess = self.parser.get_parsed_content("preprocessing")
            images = torch.stack([plain_tensor(preprocess(item)["image"]) for item in items])
            # any number is compared, and two are traced
            return images.repeat(2, *[1] * (images.ndim - 1)) if len(images) < 2 else images
        return sample_images(*self._shape())

    def _shape(self) -> tuple[int, list[int]]:
        size = self.parser.get_parsed_content("spatial_size")
        return int(self.parser.get_parsed_content("in_channels")), [int(axis) for axis in size]

    def _compare(self, exported: Callable[[Tensor], Tensor], tolerance: float, format: str) -> float:
        """Largest difference in batches of one, of some and of all images."""
        worst, jumps = 0.0, takes_gradient(self.graph)
        for count in (1, len(self.images) - 1, len(self.images)):
            batch = self.images[:count]
            expected, actual = self.network(batch).detach(), exported(batch)
            scale = float(expected.abs().max())
            if actual.shape != expected.shape or not scale > 0 or not torch.isfinite(expected).all():
                raise ValueError(
                    f"the maps of {count} images have the shape {tuple(actual.shape)} in {format} and "
                    f"{tuple(expected.shape)} before, and values up to {scale:g}: there is nothing to compare; train "
                    "the network first, or give other --images"
                )
            parity = compare_maps(actual, expected, tolerance)
            if not parity.holds(tolerance, jumps):
                raise ValueError(
                    f"the maps of {format} differ from those of the network by {parity.difference:.2g} of the largest "
                    f"value, {parity.share:.2%} of the values by more than {tolerance:g}: nothing was written"
                )
            worst = max(worst, parity.difference)
        return worst

    def _documents(self, format: str, tolerance: float) -> dict[str, Any]:
        """What is kept in the file: metadata, configurations, and what the export has fixed."""
        documents = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in self.files}
        metadata = _config(self.root, "metadata.json")
        documents["metadata.json"] = json.loads(metadata.read_text(encoding="utf-8"))
        checkpoint = Path(str(self.parser.get_parsed_content("checkpoint")))
        if training := read_settings(checkpoint):
            documents["training.json"] = training
        channels, *size = self.images.shape[1:]
        documents["export.json"] = {
            "bundle": self.root.name,
            "format": format,
            "input": {"name": "image", "shape": ["batch", channels, *size]},
            "output": {"name": "anomaly_map", "shape": ["batch", 1, *size]},
            "weights_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest() if checkpoint.is_file() else None,
            "fixed": switches(self.network),
            "parity": {"images": len(self.images), "tolerance": tolerance},
            "torch": torch.__version__,
        }
        return documents


def read_configuration(
    bundle_dir: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str] | None = None,
    config_files: Sequence[str] = ("inference.json",),
    settings: Mapping[str, Any] | None = None,
) -> ConfigParser:
    """The configuration of a bundle, to be built on the CPU.

    Args:
        bundle_dir: see :class:`BundleNetwork`, as for the others.
        checkpoint: weights.
        config_files: configurations.
        settings: values to set.

    Raises:
        ValueError: when a file is missing, or a setting is unknown.
    """
    root = Path(bundle_dir).resolve()
    parser = ConfigParser()
    parser.read_config([str(_config(root, name)) for name in config_files])
    values = dict(settings or {})
    for name in values:
        if name.split("#")[0].split("::")[0] not in parser:
            near = difflib.get_close_matches(name, list(parser.get()), n=1)
            hint = f"did you mean --{near[0]}?" if near else f"see {root / 'docs' / 'README.md'}"
            raise ValueError(f"unknown setting --{name}: {hint}")
    values |= {"bundle_root": str(root), "device": "$torch.device('cpu')"}
    if checkpoint is not None:
        values["checkpoint"] = os.path.abspath(checkpoint)
    for name, value in values.items():
        parser[name] = value
    return parser


def load_checkpoint(parser: ConfigParser, network: nn.Module) -> None:
    """Load a bundle's weights as its own configuration does before an inference.

    Args:
        parser: the configuration, of which ``network`` is the ``network_def``.
        network: what the weights are of.

    Raises:
        ValueError: naming file and remedy, when they are not there or of another network.
    """
    from ignite.engine import Engine, Events

    if "load_weights" not in parser:
        raise ValueError("inference.json has no load_weights: this command is for bundles of monai_anomaly")
    if "weights" in parser:
        _content(parser, "weights")  # says what is missing
    engine = Engine(lambda *_: None)
    _content(parser, "load_weights").attach(engine)
    try:
        engine.fire_event(Events.STARTED)
    except (RuntimeError, KeyError, TypeError) as error:
        raise ValueError(
            f"the weights at {parser.get_parsed_content('checkpoint')} are not of this network: give the settings that "
            f'they were trained with, such as --spatial_size "[128,128]" ({" ".join(str(error).split())[:300]})'
        ) from error


def sample_images(channels: int, size: Sequence[int], count: int = _NUM_IMAGES) -> Tensor:
    """Radiographs of the embedded sample, healthy and abnormal ones, in the shape of a network's images.

    Args:
        channels: number C of channels; the gray values are repeated.
        size: size S; volumes are made of different radiographs, one behind the other.
        count: number of images.

    Returns:
        (count, C, *S), in [-1, 1].
    """
    items = load_datalist(str(Path(sample_dir()) / "datalist.json"), "testing", sample_dir())
    depth = size[2] if len(size) == 3 else 1
    chosen = [items[i * (len(items) - 1) // (count * depth)] for i in range(count * depth)]
    load, scale = LoadImageChecked(2), ScaleSourceRange()
    planes = [plain_tensor(scale(load(item["image"])))[:1].unsqueeze(0) for item in chosen]
    resized = torch.cat([nn.functional.interpolate(plane, tuple(size[:2]), mode="area") for plane in planes])
    images = resized if depth == 1 else resized.reshape(count, depth, *size[:2]).movedim(1, -1).unsqueeze(1)
    return images.repeat(1, channels, *[1] * len(size)).contiguous()


def parse_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """Settings ``--name value`` or ``--name=value`` of a command line; values as Python writes them, or text.

    Raises:
        ValueError: when something else is among them.
    """
    settings: dict[str, Any] = {}
    words = list(arguments)
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("--") or (not equals and not words):
            raise ValueError(f"{name} is neither an argument of this command nor a setting --NAME VALUE of the bundle")
        text = value if equals else words.pop(0)
        try:
            settings[name[2:]] = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            settings[name[2:]] = text
    return settings


def _config(root: Path, name: str) -> Path:
    path = root / "configs" / (name if name.endswith(".json") else f"{name}.json")
    if not path.is_file():
        raise ValueError(f"there is no {path}: give the folder of a bundle, and names of files in its configs")
    return path


def _content(parser: ConfigParser, name: str) -> Any:
    """MONAI wraps what a part raises; the reason is what helps."""
    try:
        return parser.get_parsed_content(name)
    except RuntimeError as error:
        cause = error.__cause__
        while cause is not None and not isinstance(cause, ValueError):
            cause = cause.__cause__
        raise cause or error from error
