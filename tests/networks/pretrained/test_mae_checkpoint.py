# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from reference_mae import ReferenceMae, published_table
from torch import Tensor

from monai_anomaly.functional import patchify, random_kept
from monai_anomaly.networks.nets import MaskedAutoencoder
from monai_anomaly.networks.pretrained import convert_mae_state, mae_arguments, mae_key_map
from monai_anomaly.networks.pretrained.mae_checkpoint import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NIH_MEAN,
    NIH_STD,
    convert_mae_file,
    load_mae_checkpoint,
    main,
)

SIZES: dict[str, Any] = {
    "spatial_size": 32,
    "patch_size": 8,
    "hidden_size": 48,
    "num_layers": 3,
    "num_heads": 3,
    "decoder_hidden_size": 32,
    "decoder_num_layers": 2,
    "decoder_num_heads": 4,
    "network_channels": 3,
}
HEADS = ["--num-heads", "3", "--decoder-num-heads", "4"]


def network(**changes: Any) -> MaskedAutoencoder:
    torch.manual_seed(1)
    return MaskedAutoencoder(**SIZES | changes).eval()


def published(**changes: Any) -> dict[str, Tensor]:
    return dict(ReferenceMae(**changes).state_dict())


def gray(size: tuple[int, int] = (32, 32)) -> Tensor:
    return 2 * torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(2)) - 1


