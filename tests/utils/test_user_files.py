# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from monai_anomaly.utils import check_user_file, is_path, read_user_json, read_user_text, user_files


def _refused(path: Path, reason: str) -> None:
    with pytest.raises(ValueError, match=f"thing '?{re.escape(str(path))}.*{reason}"):
        read_user_json(path, "thing", "look elsewhere")


def test_what_is_no_ordinary_file_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    _refused(tmp_path / "pipe", "no ordinary file")  # to open it would wait for a writer for ever
    (tmp_path / "link").symlink_to("/dev/zero")
    _refused(tmp_path / "link", "no ordinary file")
    _refused(tmp_path, "is a folder, not a file: look elsewhere")
    assert check_user_file(tmp_path, "folder", folder=True).st_ino == tmp_path.stat().st_ino
    _refused(tmp_path / "none", "does not exist: look elsewhere")
    (tmp_path / "file").write_text("{}")
    _refused(tmp_path / "file" / "below", "does not exist")
    (tmp_path / "round").symlink_to("round")
    _refused(tmp_path / "round", "cannot be reached")
    _refused(tmp_path / ("x" * 300), "cannot be reached .*too long")


def test_names_that_no_file_can_have() -> None:
    for name in ("a\0b", "a\ud800b"):
        assert not is_path(name)
        with pytest.raises(ValueError, match=r"thing 'a.*b' is no path"):
            check_user_file(name, "thing")
    assert is_path("M\u00fcller.png")


def test_text_is_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text('{"patient": "M\u00fcller"}', encoding=encoding)
        assert read_user_json(path, "thing") == {"patient": "M\u00fcller"}
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        path.write_text('{"patient": "M\u00fcller"}', encoding=encoding)
        _refused(path, "no UTF-8 text .UTF-16, or no text at all.: save it as UTF-8")
    path.write_text('{\n"patient": "M\u00fcller"}', encoding="latin-1")
    _refused(path, r"byte 0xfc in line 2 .Latin-1\?.: save it as UTF-8")


def test_large_files_are_not_read_to_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_files, "MAX_TEXT_BYTES", 100)
    (tmp_path / "a").write_text("x" * 100)
    assert len(read_user_text(tmp_path / "a", "thing")) == 100
    (tmp_path / "a").write_text("x" * 101)
    _refused(tmp_path / "a", "larger than 100 bytes")


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting(tmp_path: Path, opening: str) -> None:
    (tmp_path / "a.json").write_text(opening * 100_000)
    _refused(tmp_path / "a.json", "nested too deeply")


def test_repeated_keys_and_broken_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"training": [1], "testing": [{"image": "a", "target": 0, "target": 1}]}')
    _refused(path, "the key 'target' stands twice in one object")
    path.write_text('{"training": [1], "training": [2]}')
    _refused(path, "the key 'training' stands twice in one object")
    path.write_text('{"training": [}')
    _refused(path, "no valid JSON .*line 1 column 15.*correct it")
    path.write_text("1" * 5000)  # more digits than Python turns into a number
    _refused(path, "no valid JSON")
    path.write_text(json.dumps({"a": [{"b": 1}, {"b": 2}]}))
    assert read_user_json(path, "thing") == {"a": [{"b": 1}, {"b": 2}]}
