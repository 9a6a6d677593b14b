# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..utils import read_settings, save_weights
from .export_formats import read_exported
from .fitted_copy import fit_copy
from .lint import has_errors, lint_bundle
from .lint.config_tree import MISSING, load_strict_json, look_up
from .lint.ids import complete, required_ids
from .metadata import verify_metadata_offline
from .readme_exports import export_commands

PASS, FAIL, SKIP = "pass", "fail", "skip"
RTOL, ATOL = 1e-4, 1e-5
# set where a config has them; the last two leave out what an earlier step writes, and work that takes minutes
_OVERRIDABLE = ("bundle_root", "output_dir", "ckpt_dir", "pseudo_labels", "variants")


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check.

    Args:
        name: name of the check.
        status: ``"pass"``, ``"fail"`` or ``"skip"``.
        seconds: how long it took.
        message: what was found.
    """

    name: str
    status: str
    seconds: float
    message: str

    def __str__(self) -> str:
        """One line for people."""
        return f"{self.status.upper():4} {self.name:<14} {self.seconds:6.1f} s  {self.message}"

    def as_dict(self) -> dict[str, Any]:
        """Fields for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Verifier:
    """The dynamic checks of a bundle, on the CPU; what they write goes to a scratch folder, never into the bundle.

    Args:
        root: folder of the bundle.
        scratch: an existing folder for copies and exports.
        sizes: values of ``p``, ``n`` and ``*`` in the metadata's ``spatial_shape``; default 4, 4 and 64.
    """

    root: Path
    scratch: Path
    sizes: tuple[int, int, int] = (4, 4, 64)

    def check_metadata(self) -> str:
        """MONAI's verify_metadata against the schema in this package."""
        verify_metadata_offline(self.root)
        return "fits the bundle specification (schema in this package, no download)"

    def check_network(self) -> str:
        """MONAI's verify_net_in_out on ``network_def`` of the inference config."""
        from monai.bundle import verify_net_in_out

        fit_copy(self.root, self.input_shape(1)[1:], self._fitted)
        power, factor, free = self.sizes
        verify_net_in_out(
            net_id="network_def",
            meta_file=str(self._config("metadata")),
            config_file=str(self._config("inference")),
            device="cpu",
            p=power,
            n=factor,
            any=free,
            bundle_root=str(self.root),
        )
        return f"network_def keeps the metadata's channels and dtypes on an image of shape {self.input_shape(1)}"

    def check_train(self) -> str:
        """MONAI's check_properties on the train config."""
        return self._check_properties("train")

    def check_inference(self) -> str:
        """MONAI's check_properties on the inference config."""
        return self._check_properties("inference")

    def check_export(self) -> str:
        """Run the export commands of the README and compare what they write on two batches with the network."""
        network = self.load_network()
        if not self._checkpoint.is_file():  # members that begin alike have no map of their difference
            draw = torch.Generator().manual_seed(0)
            for parameter in network.parameters():
                parameter.data += 0.02 * torch.randn(parameter.shape, generator=draw)
        copy = self._copy_with_weights(network.state_dict())
        told = []
        for command in export_commands(self.root):
            (copy / command.weights).parent.mkdir(parents=True, exist_ok=True)
            self._save(network.state_dict(), copy / command.weights)
            with _inside(copy):
                command.run()
            shape = command.shape or self.input_shape(1)
            worst = self._compare(network, copy / command.output, shape[1:], str(command))
            told.append(f"{command}: outputs differ by at most {worst:.1g}")
        return f"{'; '.join(told)} (allowed: {ATOL:g} + {RTOL:g} of the value)"

    def check_load(self) -> str:
        """``monai.bundle.load`` of a copy, with weights saved from ``network_def`` where the bundle has none."""
        from monai.bundle import load

        expected = self.load_network().state_dict()
        copy = self._copy_with_weights(expected)
        with _inside(copy):
            network = load(
                copy.name, bundle_dir=str(copy.parent), workflow_type="inference", source="github", device="cpu"
            )
        if not isinstance(network, torch.nn.Module):
            raise ValueError("monai.bundle.load returned bare weights: inference.json has no network_def")
        loaded = network.state_dict()
        wrong = [key for key, value in expected.items() if key not in loaded or not torch.equal(loaded[key], value)]
        if wrong or len(loaded) != len(expected):
            raise ValueError(f"after loading, {len(wrong)} of {len(expected)} tensors differ, such as {wrong[:3]}")
        origin = "models/model.pt" if self._checkpoint.is_file() else "fresh weights: models/model.pt is missing"
        return f"all {len(expected)} tensors of {type(network).__name__} are as saved ({origin})"

    def load_network(self) -> torch.nn.Module:
        """``network_def`` of the inference config in evaluation mode, with the bundle's weights where it has some."""
        from monai.bundle import ConfigParser

        torch.manual_seed(0)
        parser = ConfigParser()
        parser.read_config(str(self._config("inference")))
        parser.read_meta(str(self._config("metadata")))
        parser["bundle_root"] = str(self.root)
        network = parser.get_parsed_content("network_def")
        if not isinstance(network, torch.nn.Module):
            raise ValueError(f"network_def of {self._config('inference')} is a {type(network).__name__}, not a network")
        if self._checkpoint.is_file():
            state = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
            network.load_state_dict(state[_nested_key(state)] if _nested_key(state) else state)
        return network.cpu().eval()

    def input_shape(self, batch: int) -> tuple[int, ...]:
        """Shape of a batch of images that fits the metadata.

        Args:
            batch: number of images.
        """
        from monai.bundle.scripts import _get_fake_spatial_shape

        metadata = load_strict_json(self._config("metadata"))
        image = metadata["network_data_format"]["inputs"]["image"]
        power, factor, free = self.sizes
        spatial = _get_fake_spatial_shape(image["spatial_shape"], p=power, n=factor, any=free)
        return (batch, image["num_channels"], *spatial)

    @property
    def _checkpoint(self) -> Path:
        return self._used / "models" / "model.pt"

    @property
    def _fitted(self) -> Path:
        return self.scratch / "fitted" / self.root.name

    @property
    def _used(self) -> Path:
        """The bundle, or its copy with weights where it has none and says nothing without."""
        return self._fitted if self._fitted.is_dir() else self.root

    def _config(self, name: str) -> Path:
        return self._used / "configs" / f"{name}.json"

    def _check_properties(self, kind: str) -> str:
        """MONAI raises KeyError at the first missing id, so the missing ones are told before it is asked."""
        from monai.bundle import ConfigWorkflow

        config = load_strict_json(self._config(kind))
        missing = [
            id_ for id_ in required_ids(f"configs/{kind}.json") if look_up(_merged(kind, config), id_) is MISSING
        ]
        if missing:
            raise ValueError(f"{self._config(kind)} lacks the required ids {', '.join(missing)}: define them")
        scratch = str(self.scratch)
        values: dict[str, Any] = {"bundle_root": str(self.root), "output_dir": scratch, "ckpt_dir": scratch}
        values |= {"pseudo_labels": None, "variants": 0}
        workflow = ConfigWorkflow(
            config_file=str(self._config(kind)),
            meta_file=str(self._config("metadata")),
            logging_file=False,
            workflow_type=kind,
            **{key: values[key] for key in _OVERRIDABLE if key in config},
        )
        with _inside(self.root):
            workflow.initialize()
            wrong = workflow.check_properties()
            workflow.finalize()
        if wrong:
            raise ValueError(f"{self._config(kind)}: missing or under another id: {', '.join(wrong)}")
        return f"all properties of a {kind} workflow can be built"

    def _compare(self, network: torch.nn.Module, path: Path, shape: tuple[int, ...], how: str) -> float:
        """Largest difference of the maps of random images, before and after."""
        exported = read_exported(path)
        worst = 0.0
        for batch in (1, 3):
            image = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(batch))
            with torch.no_grad():
                expected, actual = network(image), exported(image)
            difference = (actual - expected).abs().max().item()
            if not torch.allclose(actual, expected, rtol=RTOL, atol=ATOL):
                raise ValueError(f"{how}: for a batch of {batch} the outputs differ by up to {difference:.2g}")
            worst = max(worst, difference)
        return worst

    def _save(self, state: dict[str, torch.Tensor], path: Path) -> None:
        """Weights of the bundle's network, with the settings of the bundle's weights, from which it is built again."""
        save_weights(state, path, read_settings(self._checkpoint))

    def _copy_with_weights(self, state: dict[str, torch.Tensor]) -> Path:
        copy = self.scratch / "load" / self.root.name
        shutil.copytree(self.root, copy, ignore=shutil.ignore_patterns("models", "eval", "runs"), dirs_exist_ok=True)
        (copy / "models").mkdir(exist_ok=True)
        self._save(state, copy / "models" / "model.pt")
        return copy


