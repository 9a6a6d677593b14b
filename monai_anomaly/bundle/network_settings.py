# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""How the configurations of a bundle come to take what shapes the network from its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_CHECK = ["@check_trained"]


def follow_weights(configs: Mapping[str, dict[str, Any]], network: Iterable[str]) -> None:
    """Let the configurations of a bundle take the settings that shape its network from the weights they load.

    In ``train.json`` and ``inference.json`` the values of these settings become the defaults of ``trained``, and they
    themselves refer to it; one that is an expression of ``trained`` already says itself what it makes of it. Whatever
    makes a network or loads weights requires first that no setting contradicts these.

    Args:
        configs: content of the configurations by path, changed in place.
        network: names of the settings.
    """
    names = list(network)
    for base in ("train", "inference"):
        _add_trained(configs[f"configs/{base}.json"], names)
    for config in configs.values():
        if "network_def" in config:
            config["network_def"]["_requires_"] = _CHECK
        if "load_weights" in config:  # the weights are the first step of a run, before the audit takes its time
            config["weights"]["_requires_"] = _CHECK
            if "trained" not in config:  # an overlay of a training, which has no weights to load
                config["trained#path"] = "@checkpoint"


def _add_trained(config: dict[str, Any], names: list[str]) -> None:
    defaults = {}
    for name in names:
        follows = isinstance(config[name], str) and "@trained" in config[name]
        defaults[name] = None if follows else config[name]
        if not follows:
            config[name] = f"$@trained['{name}']"
    path = "@checkpoint" if "load_weights" in config else None
    config["trained"] = config["trained"] | {"defaults": defaults, "path": config["trained"].get("path", path)}
    config["check_trained"]["given"] = {name: f"@{name}" for name in names}
