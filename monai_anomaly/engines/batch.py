# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines import IterationEvents, SupervisedEvaluator
from monai.utils import CommonKeys
from torch import Tensor

from ..utils import Keys, plain_tensor

# what an evaluation step hands on beside the inferer's result, where the batch has it
_CARRIED = (Keys.IMAGE, Keys.LABEL, Keys.TARGET, Keys.PATIENT, Keys.FOREGROUND, Keys.INDEX)


def moved(
    batchdata: Mapping[Any, Any],
    keys: Sequence[Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> list[Tensor]:
    """Tensors of a batch by their keys, plain and on the device: what every ``prepare_batch`` begins with.

    Args:
        batchdata: the batch.
        keys: which of it.
        device: where to move them.
        non_blocking: as in ``Tensor.to``.
        kwargs: further arguments of ``Tensor.to``.
    """
    return [plain_tensor(batchdata[key]).to(device=device, non_blocking=non_blocking, **kwargs) for key in keys]


class MovedBatch(ABC):
    """A ``prepare_batch`` that makes input and target of tensors of the batch, once they are on the device."""

    #: what :meth:`make` takes
    keys: tuple[str, ...]

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Input and target, see :meth:`make`; the arguments are those of :func:`prepare_image_batch`."""
        return self.make(*moved(batchdata, self.keys, device, non_blocking, **kwargs))

    @abstractmethod
    def make(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Input and target, made of the tensors of ``keys``."""


def prepare_image_batch(
    batchdata: dict[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Input and target of an autoencoder: both are the image (B, C, *S).

    A ``prepare_batch`` of MONAI's trainers.

    Args:
        batchdata: batch with ``image``.
        device: where to move it.
        non_blocking: as in ``Tensor.to``.
        kwargs: further arguments of ``Tensor.to``.
    """
    (image,) = moved(batchdata, [Keys.IMAGE], device, non_blocking, **kwargs)
    return image, image


def prepare_restoration_batch(
    batchdata: dict[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Input and target of a restorer: the corrupted image and the clean one (B, C, *S).

    Args:
        batchdata: batch with ``image`` and ``clean``.
        device: where to move it.
        non_blocking: as in ``Tensor.to``.
        kwargs: further arguments of ``Tensor.to``.
    """
    image, clean = moved(batchdata, [Keys.IMAGE, Keys.CLEAN], device, non_blocking, **kwargs)
    return image, clean


def prepare_pair_batch(
    batchdata: dict[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Input and target of a classifier of synthetic anomalies: every image twice, before and after its corruption.

    Args:
        batchdata: batch with ``image`` and ``clean`` (B, C, *S), or with the ``features`` (B, 2, d) of clean and image,
            and ``target`` (B,), 0 where the corruption found no place and the image is as before.
        device: where to move it.
        non_blocking: as in ``Tensor.to``.
        kwargs: further arguments of ``Tensor.to``.

    Returns:
        Images (2B, C, *S) or features (2B, d), all clean ones first, and classes (2B,), 1 for an anomaly.
    """
    if Keys.FEATURES in batchdata:
        (features,) = moved(batchdata, [Keys.FEATURES], device, non_blocking, **kwargs)
        inputs = features.transpose(0, 1).flatten(0, 1)
    else:
        inputs = torch.cat(prepare_restoration_batch(batchdata, device, non_blocking, **kwargs)[::-1])
    corrupted = torch.as_tensor(batchdata[Keys.TARGET]).to(inputs.device, torch.long)
    return inputs, torch.cat([torch.zeros_like(corrupted), corrupted])


def prepare_feature_batch(
    batchdata: dict[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor, tuple[()], dict[str, list[Tensor] | None]]:
    """Input and target of a network that learns features, and these where they were made before.

    Args:
        batchdata: batch with ``image``, and with ``features``, a list of maps (B, C_i, *S_i), where there are such.
        device: where to move them.
        non_blocking: as in ``Tensor.to``.
        kwargs: further arguments of ``Tensor.to``.

    Returns:
        the image (B, C, *S) twice, no further arguments, and ``features`` by its name.
    """
    (image,) = moved(batchdata, [Keys.IMAGE], device, non_blocking, **kwargs)
    features = None
    if Keys.FEATURES in batchdata:
        maps = dict(enumerate(batchdata[Keys.FEATURES]))
        features = moved(maps, list(maps), device, non_blocking, **kwargs)
    return image, image, (), {"features": features}


def score_batch(engine: SupervisedEvaluator, batchdata: dict[str, Any]) -> dict[str, Any]:
    """One step of an evaluator: the ``iteration_update`` of MONAI's evaluators.

    Args:
        engine: a ``SupervisedEvaluator``; its ``inferer(image, network)`` gives a dictionary (``anomaly_map``,
            ``score``, ...) or one tensor, which becomes ``pred``.
        batchdata: batch with ``image`` and what else the handlers need.

    Returns:
        One flat dictionary: the inferer's result and image, label, target, patient, foreground and index of the batch.
    """
    image = batchdata[Keys.IMAGE].to(engine.state.device, non_blocking=engine.non_blocking)
    autocast = torch.autocast(image.device.type, enabled=engine.amp, **engine.amp_kwargs)
    with engine.mode(engine.network), autocast:
        result = engine.inferer(plain_tensor(image), engine.network)
    engine.state.output = {key: batchdata[key] for key in _CARRIED if key in batchdata}
    engine.state.output |= result if isinstance(result, dict) else {CommonKeys.PRED: result}
    engine.fire_event(IterationEvents.MODEL_COMPLETED)
    return engine.state.output
