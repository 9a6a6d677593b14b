# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..transforms.readers import IMAGE_SUFFIXES, is_image_file
from ..utils import Keys, is_path, read_user_json, write_json
from .section_checks import (
    SECTIONS,
    TESTING,
    TRAINING,
    UNLABELED,
    check_section_names,
    remedy,
    repeated_images,
    repeated_text,
    unread_sections,
)
from .section_checks import VALIDATION as VALIDATION  # the names of all sections are read from here

UNKNOWN_TARGET = -1
FILE_KEYS = (Keys.IMAGE, Keys.LABEL, Keys.FOREGROUND)
_PLAIN_KEYS = (Keys.IMAGE, Keys.LABEL, Keys.TARGET, Keys.PATIENT)
_MOST_PROBLEMS_SHOWN = 10

_logger = logging.getLogger(__name__)

Item = dict[str, Any]
PathLike = str | os.PathLike[str]


def read_datalist(datalist: PathLike) -> dict[str, Any]:
    """Return the content of a datalist file as it stands; of a folder, all its images as the section ``training``.

    Raises:
        ValueError: naming file and remedy, when it is missing, no ordinary file, no JSON, or no object, or where an
            object repeats a key.
    """
    path = Path(datalist)
    if path.is_dir():
        return {TRAINING: list_images(path)}
    missing = (
        "give the path of a datalist JSON, or make one with "
        "`python -m monai_anomaly.data convert-folder` or `convert-csv`"
    )
    content = read_user_json(path, "datalist", missing)
    if not isinstance(content, dict):
        raise ValueError(
            f"datalist {path} holds a {type(content).__name__}: it must be an object with sections like {SECTIONS}"
        )
    return content


def load_datalist(
    datalist: PathLike,
    section: str | Sequence[str],
    base_dir: PathLike | None = None,
    limit: int | None = None,
    require_target: bool = True,
) -> list[Item]:
    """Return the items of one or several sections, ready for a dataset.

    File paths become absolute; an empty or null ``label`` or ``foreground`` is dropped; a missing ``patient`` becomes
    the image's path as listed (one image, one patient). A missing ``target`` is 0 in ``training`` and an error
    elsewhere; in ``unlabeled`` target and label are taken away, since no method may see them. Where only some of the
    returned items have a target, the others get -1 (unknown), so that all items can be put in one batch.

    Args:
        datalist: JSON file; its sections are lists of items with ``image`` and optionally ``label`` (pixel mask),
            ``target`` (0 healthy, 1 anomalous), ``patient``, ``foreground`` and further fields.
        section: name of a section, or several, joined in the given order.
        base_dir: folder that the paths are relative to; None (default): the folder of the datalist.
        limit: use at most that many items, evenly spaced over the section so that both classes stay in; None: all.
        require_target: whether items outside ``training`` and ``unlabeled`` must have a target (evaluation needs it);
            inference sets it to False.

    Returns:
        List of dictionaries; ``target`` int, ``patient`` str, paths str.

    Raises:
        ValueError: naming file and remedy, for a missing or empty section, a section that would go unread because its
            name is misspelled, a bad item, or one that stands twice.

    Example:
        >>> from monai_anomaly.data import load_datalist, sample_dir
        >>> items = load_datalist(f"{sample_dir()}/datalist.json", "testing", limit=4)
        >>> len(items), sorted(items[0])
        (4, ['image', 'patient', 'target'])
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 or None, got {limit!r}")
    path = Path(datalist)
    content = read_datalist(path)
    base = Path(base_dir) if base_dir is not None else path.parent
    items: list[Item] = []
    names = [section] if isinstance(section, str) else section
    check_section_names(content, path, names)
    for name in names:
        raw = _section(content, name, path)
        problems = _problems(raw, name, require_target)
        if problems:
            raise ValueError(_report(path, problems))
        items.extend(prepare_item(item, name, base) for item in raw)
    if limit is not None and limit < len(items):
        items = [items[i * len(items) // limit] for i in range(limit)]
    _complete_targets(items)
    check_extra_fields(items, path)
    return items


def validate_datalist(
    datalist: PathLike, base_dir: PathLike | None = None, require_target: bool = True
) -> dict[str, int]:
    """Check every section of a datalist, and that the files it names exist; their content is the audit's business.

    Args:
        datalist: JSON file.
        base_dir: see :func:`load_datalist`.
        require_target: see :func:`load_datalist`.

    Returns:
        Number of items of each section.

    Raises:
        ValueError: listing the first problems, each with its remedy.
    """
    path = Path(datalist)
    content = read_datalist(path)
    base = Path(base_dir) if base_dir is not None else path.parent
    names = [name for name in content if name in SECTIONS or isinstance(content[name], list)]
    if not names:
        raise ValueError(f"datalist {path} has no section: add at least one of {list(SECTIONS)}, each a list of items")
    check_section_names(content, path)
    for name in unread_sections(content):
        _logger.warning("datalist %s: section %r is not read: %s", path, name, remedy(name, None))
    problems: list[str] = []
    for name in names:
        raw = _section(content, name, path)
        found = _problems(raw, name, require_target)
        problems += found or _missing_files(raw, name, base)
    if problems:
        raise ValueError(_report(path, problems))
    return {name: len(content[name]) for name in names}


def write_datalist(path: PathLike, sections: Mapping[str, Sequence[Mapping[str, Any]]], **info: Any) -> Path:
    """Check the items and write a datalist, all or nothing.

    Args:
        path: JSON file to write.
        sections: items of each section; paths as they shall stand in the file. Empty sections are left out.
        info: further top-level entries, e.g. ``name`` and ``description``.

    Returns:
        The path.

    Raises:
        ValueError: when an item is not as :func:`load_datalist` needs it.
    """
    filled = {name: [dict(item) for item in items] for name, items in sections.items() if items}
    if not filled:
        raise ValueError(f"datalist {path} would hold no item: give images, or relax the conditions that choose them")
    problems = [problem for name, items in filled.items() for problem in _problems(items, name, require_target=True)]
    if problems:
        raise ValueError(_report(Path(path), problems))
    write_json(path, {**info, **filled})
    return Path(path)


def relocated(path: str, folder: str) -> str:
    """Return a listed ``path``, which is relative to ``folder``, relative to that folder's own base instead."""
    return Path(os.path.normpath(os.path.join(folder, path))).as_posix()


