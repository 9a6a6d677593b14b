# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ...transforms.formats import companion_files
from ...utils import Keys, is_path
from ..datalist import (
    FILE_KEYS,
    Item,
    PathLike,
    check_extra_fields,
    item_problem,
    prepare_item,
    read_datalist,
)
from ..section_checks import SECTIONS, remedy, repeated_images, repeated_text, unread_sections
from .image_digest import ImageDigest, ItemDigest

Finding = dict[str, str]
K = TypeVar("K", bound=Hashable)


@dataclass
class AuditItem:
    """One item of a datalist under audit, with absolute paths, and the digest of its files once they are decoded.

    ``patient_named`` tells whether the datalist names its patient; if not, it counts as a patient of its own.
    """

    section: str
    item: Item
    patient_named: bool = True
    digest: ItemDigest = field(default_factory=ItemDigest)

    @property
    def file(self) -> str:
        """Absolute path of the image."""
        return str(self.item[Keys.IMAGE])

    @property
    def target(self) -> int | None:
        """0 healthy, 1 anomalous, None where the datalist does not say or does not show it."""
        return self.item.get(Keys.TARGET)

    @property
    def image(self) -> ImageDigest | None:
        """Digest of the image, None where it could not be used."""
        return self.digest.image


def finding(code: str, message: str, remedy: str, file: str | None = None) -> Finding:
    """Return one error or warning of the audit."""
    found = {"code": code, "message": message, "remedy": remedy}
    return found if file is None else {**found, "file": file}


def group_by(items: Iterable[AuditItem], key: Callable[[AuditItem], K]) -> dict[K, list[AuditItem]]:
    """Return the items that have a key in common, in their order."""
    groups: dict[K, list[AuditItem]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def grouped(findings: Iterable[Finding], most: int = 3) -> list[Finding]:
    """Findings for people to read: those that differ in their file alone become one, of others of a kind the first.

    Args:
        findings: errors or warnings of an audit.
        most: names that are shown of a group, and groups of one code.

    Returns:
        Findings without ``file``, in the order of the first of each code.
    """
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for found in findings:
        alike.setdefault((found["code"], _without_file(found), found["remedy"]), []).append(found)
    by_code: dict[str, list[list[Finding]]] = {}
    for (code, _, _), group in alike.items():
        by_code.setdefault(code, []).append(group)
    shown = []
    for code, groups in by_code.items():
        shown += [_joined(group, most) for group in groups[:most]]
        if rest := sum(len(group) for group in groups[most:]):
            shown.append(finding(code, f"and {rest} more of this kind", shown[-1]["remedy"]))
    return shown


def _joined(group: Sequence[Finding], most: int) -> Finding:
    first = group[0]
    if len(group) == 1 or "file" not in first:
        return finding(first["code"], first["message"], first["remedy"])
    names = listing((found.get("file", "") for found in group), most)
    return finding(first["code"], f"{len(group)} files: {_without_file(first)} ({names})", first["remedy"])


def _without_file(found: Finding) -> str:
    file = found.get("file")
    return found["message"].replace(f" {file}", "").replace(file, "it") if file else found["message"]


def listing(names: Iterable[str], most: int = 5) -> str:
    """Join the first names and say how many more there are."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def read_items(
    datalist: PathLike, dataset_dir: PathLike | None, sections: Sequence[str] | None
) -> tuple[list[AuditItem], list[Finding]]:
    """Read the sections of a datalist and report every bad item, instead of stopping at the first.

    Args:
        datalist: JSON file.
        dataset_dir: folder that its paths are relative to; None: the folder of the datalist.
        sections: sections to read; None: those of the usual four that are there.

    Returns:
        The usable items, and the errors.

    Raises:
        ValueError: when the file is missing, no JSON or no object.
    """
    path = Path(datalist)
    content = read_datalist(path)
    base = Path(dataset_dir) if dataset_dir is not None else path.parent
    items: list[AuditItem] = []
    errors: list[Finding] = []
    wanted = sections if sections is not None else [name for name in SECTIONS if name in content]
    if not wanted:
        there = f"datalist {path} has none of the sections {list(SECTIONS)}"
        errors.append(finding("no_section", there, "name its sections like these", str(path)))
    for name, meant in unread_sections(content).items():
        if meant is not None:
            text = f"section {name!r} of datalist {path} is not read"
            errors.append(finding("misspelled_section", text, remedy(name, meant), str(path)))
    for name in wanted:
        raw = content.get(name)
        if not isinstance(raw, list) or not raw:
            text = f"section {name!r} of datalist {path} is missing, empty or no list"
            errors.append(finding("bad_section", text, "add its items, or do not ask for this section", str(path)))
            continue
        problems = [item_problem(entry, name, require_target=True) for entry in raw]
        errors += [_item_error(f"{name}[{i}]", raw[i], text) for i, text in enumerate(problems) if text]
        errors += [
            _item_error(f"{name}[{i}]", raw[i], repeated_text(raw[i][Keys.IMAGE], name, before), "repeated_item")
            for i, before in repeated_images(raw).items()
        ]
        usable = [entry for entry, text in zip(raw, problems, strict=True) if not text]
        prepared = [prepare_item(entry, name, base) for entry in usable]
        named = [entry.get(Keys.PATIENT) not in (None, "") for entry in usable]
        items += map(AuditItem, [name] * len(usable), prepared, named)
        errors += _mixed_fields(prepared, path)
    return items, errors


def fingerprint(datalist: PathLike, items: Sequence[AuditItem], settings: Any) -> str:
    """Return a hash of everything an audit depends on: settings, datalist, and size and time of every file.

    Files of pixels that a header names, and those in the folder of a DICOM series, count as well.

    Args:
        datalist: JSON file.
        items: its items.
        settings: anything JSON can hold, e.g. the audit's version and arguments.
    """
    listed = [item.item[key] for item in items for key in FILE_KEYS if key in item.item]
    files = [file for image in listed for file in (image, *companion_files(image))]
    content = hashlib.sha256(json.dumps(read_datalist(datalist), sort_keys=True).encode()).hexdigest()
    return hashlib.sha256(json.dumps([settings, content, [_state(file) for file in files]]).encode()).hexdigest()


def _state(file: str) -> tuple[str, int, int]:
    try:
        status = os.stat(file)
    except OSError:
        return file, -1, -1
    return file, status.st_size, status.st_mtime_ns


def unread_warnings(datalist: PathLike) -> list[Finding]:
    """Warn of lists of items that are no section and do not look like one that was misspelled."""
    names = [name for name, meant in unread_sections(read_datalist(datalist)).items() if meant is None]
    what = f"of datalist {datalist} is not read"
    return [finding("unread_section", f"section {n!r} {what}", remedy(n, None), str(datalist)) for n in names]


def _item_error(where: str, raw: Any, text: str, code: str | None = None) -> Finding:
    message, _, mend = text.partition("; ")
    image = raw.get(Keys.IMAGE) if isinstance(raw, dict) else None
    if not isinstance(image, str) or not image:
        return finding("bad_item", f"{where}: {message}", mend)
    legal_files = all(raw.get(key) is None or (isinstance(raw[key], str) and is_path(raw[key])) for key in FILE_KEYS)
    return finding(code or ("bad_target" if legal_files else "bad_item"), f"{where}: {message}", mend, image)


def _mixed_fields(items: Sequence[Item], path: Path) -> list[Finding]:
    try:
        check_extra_fields(items, path)
    except ValueError as error:
        message, _, remedy = str(error).rpartition(": ")
        return [finding("mixed_fields", message, remedy, str(path))]
    return []
