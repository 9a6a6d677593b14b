# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from typing import Any

import pytest

from monai_anomaly.bundle.lint.arithmetic import Below, Component, TooLarge, Unknown
from monai_anomaly.bundle.lint.known_values import MAX_DEPTH, KnownValues, alternatives_of

CONFIG: dict[str, Any] = {
    "bundle_root": ".",
    "output_dir": "runs",
    "flag": True,
    "known": {"_target_": "monai_anomaly.handlers.TrainedSettings", "defaults": {"a": 1}},
    "circle": "@circle2",
    "circle2": "@circle",
    "nested": {"up": "@::::flag", "list": [1, "@flag"]},
}
VALUES: list[tuple[Any, tuple[Any, ...]]] = [
    ("@output_dir", (Below("output_dir"),)),
    ("$os.path.join(@output_dir, 'maps')", (Below("output_dir", ("maps",)),)),
    ("$os.path.join(@output_dir, os.path.basename('a/.' + '.'))", (Unknown(),)),
    ("$'a' if @flag else 'b'", ("a", "b")),
    ("$min('.' + './x', 'z')", ("../x",)),
    ("$min(@nested#list[0], 5)", (1,)),
    ("$@known['a']", (Unknown("plain"),)),
    ("@known", (Component("monai_anomaly.handlers.TrainedSettings"),)),
    ("@circle", (Unknown(),)),
    ("$'a$1'[1:]", (Unknown(scale=3),)),
    (["@flag", {"a": "$1 + 1"}], ([True, {"a": 2}],)),
    ("$'%s' % ('..',)", (Unknown(scale=5),)),
    ("$sorted(['b', 'a'])[0]", ("a",)),
]


def _values(config: dict[str, Any] | None = None) -> KnownValues:
    return KnownValues(CONFIG if config is None else config, {"os": "os"})


@pytest.mark.parametrize(("value", "found"), VALUES, ids=lambda item: str(item)[:40])
def test_what_a_value_may_be(value: Any, found: tuple[Any, ...]) -> None:
    assert _values().of(value, "extra") == found


def test_what_is_too_large_is_unknown_to_every_rule() -> None:
    chain = {f"a{i}": f"@a{i + 1}" for i in range(MAX_DEPTH + 10)}
    chain[f"a{MAX_DEPTH + 10}"] = "$os.path.dirname(@output_dir)"
    with pytest.raises(TooLarge):
        _values(chain).of("@a0", "extra")
    assert list(alternatives_of(_values(chain), "@a0", "extra")) == [Unknown()]
    assert list(alternatives_of(_values(), "$'a' * 10000000", "extra")) == [Unknown()]