def list_images(folder: PathLike) -> list[Item]:
    """Return the images of a folder and its subfolders, sorted by path, as items for inference.

    Args:
        folder: a folder, or one image file.

    Returns:
        ``{"image": path, "patient": path relative to the folder}`` for each file of a known suffix (png, jpg, jpeg,
        bmp, tif, tiff, nii, nii.gz, dcm, dicom, mha, mhd, nrrd) and each file without suffix that is DICOM; hidden
        files are left out.

    Raises:
        ValueError: when the folder does not exist or holds no image.
    """
    root = Path(folder)
    if root.is_file():
        return [{Keys.IMAGE: os.path.abspath(root), Keys.PATIENT: root.name}]
    if not root.is_dir():
        raise ValueError(f"folder {root} does not exist: give a folder with images, or one image file")
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    visible = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    found = [name for name in visible if is_image_file(root / name)]
    if not found:
        raise ValueError(f"folder {root} holds no image of a known kind {list(IMAGE_SUFFIXES)}: give another folder")
    return [{Keys.IMAGE: os.path.abspath(root / name), Keys.PATIENT: name} for name in found]


def inference_items(
    source: PathLike, section: str | Sequence[str] = TESTING, base_dir: PathLike | None = None, limit: int | None = None
) -> list[Item]:
    """Return the items to run inference on: a datalist's section (targets optional), a folder's images, or one image.

    Masks are left out: nothing reads them.

    Args:
        source: datalist JSON, folder, or image file.
        section: section(s) to take from a datalist; ignored for a folder.
        base_dir: see :func:`load_datalist`.
        limit: at most that many items, evenly spaced.
    """
    if os.fspath(source).lower().endswith(".json"):
        items = load_datalist(source, section, base_dir, limit, require_target=False)
        return [{key: value for key, value in item.items() if key not in FILE_KEYS[1:]} for item in items]
    items = list_images(source)
    if limit is not None and limit < len(items):
        items = [items[i * len(items) // limit] for i in range(limit)]
    return items


def _section(content: Mapping[str, Any], name: str, path: Path) -> list[Any]:
    if name not in content:
        there = [key for key, value in content.items() if isinstance(value, list)]
        raise ValueError(f"datalist {path} has no section {name!r}, only {there}: add it or choose one of these")
    items = content[name]
    if not isinstance(items, list):
        raise ValueError(f"datalist {path}: section {name!r} is a {type(items).__name__}; it must be a list of items")
    if not items:
        raise ValueError(f"datalist {path}: section {name!r} is empty; add items to it or choose another section")
    return items


def _problems(items: Sequence[Any], section: str, require_target: bool) -> list[str]:
    """Return what is wrong with the items of one section, each in one line with its remedy."""
    found = (item_problem(item, section, require_target) for item in items)
    problems = {index: text for index, text in enumerate(found) if text}
    for index, before in repeated_images(items).items():
        problems.setdefault(index, repeated_text(items[index][Keys.IMAGE], section, before))
    return [f"{section}[{index}]: {text}" for index, text in sorted(problems.items())]


def item_problem(item: Any, section: str, require_target: bool) -> str:
    """What is wrong with the form of an item and how to mend it; empty when nothing is."""
    if not isinstance(item, Mapping):
        return f"item is {item!r}; write an object like {{'image': 'file.png', 'target': 0}}"
    image = item.get(Keys.IMAGE)
    if not isinstance(image, str) or not image:
        return f"'image' is {image!r} in {dict(item)}; give the path of the image file"
    for key in FILE_KEYS:
        if isinstance(item.get(key), str) and not is_path(item[key]):
            return f"{item[key]!r}: {key!r} holds a character that no file name can; correct the path"
    for key in FILE_KEYS[1:]:
        if item.get(key) is not None and not isinstance(item[key], str):
            return f"{image}: {key!r} is {item[key]!r}; give the path of a file, or leave it out"
    target = item.get(Keys.TARGET)
    if target is None:
        if require_target and section not in (TRAINING, UNLABELED):
            return f"{image}: no 'target'; evaluation needs it: add 0 (healthy) or 1 (anomalous)"
    elif isinstance(target, str) or target not in (0, 1):
        return f"{image}: 'target' is {target!r}; it must be the number 0 (healthy) or 1 (anomalous)"
    return ""


def _missing_files(items: Sequence[Item], section: str, base: Path) -> list[str]:
    listed = [(i, base / item[key]) for i, item in enumerate(items) for key in FILE_KEYS if item.get(key)]
    return [
        f"{section}[{i}]: {file} does not exist; correct it, or give the folder of the data as base_dir (dataset_dir)"
        for i, file in listed
        if not file.exists()
    ]


def _report(path: Path, problems: Sequence[str]) -> str:
    more = len(problems) - _MOST_PROBLEMS_SHOWN
    lines = list(problems[:_MOST_PROBLEMS_SHOWN]) + ([f"and {more} more like these"] if more > 0 else [])
    return f"datalist {path} has {len(problems)} problem(s):\n  " + "\n  ".join(lines)


def prepare_item(raw: Mapping[str, Any], section: str, base: Path) -> Item:
    """An item as methods get it: paths absolute, empty fields dropped, target and patient filled in."""
    item = {key: value for key, value in raw.items() if key not in FILE_KEYS or value}
    if section == UNLABELED:
        item.pop(Keys.TARGET, None)
        item.pop(Keys.LABEL, None)
    elif item.get(Keys.TARGET) is not None:
        item[Keys.TARGET] = int(item[Keys.TARGET])
    elif section == TRAINING:
        item[Keys.TARGET] = 0
    else:
        item.pop(Keys.TARGET, None)
    patient = raw.get(Keys.PATIENT)
    item[Keys.PATIENT] = str(patient) if patient not in (None, "") else raw[Keys.IMAGE]
    for key in FILE_KEYS:
        if key in item:
            item[key] = os.path.abspath(base / item[key])
    return item


def _complete_targets(items: Sequence[Item]) -> None:
    if any(Keys.TARGET in item for item in items):
        for item in items:
            item.setdefault(Keys.TARGET, UNKNOWN_TARGET)


def check_extra_fields(items: Sequence[Item], path: Path) -> None:
    """Refuse a field that only some items have: the batch could not be built, and would say so much less clearly."""
    extra = {key for item in items for key in item if key not in _PLAIN_KEYS}
    for key in sorted(extra):
        lacking = [item[Keys.IMAGE] for item in items if key not in item]
        if lacking:
            raise ValueError(
                f"datalist {path}: {len(lacking)} of {len(items)} items lack {key!r}, first {lacking[0]}: "
                f"give {key!r} for all of them or for none"
            )
