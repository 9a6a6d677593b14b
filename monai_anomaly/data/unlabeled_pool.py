# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..utils import Keys, one_spelling, write_json
from .datalist import UNLABELED, Item, PathLike, item_problem, read_datalist

Compat = Literal["ddad"] | None


def draw_unlabeled(
    items: Sequence[Item], ratio: float, size: int | None = None, seed: int = 0, compat: Compat = None
) -> list[Item]:
    """Draw an unlabeled set with a chosen share of anomalous images from images with known targets.

    ``round(size * ratio)`` anomalous images and the rest healthy, in three passes over the patients in an order drawn
    with the seed: first patients all of whose images fit, then all healthy or all anomalous images of a patient that
    fit, then, where the number still is not reached, the first images of one more patient. So at most one patient of
    each class is split by the count alone, and one with images of both classes only where the ratio asks for it. One
    seed gives one order: sets of neighboring ratios share most of their images.

    Args:
        items: each with ``target`` 0 or 1, and with ``patient`` where it is known (else each is a patient of its own).
        ratio: share of anomalous images, in [0, 1]; 0.6 in the DDAD and AMAE papers.
        size: number of images; None (default): that of the smaller class, which every ratio can reach, so that sets of
            all ratios are equally large.
        seed: seed of the order of the patients; not used with ``compat``.
        compat: None (default); ``"ddad"``: as the DDAD code does, the first ``int(size * ratio)`` anomalous items in
            the given order and then the first healthy ones, whatever their patients.

    Returns:
        The items drawn, in the order given.

    Raises:
        ValueError: for an item without target, a class with too few images, or other settings.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in [0, 1], got {ratio!r}")
    if compat not in (None, "ddad"):
        raise ValueError(f"compat must be None or 'ddad', got {compat!r}")
    targets = np.array([_target(item) for item in items])
    available = [int((targets == target).sum()) for target in (0, 1)]
    size = min(available) if size is None else size
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size} from {available[0]} healthy, {available[1]} anomalous")
    anomalous = int(size * ratio) if compat == "ddad" else math.floor(size * ratio + 0.5)
    wanted = [size - anomalous, anomalous]
    if any(want > there for want, there in zip(wanted, available, strict=True)):
        raise ValueError(
            f"{size} images with ratio {ratio} need {wanted[0]} healthy and {wanted[1]} anomalous ones, but there are "
            f"{available[0]} and {available[1]}: give a smaller size, {min(available)} suits every ratio"
        )
    if compat == "ddad":
        return [items[i] for target in (1, 0) for i in np.flatnonzero(targets == target)[: wanted[target]]]
    return [items[i] for i in _whole_patients(items, targets, wanted, seed)]


def draw_datalist(
    datalist: PathLike,
    output: PathLike,
    ratio: float | None = None,
    size: int | None = None,
    seed: int = 0,
    compat: Compat = None,
    without: Sequence[str] = (),
    base_dir: PathLike | None = None,
) -> dict[str, Any]:
    """Write a datalist whose section ``unlabeled`` holds a chosen ratio of anomalous images; the rest stays as it is.

    The targets stay in the file, from where :func:`load_datalist` gives them to no method.

    Args:
        datalist: JSON file whose items of ``unlabeled`` have targets.
        output: datalist to write; its paths are those of ``datalist``, so give the same ``dataset_dir``.
        ratio: see :func:`draw_unlabeled`; None (default): keep all that ``without`` leaves; targets are not needed.
        size: see :func:`draw_unlabeled`; only with ``ratio``.
        seed: see :func:`draw_unlabeled`.
        compat: see :func:`draw_unlabeled`; only with ``ratio``.
        without: images to leave out first, as listed or with the folder before it, as the audit names them.
        base_dir: folder that the paths are relative to, for those in ``without``; None (default): the folder of the
            datalist.

    Returns:
        What is written as ``unlabeled_draw``: ``ratio_asked``, ``ratio``, ``size``, ``healthy``, ``anomalous``,
        ``seed``, ``compat``, ``without``; numbers of unknown targets are None.

    Raises:
        ValueError: naming file and remedy.
    """
    check_draw(ratio, size, compat)
    path = Path(datalist)
    content = read_datalist(path)
    items = _left(_unlabeled_items(content, path), without, path, path.parent if base_dir is None else Path(base_dir))
    try:
        drawn = items if ratio is None else draw_unlabeled(items, ratio, size, seed, compat)
    except ValueError as error:
        raise ValueError(f"section {UNLABELED!r} of datalist {path}: {error}") from error
    targets = [item.get(Keys.TARGET) for item in drawn]
    known = None not in targets
    info = {
        "ratio_asked": ratio,
        "ratio": targets.count(1) / len(targets) if known else None,
        "size": len(drawn),
        "healthy": targets.count(0) if known else None,
        "anomalous": targets.count(1) if known else None,
        "seed": None if ratio is None or compat else seed,
        "compat": compat,
        "without": list(without),
    }
    write_json(output, {**content, "unlabeled_draw": info, UNLABELED: drawn})
    return info


def check_draw(ratio: Any, size: int | None, compat: str | None) -> None:
    """Refuse settings of a draw where nothing is drawn, and so nothing would come of them.

    Raises:
        ValueError: when ``size`` or ``compat`` is given without ``ratio``.
    """
    if ratio is None and (size is not None or compat is not None):
        raise ValueError(
            f"size and compat say how images of a ratio are drawn, got size {size!r} and compat {compat!r} without "
            "ratio: give a ratio, or leave them out to keep all images"
        )


def unlabeled_targets(datalist: PathLike, base_dir: PathLike | None = None) -> dict[str, int | None]:
    """Return the targets of the unlabeled images where the file has them.

    For reporting only, such as the purity of pseudo-labels: a method that reads them is no longer one that learns from
    unlabeled images.

    Args:
        datalist: JSON file.
        base_dir: folder that the paths are relative to; None (default): the folder of the datalist.

    Returns:
        Absolute path of each image of ``unlabeled``, as :func:`load_datalist` gives it, to 0, 1 or None (unknown).

    Raises:
        ValueError: naming file and remedy.
    """
    path = Path(datalist)
    base = Path(base_dir) if base_dir is not None else path.parent
    items = _unlabeled_items(read_datalist(path), path)
    return {
        os.path.abspath(base / item[Keys.IMAGE]): None if (target := item.get(Keys.TARGET)) is None else int(target)
        for item in items
    }


def _target(item: Item) -> int:
    target = item.get(Keys.TARGET)
    if isinstance(target, str) or target not in (0, 1):
        raise ValueError(
            f"image {item.get(Keys.IMAGE)} has the target {target!r}: a set of a chosen ratio can only be drawn from "
            "images with target 0 or 1 (`convert-csv --unlabeled-targets` keeps those of a CSV)"
        )
    return int(target)


def _whole_patients(items: Sequence[Item], targets: np.ndarray, wanted: Sequence[int], seed: int) -> list[int]:
    """Return the positions drawn, ascending."""
    groups: dict[str, tuple[list[int], list[int]]] = {}
    given = [item.get(Keys.PATIENT) for item in items]
    known = ["" if name is None else str(name) for name in given]
    for place, name in enumerate(one_spelling(known)):
        # in a pair, so that no patient's name can be the number of an item
        key = repr(("named", name) if name else ("unnamed", place))
        groups.setdefault(key, ([], []))[targets[place]].append(place)
    names = sorted(groups)
    order = [groups[names[i]] for i in np.random.RandomState(seed).permutation(len(names))]
    lacking, chosen = list(wanted), set[int]()

    def take(places: Sequence[int]) -> None:
        chosen.update(places)
        for place in places:
            lacking[targets[place]] -= 1

    for group in order:
        if all(len(places) <= lack for places, lack in zip(group, lacking, strict=True)):
            take([*group[0], *group[1]])
    for target in (0, 1):
        left = [group[target] for group in order if group[target] and group[target][0] not in chosen]
        for places in left:
            if len(places) <= lacking[target]:
                take(places)
        # every group that is left holds more than what still lacks
        rest = next((places for places in left if places[0] not in chosen), [])
        take(rest[: lacking[target]])
    return sorted(chosen)


def _unlabeled_items(content: dict[str, Any], path: Path) -> list[Item]:
    raw = content.get(UNLABELED)
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"datalist {path} has no items in section {UNLABELED!r}: add the section")
    for place, item in enumerate(raw):
        if problem := item_problem(item, UNLABELED, require_target=False):
            raise ValueError(f"datalist {path}: {UNLABELED}[{place}]: {problem}")
    return raw


def _left(items: Sequence[Item], without: Sequence[str], path: Path, base: Path) -> list[Item]:
    files = {_listed(item): os.path.abspath(base / item[Keys.IMAGE]) for item in items}
    dropped = set[str]()
    for file in without:
        found = {name for name, absolute in files.items() if absolute == os.path.normpath(file)}
        if not found:  # as listed, or of another base folder
            given = "/" + Path(os.path.normpath(file)).as_posix().lstrip("/")
            fitting = [name for name in files if given.endswith("/" + name.lstrip("/"))]
            found = {max(fitting, key=len)} if fitting else set()
        if not found:
            raise ValueError(
                f"section {UNLABELED!r} of datalist {path} has no image {file}: nothing to leave out; are its paths "
                f"relative to {base}?"
            )
        dropped |= found
    left = [item for item in items if _listed(item) not in dropped]
    if not left:
        raise ValueError(f"section {UNLABELED!r} of datalist {path} would be empty: leave out fewer images")
    return left


def _listed(item: Item) -> str:
    return Path(os.path.normpath(item[Keys.IMAGE])).as_posix()