def normalized(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return ((image.repeat(1, 3, 1, 1) + 1) / 2 - mean) / std


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As the published code writes it: weights, state of the optimizer, epoch, options."""
    content = {
        "model": published(),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.95)}]},
        "epoch": 799,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(mask_ratio=0.9, norm_pix_loss=False, output_dir="out", blr=1.5e-4),
    }
    torch.save(content, tmp_path / "published.pth")
    return tmp_path / "published.pth"


def test_converted_weights_reproduce_the_reference_on_fixed_masks() -> None:
    reference, mine = ReferenceMae().eval(), network(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    mine.load_state_dict(convert_mae_state(reference.state_dict(), mine))
    kept = random_kept(2, 16, 0.75, torch.Generator().manual_seed(3)).unsqueeze(0)
    with torch.no_grad():
        output = mine(gray(), kept)
        torch.testing.assert_close(output.target, patchify(normalized(gray()), (8, 8)))
        for number in range(2):
            expected = reference(normalized(gray()), kept[0, number].tolist())
            assert expected.std() > 0.1
            torch.testing.assert_close(output.prediction[:, number], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.tokens(gray()), reference.encoded(normalized(gray())), rtol=0, atol=1e-4)


def test_positions_are_made_anew_for_another_image_size() -> None:
    mine, reference = network(spatial_size=(40, 24)), ReferenceMae(grid=(5, 3)).eval()
    mine.load_state_dict(convert_mae_state(published(), mine))
    with torch.no_grad():
        image = gray((40, 24))
        output = mine(image, torch.tensor([[[1, 4, 9, 14]]])).prediction[:, 0]
        torch.testing.assert_close(output, reference(image.repeat(1, 3, 1, 1), [1, 4, 9, 14]), rtol=0, atol=1e-4)


def test_key_map_is_that_of_the_published_layout() -> None:
    names = mae_key_map(network())
    assert set(names.values()) == set(published()) - {"pos_embed", "decoder_pos_embed"}
    assert names["vit.cls_token"] == "cls_token" and names["vit.mask_tokens"] == "mask_token"
    assert names["vit.patch_embedding.patch_embeddings.bias"] == "patch_embed.proj.bias"
    assert names["vit.blocks.2.attn.out_proj.weight"] == "blocks.2.attn.proj.weight"
    assert names["vit.blocks.3.weight"] == "norm.weight"
    assert names["vit.decoder_blocks.1.mlp.linear2.bias"] == "decoder_blocks.1.mlp.fc2.bias"
    assert names["vit.decoder_blocks.2.bias"] == "decoder_norm.bias"


def test_published_sizes_are_read_off_the_shapes() -> None:
    with torch.device("meta"):
        mine = MaskedAutoencoder(network_channels=3)
        tensors, positions = mine.state_dict(), torch.empty(1, 197, 384)
    state = {name: tensors[own] for own, name in mae_key_map(mine).items()} | {"pos_embed": positions}
    assert mae_arguments(state) == {
        "network_channels": 3,
        "patch_size": [16, 16],
        "hidden_size": 384,
        "num_layers": 12,
        "mlp_dim": 1536,
        "decoder_hidden_size": 512,
        "decoder_num_layers": 2,
        "decoder_mlp_dim": 2048,
        "spatial_size": [224, 224],
    }


def test_half_precision_is_widened() -> None:
    mine = network()
    converted = convert_mae_state({key: value.half() for key, value in published().items()}, mine)
    assert {value.dtype for value in converted.values()} == {torch.float32}


def encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith(("decoder_", "mask_token"))}


def test_an_encoder_alone_is_taken_only_on_demand() -> None:
    mine, reference = network(), ReferenceMae().eval()
    with pytest.raises(ValueError, match="an encoder without a decoder: .* encoder_only=True"):
        convert_mae_state(encoder(published()), mine)
    before = {key: value.clone() for key, value in mine.state_dict().items()}
    for state in (encoder(published()), encoder(published()) | {"head.weight": torch.zeros(2, 48)}, published()):
        converted = convert_mae_state(state, mine, encoder_only=True)
        assert all(torch.equal(converted[key], before[key]) for key in before if "decoder" in key or "mask" in key)
        mine.load_state_dict(converted)
        with torch.no_grad():
            expected = reference.encoded(gray().repeat(1, 3, 1, 1))
            torch.testing.assert_close(mine.tokens(gray()), expected, rtol=0, atol=1e-4)


def without(*names: str) -> dict[str, Tensor]:
    return {key: value for key, value in published().items() if key not in names}


def changed(key: str, value: Tensor) -> dict[str, Tensor]:
    return published() | {key: value}


LEARNED = torch.randn(1, 17, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("state", "changes", "message"),
    [
        (published(width=60), {}, r"cls_token \(1, 1, 60\) instead of \(1, 1, 48\)"),
        (published(patch=4), {}, r"patch_embed.proj.weight \(48, 3, 4, 4\) instead of \(48, 3, 8, 8\)"),
        (published(channels=1), {}, r"patch_embed.proj.weight \(48, 1, 8, 8\) instead of \(48, 3, 8, 8\)"),
        (published(mlp_ratio=2), {}, r"blocks.0.mlp.fc1.weight \(96, 48\) instead of \(192, 48\)"),
        (published(), {"decoder_hidden_size": 48}, "build the network with .*'decoder_hidden_size': 32"),
        (published(depth=4), {}, r"has blocks.3.norm1.weight, .* more, which the network has not: it is deeper"),
        (published(depth=2), {}, r"lacks blocks.2.attn.proj.bias, .* so it is not of an MAE of these sizes"),
        (published(decoder_depth=1), {}, "lacks decoder_blocks.1"),
        (without("norm.weight"), {}, "lacks norm.weight"),
        (changed("fc_norm.weight", torch.ones(48)), {}, "has fc_norm.weight, which the network has not"),
        (changed("pos_embed", LEARNED), {}, r"pos_embed \(1, 17, 48\) is not the fixed table"),
        (changed("pos_embed", published_table(4, 4, 48) + 0.01), {}, "pos_embed .* is not the fixed table"),
        (changed("decoder_pos_embed", LEARNED[..., :32]), {}, "decoder_pos_embed .* is not the fixed table"),
        (changed("pos_embed", LEARNED), {"spatial_size": 64}, "positions that were learned cannot be taken over"),
        (changed("pos_embed", torch.zeros(17, 48)), {}, r"pos_embed \(17, 48\) is not the fixed table"),
        (changed("norm.bias", torch.full((48,), torch.nan)), {}, "not finite, in norm.bias"),
        (changed("norm.bias", torch.zeros(48).int()), {}, r"norm.bias \(48,\) of torch.int32: weights are"),
        (published(), {"spatial_dims": 3, "decoder_hidden_size": 48}, "of 2D networks, got one with 3 spatial axes"),
    ],
)
def test_other_networks_are_refused_by_names_and_shapes(
    state: dict[str, Tensor], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        convert_mae_state(state, network(**changes))


def test_a_file_is_converted_to_tensors_that_load(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = checkpoint.parent / "out" / "model.pt"
    assert main([str(checkpoint), str(target), *HEADS]) == 0
    content = torch.load(target, weights_only=True)
    assert all(isinstance(value, Tensor) for value in content.values())
    mine = network()
    mine.load_state_dict(content)
    assert all(torch.equal(v, content[k]) for k, v in convert_mae_state(published(), network()).items())
    said = capsys.readouterr().out
    millions = sum(parameter.numel() for parameter in mine.parameters()) / 1e6
    assert f"encoder and decoder of {len(published())} tensors converted, {millions:.2f} million parameters" in said
    arguments = json.loads(said.split("arguments of MaskedAutoencoder: ")[1].splitlines()[0])
    MaskedAutoencoder(in_channels=1, **arguments).load_state_dict(content)
    assert [path.name for path in target.parent.iterdir()] == ["model.pt"]


def test_a_bare_dictionary_is_converted_for_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(published(), tmp_path / "bare.pth")
    assert main([str(tmp_path / "bare.pth"), str(tmp_path / "m.pt"), "--image-size", "40", "24", *HEADS]) == 0
    network(spatial_size=(40, 24)).load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    assert "positions: made for 5 x 3 patches, 16 in the checkpoint" in capsys.readouterr().out


def test_an_encoder_gets_an_untrained_decoder_by_the_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": encoder(published())}, tmp_path / "e.pth")
    assert main([str(tmp_path / "e.pth"), str(tmp_path / "m.pt"), *HEADS]) == 1
    assert "an encoder without a decoder" in capsys.readouterr().err and not (tmp_path / "m.pt").exists()
    decoder = ["--encoder-only", "--decoder-hidden-size", "32", "--decoder-num-layers", "1"]
    written = []
    for seed in ("4", "4", "5"):
        assert main([str(tmp_path / "e.pth"), str(tmp_path / "m.pt"), *HEADS, *decoder, "--seed", seed]) == 0
        written.append(torch.load(tmp_path / "m.pt", weights_only=True))
    assert "the decoder is untrained" in capsys.readouterr().out
    network(decoder_num_layers=1).load_state_dict(written[0])
    first, again, other = (state["vit.decoder_pred.weight"] for state in written)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_training_with_normalized_patches_is_told(tmp_path: Path) -> None:
    torch.save({"model": published(), "args": argparse.Namespace(norm_pix_loss=True)}, tmp_path / "n.pth")
    rows = convert_mae_file(tmp_path / "n.pth", tmp_path / "m.pt", num_heads=3, decoder_num_heads=4)
    assert any("norm_pix_loss" in row for row in rows)


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (1280, 16)])
def test_heads_are_those_of_the_published_network_of_a_width(tmp_path: Path, width: int, heads: int) -> None:
    torch.save(published(width=width, heads=heads, depth=1, mlp_ratio=1, decoder_depth=1), tmp_path / "w.pth")
    rows = convert_mae_file(tmp_path / "w.pth", tmp_path / "m.pt")
    assert f'"num_heads": {heads}, "decoder_num_heads": 16' in rows[1]


def test_heads_of_another_width_must_be_given(tmp_path: Path) -> None:
    torch.save(published(width=128, heads=2), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="heads an encoder of width 128 has, .*: give --num-heads"):
        convert_mae_file(tmp_path / "w.pth", tmp_path / "m.pt")


def test_no_generator_but_its_own_is_seeded(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forked, fork = [], torch.random.fork_rng

    def watched(devices: Any = None, **others: Any) -> Any:
        forked.append(devices)
        return fork(devices, **others)

    monkeypatch.setattr(torch.random, "fork_rng", watched)
    before = torch.random.get_rng_state()
    convert_mae_file(checkpoint, checkpoint.parent / "m.pt", num_heads=3, decoder_num_heads=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert forked == [None], "the generators of all devices are kept, since all of them are seeded"


@pytest.mark.parametrize("place", ["args", "extra"])
def test_other_objects_are_not_loaded(tmp_path: Path, place: str) -> None:
    inside: Any = argparse.Namespace(ratio=Fraction(1, 2)) if place == "args" else Fraction(1, 2)
    torch.save({"model": published(), place: inside}, tmp_path / "unsafe.pth")
    with pytest.raises(ValueError, match=r"unsafe\.pth is damaged, or holds objects .* save only its dictionary"):
        load_mae_checkpoint(tmp_path / "unsafe.pth")


def test_loading_leaves_the_allowed_objects_as_they_were(checkpoint: Path) -> None:
    state, options = load_mae_checkpoint(checkpoint)
    assert options["mask_ratio"] == 0.9 and set(state) == set(published())
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state": 1}, r"has no dictionary of tensors, nor one named 'model', but \['state'\]"),
        (torch.zeros(2), "has no dictionary of tensors, nor one named 'model', but Tensor"),
        ({}, "has no dictionary of tensors"),
        (changed("patch_embed.proj.weight", torch.zeros(48, 3, 8, 8, 8)), r"\(48, 3, 8, 8, 8\), so it is not .* 2D"),
        ({"conv1.weight": torch.zeros(2)}, "lacks cls_token, .* it begins with conv1.weight"),
        ({1: torch.zeros(2)}, "has no dictionary of tensors"),
        (changed("pos_embed", torch.zeros(1, 17, 48).long()), r"pos_embed \(1, 17, 48\) of torch.int64: weights are"),
        (changed("cls_token", torch.zeros(1, 1, 0)), r"cls_token \(1, 1, 0\) of torch.float32: weights are"),
        (changed("pos_embed", torch.zeros(1, 0, 48)), r"pos_embed \(1, 0, 48\) of torch.float32: weights are"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=rf"other\.pth.*{message}"):
        convert_mae_file(tmp_path / "other.pth", tmp_path / "m.pt", num_heads=3, decoder_num_heads=4)
    assert not (tmp_path / "m.pt").exists()


def test_missing_and_damaged_files_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="not found"):
        load_mae_checkpoint(checkpoint.parent / "nowhere.pth")
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"published\.pth is damaged"):
        load_mae_checkpoint(checkpoint)


def test_a_size_that_shapes_do_not_show_must_be_given(tmp_path: Path) -> None:
    state = published(grid=(2, 3))
    torch.save(state, tmp_path / "flat.pth")
    with pytest.raises(ValueError, match="flat.pth: its shapes do not show an image size: give one with --image-size"):
        convert_mae_file(tmp_path / "flat.pth", tmp_path / "m.pt", num_heads=3, decoder_num_heads=4)


def test_constants_are_the_published_ones() -> None:
    assert (IMAGENET_MEAN, IMAGENET_STD) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (NIH_MEAN, NIH_STD) == ((0.5056,) * 3, (0.252,) * 3)


def test_command_explains_itself_without_warnings() -> None:
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "monai_anomaly.networks.pretrained.mae_checkpoint"]
    result = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "Convert a published MAE checkpoint" in result.stdout, result.stderr