CHECKS: dict[str, Callable[[Verifier], str]] = {
    "metadata": Verifier.check_metadata,
    "net_in_out": Verifier.check_network,
    "train": Verifier.check_train,
    "inference": Verifier.check_inference,
    "export": Verifier.check_export,
    "load": Verifier.check_load,
}


def verify_bundle(
    bundle_dir: str | os.PathLike[str],
    trust: bool = False,
    sizes: tuple[int, int, int] = (4, 4, 64),
    report: Callable[[CheckResult], None] | None = None,
) -> list[CheckResult]:
    """Lint a bundle and, unless that finds errors, build and run its parts as MONAI does.

    Args:
        bundle_dir: folder of the bundle.
        trust: run the bundle's configs even when lint finds errors; default False, because a config is code.
        sizes: values of ``p``, ``n`` and ``*`` in the metadata's ``spatial_shape``; default 4, 4 and 64.
        report: called with each result as soon as it is known; default is none.

    Returns:
        one result a check, lint first.

    Raises:
        ValueError: when ``bundle_dir`` is not a folder.
    """
    root = Path(bundle_dir).resolve()
    results: list[CheckResult] = []
    with tempfile.TemporaryDirectory(prefix="verify_bundle_") as scratch, _random_state():
        verifier = Verifier(root, Path(scratch), sizes)
        for result in _run_all(verifier, trust):
            results.append(result)
            if report is not None:
                report(result)
    return results


