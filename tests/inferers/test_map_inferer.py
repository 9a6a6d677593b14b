# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from monai.data import MetaTensor
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from monai_anomaly.functional import l1_error, max_score, mean_score, top_fraction_score
from monai_anomaly.inferers import EnsembleInferer, MapInferer, ReconstructionInferer
from monai_anomaly.networks.blocks import NetworkEnsemble
from monai_anomaly.networks.maps import EnsembleMap, ReconstructionMap, ScoredMapOutput
from monai_anomaly.networks.nets import DenseAutoencoder

KINDS: dict[str, dict[str, Any]] = {"ae": {}, "memae": {"memory_slots": 25}, "aeu": {"predict_variance": True}}
IMAGE = torch.randn(4, 2, 16, 16, generator=torch.Generator().manual_seed(0))


def _autoencoder(kind: str = "ae") -> DenseAutoencoder:
    torch.manual_seed(0)
    return DenseAutoencoder(2, 2, 16, (3, 3, 4, 4), 8, 4, **KINDS[kind])


def _ensemble(kind: str = "ae") -> NetworkEnsemble:
    return NetworkEnsemble(partial(_autoencoder, kind), 3, seed=None) if kind == "same" else NetworkEnsemble(
        partial(DenseAutoencoder, 2, 2, 16, (3, 3, 4, 4), 8, 4, **KINDS[kind]), 3
    )  # fmt: skip


def _cases() -> list[Any]:
    return [
        *[pytest.param(ReconstructionInferer(), _autoencoder(k), id=f"reconstruction-{k}") for k in KINDS],
        *[pytest.param(EnsembleInferer(s), _ensemble(k), id=f"{s}-{k}") for s in ("ens", "unc", "dsu") for k in KINDS],
        pytest.param(MapInferer(), EnsembleMap(_ensemble(), "unc"), id="map"),
    ]


@pytest.mark.parametrize(("inferer", "network"), _cases())
def test_maps_scores_and_reconstructions(inferer: Any, network: nn.Module) -> None:
    maps = network
    if not isinstance(inferer, MapInferer):
        maps = (
            ReconstructionMap(network) if isinstance(network, DenseAutoencoder) else EnsembleMap(network, inferer.score)
        )
    expected = maps.eval().predict(IMAGE)
    result = inferer(IMAGE, network)
    assert set(result) == {"anomaly_map", "score", "reconstruction"}
    assert all(v.dtype == torch.float32 and not v.requires_grad and v.grad_fn is None for v in result.values())
    torch.testing.assert_close(result["anomaly_map"], expected.anomaly_map.detach())
    torch.testing.assert_close(result["reconstruction"], expected.reconstruction.detach())
    by_hand = [[float(m.double().sum()) / m.numel()] for m in expected.anomaly_map.detach()]
    torch.testing.assert_close(result["score"], torch.tensor(by_hand), rtol=1e-5, atol=1e-9)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("inferer", "network"), _cases())
def test_scores_in_evaluation_mode_and_returns_to_the_mode_before(
    inferer: Any, network: nn.Module, training: bool
) -> None:
    if isinstance(network, NetworkEnsemble):
        network.activate(2)
    expected = inferer(IMAGE, network.eval())
    network.train(training)
    modes = [module.training for module in network.modules()]
    buffers = copy.deepcopy(dict(network.named_buffers()))
    result = inferer(IMAGE, network)
    assert all(torch.equal(result[key], expected[key]) for key in expected)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(b, buffers[name]) for name, b in network.named_buffers())


@pytest.mark.parametrize(("inferer", "network"), _cases())
def test_gradient_modes_and_metadata(inferer: Any, network: nn.Module) -> None:
    expected = inferer(IMAGE, network)
    assert torch.is_grad_enabled()
    with torch.no_grad():
        results = [inferer(IMAGE, network)]
    with torch.inference_mode():
        results += [inferer(IMAGE, network), inferer(IMAGE * 1, network)]
    results += [inferer(MetaTensor(IMAGE, meta={"filename_or_obj": "a.png"}), network)]
    for result in results:
        assert all(torch.equal(result[key], expected[key]) and type(result[key]) is Tensor for key in expected)


