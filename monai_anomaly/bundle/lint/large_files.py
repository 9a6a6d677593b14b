# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""``large_files``: what is downloaded into a bundle must be weights, known by their hash, and replace nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .finding import Finding

LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")
MAX_BYTES = 2**20
_KEYS = {"path", "url", "hash_val", "hash_type"}
_WEIGHTS = re.compile(r"models/[A-Za-z0-9_][A-Za-z0-9_.-]*\.(pt|ts|onnx)")


def lint_large_files(root: Path, names: list[str]) -> Iterator[Finding]:
    """Apply the rules to every list of large files.

    Args:
        root: folder of the bundle.
        names: paths of its regular files.
    """
    for name in names:
        if name not in LARGE_FILES:
            if re.fullmatch(r"large_files[^/]*\.(ya?ml|json)", name, re.IGNORECASE):  # MONAI takes any of them
                yield Finding("large-files", name, "", "a second list of large files", f"name it {LARGE_FILES[0]}")
            continue
        try:
            entries = _read(root / name)
        except Exception as error:  # yaml has exceptions of its own, and is optional
            message, remedy = f"cannot be read ({error})", "write large_files: a list of path, url"
            yield Finding("large-files", name, "", message, remedy)
            continue
        for number, entry in enumerate(entries):
            yield from _lint_entry(name, f"large_files#{number}", entry)


def _read(path: Path) -> list[Any]:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        content = json.loads(text)
    else:
        from monai.utils import optional_import

        # an address may hold these characters; it begins with what stands there, or each letter would be a place to try
        if re.search(r"[&*][A-Za-z0-9_]", re.sub(r"https?://[^\s,\[\]{}]*", "", text)):
            raise ValueError("it has anchors, by which a short text can stand for a huge one")
        content = optional_import("yaml", name="safe_load")[0](text)
    entries = content["large_files"] if isinstance(content, dict) and set(content) == {"large_files"} else None
    if not isinstance(entries, list):
        raise ValueError("it has no list 'large_files', or more than that")
    return entries


def _lint_entry(file: str, place: str, entry: Any) -> Iterator[Finding]:
    if not isinstance(entry, dict) or not {"path", "url"} <= set(entry) <= _KEYS:
        yield Finding("large-files", file, place, "not path, url and hash", "give path, url, hash_val and hash_type")
        return
    if not _WEIGHTS.fullmatch(str(entry["path"])):
        message = f"{entry['path']!r} is not a file of weights in models/: it could replace what has been checked"
        yield Finding("large-files", file, place, message, "give a path such as models/model.pt")
    if not re.fullmatch(r"https://[^\s$@%]+", str(entry["url"])):
        yield Finding("large-files", file, place, f"url {entry['url']!r}", "download by https only")
    digest = str(entry.get("hash_val", ""))
    if entry.get("hash_type") != "sha256" or not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        yield Finding("large-files-hash", file, place, "no sha256 of the file", "give hash_type: sha256 and hash_val")