def _run_all(verifier: Verifier, trust: bool) -> Iterator[CheckResult]:
    findings = lint_bundle(verifier.root)
    lint = _run("lint", lambda: _judge_lint(findings))
    yield lint
    for name, check in CHECKS.items():
        if lint.status == FAIL and not trust and name != "metadata":
            yield CheckResult(name, SKIP, 0.0, "lint found errors, so nothing in the bundle was run")
        else:
            yield _run(name, lambda check=check: check(verifier))  # type: ignore[misc]


def _judge_lint(findings: list[Any]) -> str:
    if has_errors(findings):
        errors = [finding for finding in findings if finding.severity == "error"]
        raise ValueError(f"{len(errors)} errors, the first: {errors[0]}")
    return f"no errors, {len(findings)} warnings"


def _run(name: str, check: Callable[[], str]) -> CheckResult:
    start = time.perf_counter()
    try:
        status, message = PASS, check()
    except Exception as error:  # a bundle may fail in any way; the report names the kind
        status, message = FAIL, f"{type(error).__name__}: {_innermost(error)}"
    return CheckResult(name, status, time.perf_counter() - start, message)


def _innermost(error: BaseException) -> str:
    """MONAI wraps errors in 'Failed to evaluate ...': the cause is what helps."""
    message = str(error)
    cause = error.__cause__
    while cause is not None:
        message, cause = f"{type(cause).__name__}: {cause}", cause.__cause__
    return " ".join(message.split())[:500]


def _nested_key(state: Any) -> str:
    """Key of the weights in a checkpoint that holds more than a state dict, or an empty text."""
    return next((key for key in ("model", "state_dict", "network") if isinstance(state.get(key), dict)), "")


def _merged(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return complete(f"configs/{kind}.json", {f"configs/{kind}.json": config})[0]


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """A bundle is written to be run from its own folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _random_state() -> Iterator[None]:
    """A config's ``initialize`` seeds the process and turns on deterministic algorithms; leave the caller as it was."""
    deterministic, states = torch.are_deterministic_algorithms_enabled(), (random.getstate(), np.random.get_state())
    cudnn = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
        random.setstate(states[0])
        np.random.set_state(states[1])