def test_reconstruction_builds_no_graph() -> None:
    network, modes = _autoencoder(), []
    network.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    ReconstructionInferer()(IMAGE, network)
    EnsembleInferer("unc")(IMAGE, NetworkEnsemble(lambda: network, 2))
    assert modes == [False, False, False]


def test_error_and_reduction_are_arguments() -> None:
    network = _autoencoder().eval()
    result = ReconstructionInferer(error=l1_error, reduction=max_score)(IMAGE, network)
    difference = (network(IMAGE).reconstruction - IMAGE).abs().mean(1, keepdim=True).detach()
    torch.testing.assert_close(result["anomaly_map"], difference)
    torch.testing.assert_close(result["score"], difference.flatten(1).amax(1, keepdim=True))
    ensemble = _ensemble()
    result = EnsembleInferer("unc", partial(top_fraction_score, fraction=0.5))(IMAGE, ensemble)
    top = result["anomaly_map"].flatten(1).sort(1).values[:, 128:].mean(1, keepdim=True)
    torch.testing.assert_close(result["score"], top)
    assert not torch.allclose(result["score"], mean_score(result["anomaly_map"]))


def test_network_wrapped_for_distributed_training(tmp_path: Any) -> None:
    ensemble = _ensemble()
    expected = EnsembleInferer()(IMAGE, ensemble)
    alone = ReconstructionInferer()(IMAGE, ensemble.members[0])
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(ensemble, find_unused_parameters=True)
        result = EnsembleInferer()(IMAGE, wrapped)
        assert all(torch.equal(result[key], expected[key]) for key in expected)
        result = ReconstructionInferer()(IMAGE, DistributedDataParallel(ensemble.members[0]))
        assert all(torch.equal(result[key], alone[key]) for key in alone)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.bfloat16])
@pytest.mark.parametrize("score", ["ens", "unc", "dsu"])
def test_automatic_mixed_precision_gives_single_precision_maps(score: str, dtype: torch.dtype) -> None:
    ensemble = _ensemble()
    expected = EnsembleInferer(score)(IMAGE, ensemble)
    with torch.autocast("cpu", dtype=dtype):
        result = EnsembleInferer(score)(IMAGE, ensemble)
    assert all(v.dtype == torch.float32 for v in result.values())
    assert float((result["anomaly_map"] - expected["anomaly_map"]).abs().mean()) < 0.1 * float(
        expected["anomaly_map"].mean()
    )


class Scored(nn.Module):
    """Gives a map and a score that has nothing to do with it, but no reconstruction."""

    def predict(self, image: Tensor) -> ScoredMapOutput:
        assert not self.training
        return ScoredMapOutput(image.mean(1, keepdim=True).double(), image[:, :1, 0, 0].double())


def test_a_score_of_the_network_itself_is_the_score() -> None:
    network = Scored().train()
    result = MapInferer()(IMAGE, network)
    assert set(result) == {"anomaly_map", "score"} and network.training
    assert all(value.dtype == torch.float32 for value in result.values())
    assert torch.equal(result["score"], IMAGE[:, :1, 0, 0])
    assert torch.equal(result["anomaly_map"], IMAGE.mean(1, keepdim=True))
    assert torch.equal(MapInferer(None)(IMAGE, network)["score"], result["score"])


def test_without_one_the_map_is_reduced_as_asked() -> None:
    network = EnsembleMap(_ensemble(), "unc")
    result = MapInferer(max_score)(IMAGE, network)
    torch.testing.assert_close(result["score"], result["anomaly_map"].flatten(1).amax(1, keepdim=True))


def test_without_a_score_nor_a_reduction_there_is_nothing_to_say() -> None:
    with pytest.raises(ValueError, match="EnsembleMap gives no score of its own: give a reduction"):
        MapInferer(None)(IMAGE, EnsembleMap(_ensemble(), "unc"))


def test_unknown_score() -> None:
    with pytest.raises(ValueError, match="got 'intra'"):
        EnsembleInferer("intra")
