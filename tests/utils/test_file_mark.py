# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from monai_anomaly.utils import file_mark


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 3])
def test_it_is_the_start_of_the_hash_of_the_content(size: int, tmp_path: Path) -> None:
    content = bytes(i % 251 for i in range(size))
    path = tmp_path / "file"
    path.write_bytes(content)
    assert file_mark(path) == file_mark(str(path)) == hashlib.sha256(content).hexdigest()[:16]


def test_the_name_does_not_matter_and_every_byte_does(tmp_path: Path) -> None:
    content = bytes((1 << 20) + 9)
    for name, bytes_ in (("a", content), ("b", content), ("c", content[:-1] + b"\1")):
        (tmp_path / name).write_bytes(bytes_)
    marks = [file_mark(tmp_path / name) for name in ("a", "b", "c")]
    assert marks[0] == marks[1] != marks[2]


def test_where_there_is_no_file_there_is_no_mark(tmp_path: Path) -> None:
    assert file_mark(None) is None and file_mark(tmp_path) is None and file_mark(tmp_path / "gone") is None
