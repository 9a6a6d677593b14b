# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Whether a ``_target_`` names a class or function that the allow list knows, and nothing that these import.

MONAI hands ``_target_`` to ``pydoc.locate``, which walks attributes through any module: ``torch.os.system`` is a legal
path there, and ``eval`` is one too. Here each segment must be the package's own submodule, then a class or function
that was defined in this package. Importing monai, monai_anomaly, torch and ignite is the only code that runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any

from .allow_list import COMPUTING, EXCEPT, PACKAGES, WITH_FUNCTIONS, computing_folder, covers, listed_names

_PATH = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+")
FETCHING = ("pretrained", "download", "use_pretrained", "adapt_standard_resnet", "pretrained_url")


def target_problem(target: object) -> str | None:
    """Say why ``target`` may not stand as a ``_target_``, or None.

    Args:
        target: the config value.
    """
    if not isinstance(target, str):
        return f"{target!r} is not a text"
    if target[:1] in ("$", "@", "%"):
        return f"{target!r} is only known at run time"
    if "." not in target:
        return f"{target!r} is a short name, which may resolve to another class of the same name"
    if not _PATH.fullmatch(target):
        return f"{target!r} is not a dotted path of public ASCII names"
    return _problem(target)


@lru_cache(maxsize=4096)
def _problem(target: str) -> str | None:
    if target.split(".")[0] not in PACKAGES:
        return f"{target!r} is outside {', '.join(PACKAGES)}"
    listed = [name for name in listed_names() if name.rsplit(".", 1)[1] == target.rsplit(".", 1)[1]]
    if not listed and computing_folder(target) is None:
        return f"{target!r} is not on the list of parts that a bundle may use"
    try:
        found = locate(target)
    except LookupError as error:
        return f"{target!r}: {error}"
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return f"{target!r} is a {type(found).__name__}, not a class or function"
    home = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if home.split(".")[0] not in PACKAGES:
        return f"{target!r} is '{home}', which is outside {', '.join(PACKAGES)}"
    if any(_names(name, found) for name in listed) or _is_computing(target, found, home):
        return None
    return f"{target!r} ('{home}') is not on the list of parts that a bundle may use"


def _names(listed: str, found: object) -> bool:
    try:
        return locate(listed) is found
    except LookupError:  # another version of the package may lack it
        return False


def _is_computing(target: str, found: object, home: str) -> bool:
    """Whether a folder that only computes exports ``found``, which is defined in such a folder and no exception."""
    folder = computing_folder(target)
    if folder is None or computing_folder(home) is None or any(covers(name, home) for name in EXCEPT):
        return False
    if not inspect.isclass(found) and not any(covers(name, home) for name in WITH_FUNCTIONS):
        return False
    parent = target.rpartition(".")[0]
    while covers(folder, parent):
        module = importlib.import_module(parent)
        if (hasattr(module, "__path__") or parent in COMPUTING) and exports(module).get(
            target.rsplit(".", 1)[1]
        ) is found:
            return True
        parent = parent.rpartition(".")[0]
    return False


def exports(module: ModuleType) -> dict[str, Any]:
    """Public names of a module: those in ``__all__``, without which all that do not begin with an underscore."""
    public = getattr(module, "__all__", None)
    names = vars(module) if public is None else public
    return {name: vars(module)[name] for name in names if name in vars(module) and not name.startswith("_")}


def locate(target: str) -> object:
    """Walk from package to submodule to the public name; never through an attribute that is a foreign module.

    Args:
        target: dotted path whose first part is one of the packages.

    Raises:
        LookupError: when there is no such name.
    """
    parts = target.split(".")
    module: ModuleType = importlib.import_module(parts[0])
    for position, part in enumerate(parts[1:], start=1):
        is_last = position == len(parts) - 1
        if is_last and part in vars(module) and not isinstance(vars(module)[part], ModuleType):
            return vars(module)[part]
        module = _submodule(module, part)
    raise LookupError("it is a module; name a class or function in it")


def _submodule(module: ModuleType, name: str) -> ModuleType:
    path = f"{module.__name__}.{name}"
    try:
        exists = hasattr(module, "__path__") and importlib.util.find_spec(path) is not None
        if exists:
            return importlib.import_module(path)
    except Exception as error:  # a submodule of an optional dependency may fail in any way at import
        raise LookupError(f"'{path}' cannot be imported ({error})") from error
    kind = "is not a module of its own" if hasattr(module, name) else "does not exist"
    raise LookupError(f"'{path}' {kind}")


@lru_cache(maxsize=4096)
def parameters(target: str) -> Mapping[str, inspect.Parameter]:
    """Parameters of an allowed target by name; none where Python cannot tell."""
    try:
        return inspect.signature(locate(target)).parameters  # type: ignore[arg-type]
    except (LookupError, TypeError, ValueError):
        return {}


def fetches_unless_told(target: str, given: Mapping[str, Any]) -> str | None:
    """The argument by which a component fetches files from the network unless a config sets it, or None.

    Args:
        target: an allowed target.
        given: what the config sets.
    """
    for name in FETCHING:
        if name in parameters(target) and name not in given and parameters(target)[name].default in (True, "True"):
            return name
    return None


@lru_cache(maxsize=1)
def _core_names() -> frozenset[str]:
    """Names of all classes and functions that MONAI itself would find by their short name."""
    from monai.bundle import ComponentLocator

    locator = ComponentLocator()
    modules = [name for name in locator._find_module_names() if name == "monai" or name.startswith("monai.")]
    return frozenset(locator._find_classes_or_functions(modules))


def collides_with_core(target: str) -> bool:
    """Whether a class of this package has a name that MONAI has already, so that its short name means MONAI's."""
    return target.startswith("monai_anomaly.") and target.rsplit(".", 1)[1] in _core_names()
