# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Every bundle's map network in every file format gives the maps of the original, for any number of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fitted_networks import SMALL_FIT, gather, has_backbone, is_fitted, ready
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_anomaly.bundle import export
from monai_anomaly.bundle.build import recipe_names
from monai_anomaly.bundle.cli import main
from monai_anomaly.bundle.export import FORMATS, BundleNetwork, parse_settings, sample_images
from monai_anomaly.bundle.parity import compare_maps, takes_gradient

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
VOLUMES = ("d2ue_aeu-3d", "restorer-3d")
# kinds of network that another bundle, or the verification of every bundle, exports as well
ALIKE = ("aeu", "memae", "d2ue_aeu", "mae_pretrain", "amae_stage1")
# what makes networks small: each recipe reads those that it has
TINY: dict[str, Any] = {
    "hidden_channels": 4,
    "latent_channels": 2,
    "memory_slots": 3,
    "channels": [8, 8],
    "attention_levels": [False, True],
    "num_res_blocks": 1,
    "num_steps": 1,
    "max_asked": None,
    "num_members": 3,
    "num_folds": 2,
    "hidden_size": 24,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_hidden_size": 24,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
    **SMALL_FIT,
}


def settings_of(name: str, size: list[int]) -> dict[str, Any]:
    """The settings that a bundle has, small."""
    config = json.loads((BUNDLES / name / "configs/inference.json").read_text())
    tiny = {**TINY, "num_folds": 4} if "num_normal" in config else TINY
    return {key: value for key, value in tiny.items() if key in config} | {"spatial_size": size}


def write_weights(name: str, settings: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Write random weights, of members that differ, the last of three in a row untrained."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / name / "configs/inference.json"))
    for key, value in settings.items():
        parser[key] = value
    network: nn.Module = ready(parser)
    draw = torch.Generator().manual_seed(3)
    for parameter in network.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=draw)
    if has_backbone(parser) and not is_fitted(parser):
        gather(network, torch.rand(4, 1, *settings["spatial_size"], generator=draw) * 2 - 1)
    state = network.state_dict()
    if "network.num_active" in state:
        state["network.num_active"].fill_(2)
    if "num_normal" in settings or len(state.get("network.present", ())) == 4:
        state["network.present"][3] = False
    torch.save(state, path)
    return state


@pytest.fixture(scope="module", params=[*sorted({*recipe_names()} - {*ALIKE}), *VOLUMES])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BundleNetwork:
    """A bundle with random weights, captured once for all formats."""
    name, _, dims = request.param.partition("-")
    settings = settings_of(name, [16, 16, 16] if dims else [32, 32] if "diffusion" in name else [16, 16])
    weights = tmp_path_factory.mktemp("weights") / "model.pt"
    write_weights(name, settings, weights)
    return BundleNetwork(BUNDLES / name, weights, settings=settings)


def load(path: Path) -> Any:
    """What a reader of the file calls, without this package."""
    if path.suffix == ".ts":
        return torch.jit.load(str(path))
    if path.suffix == ".pt2":
        return torch.export.load(str(path)).module()
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["anomaly_map"], {"image": images.numpy()})[0])


