# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from monai.data import MetaTensor
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_anomaly.utils import (
    Keys,
    atomic_path,
    callable_name,
    derive_seed,
    plain_tensor,
    unwrap,
    write_json,
    write_text,
)


def test_atomic_path_replaces_only_on_success(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "image.nii.gz"
    with atomic_path(target) as temporary:
        temporary.write_text("old")
        assert temporary.parent == target.parent and temporary.suffix == ".gz" and not target.exists()
    assert target.read_text() == "old"
    with pytest.raises(RuntimeError, match="halfway"), atomic_path(target) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("halfway")
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["image.nii.gz"]


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half of a much longer text that a kill left behind")
        left = temporary.read_text()
        name = temporary.name
    (tmp_path / name).write_text(left)
    write_text(tmp_path / "a.json", "short ä")
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "short ä"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_writers_of_one_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with atomic_path(path, shared=True) as first, atomic_path(path, shared=True) as second:
        first.write_text("first, and longer")
        second.write_text("second")
    assert path.read_text() == "first, and longer" and list(tmp_path.iterdir()) == [path]


def test_names_of_callables_are_the_same_in_every_process() -> None:
    assert callable_name(derive_seed) == "derive_seed"
    assert callable_name(partial(derive_seed, 1, window=7)) == "derive_seed(1, window=7)"
    assert callable_name(partial(derive_seed, base=abs)) == "derive_seed(base=abs)"
    assert callable_name(torch.nn.ReLU()) == "ReLU"


def test_json(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None], "ä": "β"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


def test_seeds_differ_in_every_part() -> None:
    seeds = {derive_seed(run, member, epoch) for run in range(8) for member in range(8) for epoch in range(8)}
    assert len(seeds) == 512 and all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(3, 1) == derive_seed(3, 1) and derive_seed(3, 1) != derive_seed(1, 3) != derive_seed(1, 3, 0, 1)
    assert len({derive_seed(0), derive_seed(0, 1), derive_seed(1), derive_seed(0, 2)}) == 4
    with pytest.raises(ValueError):
        derive_seed(-1)


def test_plain_tensor() -> None:
    image = MetaTensor(torch.rand(1, 2, 3), meta={"a": 1})
    plain = plain_tensor(image)
    assert type(plain) is torch.Tensor and torch.equal(plain, image.as_tensor())
    assert plain_tensor(plain) is plain


def test_unwrap(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    assert unwrap(network) is network
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert unwrap(DistributedDataParallel(network)) is network
    finally:
        dist.destroy_process_group()


def test_keys_agree_with_monai() -> None:
    from monai.utils import CommonKeys

    assert (str(CommonKeys.IMAGE), str(CommonKeys.LABEL)) == (Keys.IMAGE, Keys.LABEL)
    names = [value for name, value in vars(Keys).items() if name.isupper()]
    assert len(names) == len(set(names)) == 16


def test_a_full_disk_is_said_and_the_old_file_kept(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full to stand for a full disk")
    target = tmp_path / "table.json"
    write_text(target, "old")
    with pytest.raises(OSError, match=r"table\.json could not be written, no room .*another disk"):
        with atomic_path(target) as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_text("new")
    assert target.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["table.json"]
    with pytest.raises(FileNotFoundError, match="nowhere"), atomic_path(target):
        (tmp_path / "nowhere").read_text()  # any other error is left as it is
