# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.inferers import Inferer
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from ..functional.reduction import mean_score
from ..networks.maps.diffusion_map import DiffusionMap
from ..utils import Keys, atomic_path, check_output, plain_tensor, unwrap
from ..utils.atomic import all_or_none, remove_leftovers

RESULTS = 2
"""Edition of what is kept: raised when the same settings give another map, so that older results are made again."""


class RestorationInferer(Inferer):
    """Scores images by what healthy versions of them, made by a diffusion model, differ in.

    Args:
        reduction: from a map (B, 1, *S) to scores (B, 1); the mean in the image-conditioned diffusion paper.
        cache_dir: folder to keep the result of each image in as soon as it is there, so that a run that is started
            again goes on where it was; a result is found by the image's values, the weights and all settings. None
            (default): nothing is kept.
    """

    def __init__(
        self, reduction: Callable[[Tensor], Tensor] = mean_score, cache_dir: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.cache_dir = None if cache_dir is None else check_output(cache_dir)
        self._tidy = False

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Score images.

        Args:
            inputs: (B, C, *S), in [-1, 1].
            network: a :class:`monai_anomaly.networks.maps.DiffusionMap`.
            args: not used; the interface of MONAI's inferers has them.
            kwargs: not used.

        Returns:
            ``anomaly_map`` (B, 1, *S), ``score`` (B, 1), ``reconstruction`` (B, C, *S), the mean of the restorations,
            and ``spread`` (B, 1, *S), their standard deviation, float32, without gradient.
        """
        restorer: DiffusionMap = unwrap(network)
        image = plain_tensor(inputs).float()
        with eval_mode(restorer), torch.autocast(image.device.type, enabled=False):
            if self.cache_dir is None:
                maps = _restore(restorer, image)
            else:
                maps = self._through_cache(restorer, image, self.cache_dir)
        return maps | {Keys.SCORE: self.reduction(maps[Keys.MAP])}

    def _through_cache(self, network: DiffusionMap, image: Tensor, folder: Path) -> dict[str, Tensor]:
        """Results of a batch: those that are there, and the others, which are kept."""
        if not self._tidy:
            remove_leftovers(folder)
            self._tidy = True
        made_by = fingerprint(network)
        shape = str(tuple(image.shape[1:]))
        files = [folder / f"{_hash(made_by.encode(), shape.encode(), _bytes(one))}.pt" for one in image]
        missing = [row for row, file in enumerate(files) if not file.is_file()]
        if missing:
            made = _restore(network, image[missing])
            with all_or_none([files[row] for row in missing]):
                for place, row in enumerate(missing):
                    with atomic_path(files[row], shared=True) as path:
                        torch.save({key: value[place].cpu().clone() for key, value in made.items()}, path)
        kept = [_read(file, image.device) for file in files]
        return {key: torch.stack([result[key] for result in kept]) for key in kept[0]}


def _restore(network: DiffusionMap, image: Tensor) -> dict[str, Tensor]:
    output = network.predict(image)
    return {
        Keys.MAP: output.anomaly_map.float(),
        Keys.RECONSTRUCTION: output.reconstruction.float(),
        Keys.SPREAD: output.spread.float(),
    }


def _read(file: Path, device: torch.device) -> dict[str, Tensor]:
    try:
        result: dict[str, Tensor] = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # PyTorch raises many kinds for a broken file
        raise ValueError(f"the kept result {file} cannot be read: delete it, and it is made again ({error})") from error
    return result


def fingerprint(network: DiffusionMap) -> str:
    """Hash of everything but the image that a map depends on: the members in use, sampler, residual."""
    sampler = network.sampler
    settings: dict[str, Any] = {
        name: value for name, value in vars(sampler).items() if isinstance(value, (int, float, str, list))
    }
    asked = network.network.asked()
    settings |= {"residual": network.residual, "background": network.background, "members": asked, "results": RESULTS}
    members = [network.network.members[index] for index in asked]
    weights = [tensor for member in members for tensor in _tensors(member)]
    described = repr(sorted(settings.items())) + str(members[0])  # groups and heads do not show in the weights
    return _hash(described.encode(), _bytes(sampler.alphas), *map(_bytes, weights))


def _tensors(network: nn.Module) -> list[Tensor]:
    return list(network.state_dict().values())


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