def documents_of(path: Path) -> dict[str, Any]:
    """JSON documents in a file."""
    names = dict.fromkeys(("metadata.json", "inference.json", "export.json"), "")
    if path.suffix == ".ts":
        torch.jit.load(str(path), _extra_files=names)
    elif path.suffix == ".pt2":
        torch.export.load(str(path), extra_files=names)
    else:
        onnx = pytest.importorskip("onnx")
        names = {item.key: item.value for item in onnx.load(str(path)).metadata_props}
    return {name: json.loads(text) for name, text in names.items()}


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_gives_the_maps_of_the_network(bundle: BundleNetwork, format: str, tmp_path: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxscript", reason='ONNX is an extra: pip install "monai-anomaly[onnx]"')
    path = tmp_path / f"model{FORMATS[format]}"
    exported = bundle.export(format, path)
    jumps = takes_gradient(bundle.graph)
    assert jumps is bundle.root.name.startswith("d2ue")
    assert exported.difference <= (1e-2 if jumps else 1e-4) and exported.images == 5 and str(path) in str(exported)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    module = load(path)
    for count in (1, 4, 7):  # none of them is the number that was traced
        images = torch.rand(count, *exported.shape, generator=torch.Generator().manual_seed(count)) * 2 - 1
        expected, actual = bundle.network(images).detach(), module(images)
        assert expected.std() > 0 and not actual.requires_grad
        assert compare_maps(actual, expected).holds(1e-4, jumps)
    documents = documents_of(path)
    assert documents["metadata.json"]["network_data_format"]["inputs"]["image"]["num_channels"] == 1
    assert documents["inference.json"]["network_def"]
    kept = documents["export.json"]
    assert kept["input"]["shape"] == ["batch", *exported.shape] and len(kept["weights_sha256"]) == 64
    expected_members = {"d2ue": {"network.num_active": 2}, "ddad": {"network.present": [True] * 3 + [False]}}
    for name, value in expected_members.get(kept["bundle"].partition("_")[0], {}).items():
        assert kept["fixed"][name] == value


def test_an_untrained_member_has_no_say(tmp_path: Path) -> None:
    settings = settings_of("d2ue_ae", [16, 16])
    state = write_weights("d2ue_ae", settings, tmp_path / "model.pt")
    exported = BundleNetwork(BUNDLES / "d2ue_ae", tmp_path / "model.pt", settings=settings)
    images = exported.images
    before = exported.graph(images)
    for key, value in state.items():
        if ".members.2." in key and value.is_floating_point():
            value.fill_(float("nan"))
    torch.save(state, tmp_path / "model.pt")
    changed = BundleNetwork(BUNDLES / "d2ue_ae", tmp_path / "model.pt", settings=settings).graph
    assert torch.equal(changed(images), before)
    assert sum(buffer.numel() for buffer in changed.buffers()) < sum(value.numel() for value in state.values())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ae") / "model.pt"
    write_weights("ae", settings_of("ae", [16, 16]), path)
    return path


def arguments(weights: Path, *more: str) -> list[str]:
    """The command line of an export of the bundle ``ae`` with small networks."""
    settings = settings_of("ae", [16, 16])
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value).replace(" ", ""))]
    return ["export", str(BUNDLES / "ae"), "--checkpoint", str(weights), *words, *more]


def test_the_command_writes_and_compares(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "sub" / "model.ts"
    more = ["--images", str(Path(export.sample_dir()) / "datalist.json"), "--output", str(output)]
    assert main(arguments(weights, *more)) == 0
    assert f"{output}: torchscript, images (any number, 1, 16, 16)" in capsys.readouterr().out
    assert load(output)(torch.zeros(2, 1, 16, 16)).shape == (2, 1, 16, 16)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--tolerance", "-1"], "differ from those of the network"),
        (["--output", "model.onnx"], "a file of format torchscript ends in .ts, got model.onnx"),
        (["--hiden_channels", "4"], "unknown setting --hiden_channels: did you mean --hidden_channels?"),
        (["--config_file", "paper"], "paper.json: give the folder of a bundle"),
        (["--hidden_channels", "8"], "are not of this network: give the settings that they were trained with"),
        (["--images", "/nowhere.png"], "/nowhere.png"),
        (["loose"], "loose is neither an argument of this command nor a setting"),
        (["--checkpoint", "/no/model.pt"], "no weights at /no/model.pt"),
    ],
)
def test_wrong_use_is_told_and_writes_nothing(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], reason: str
) -> None:
    output = tmp_path / "model.ts"
    assert main(arguments(weights, "--output", str(output), *more)) == 2
    assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_equal_maps_of_nothing_are_no_proof(tmp_path: Path) -> None:
    settings = settings_of("ae", [16, 16])
    state = {key: torch.zeros_like(value) for key, value in write_weights("ae", settings, tmp_path / "w.pt").items()}
    torch.save(state, tmp_path / "w.pt")
    network = BundleNetwork(BUNDLES / "ae", tmp_path / "w.pt", settings=settings)
    network.images = torch.zeros_like(network.images)
    with pytest.raises(ValueError, match="there is nothing to compare"):
        network.export("torchscript", tmp_path / "model.ts")


def test_a_bundle_that_lint_refuses_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path)]) == 2
    assert "so nothing in it is run" in capsys.readouterr().err


def test_sample_images_are_real_and_differ() -> None:
    flat, solid = sample_images(3, [16, 24]), sample_images(1, [16, 16, 8], count=2)
    assert flat.shape == (5, 3, 16, 24) and solid.shape == (2, 1, 16, 16, 8)
    for images in (flat, solid):
        assert images.min() >= -1 and images.max() <= 1 and images.std() > 0.1
        assert all(not torch.equal(images[0], other) for other in images[1:])
    assert not torch.equal(solid[0, ..., 0], solid[0, ..., 1])


def test_settings_of_a_command_line() -> None:
    words = ["--spatial_size", "[8,8]", "--score=unc", "--device", "$torch.device('cpu')"]
    assert parse_settings(words) == {"spatial_size": [8, 8], "score": "unc", "device": "$torch.device('cpu')"}
    with pytest.raises(ValueError, match="--score is neither"):
        parse_settings(["--score"])
