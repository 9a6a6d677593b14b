# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""What a ``_target_`` may name: a public class or function of an installed, reviewed package, and nothing it imports.

MONAI hands ``_target_`` to ``pydoc.locate``, which walks attributes through any module: ``torch.os.system`` is a legal
path there, and ``eval`` is one too. Here each segment must be the package's own submodule, then a class or function
that was defined in an allowed part of an allowed package. Importing monai, monai_anomaly, torch and ignite is the only
code that runs.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from functools import lru_cache
from types import ModuleType

PACKAGES = ("monai", "monai_anomaly", "torch", "ignite")
_PATH = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+")

#: Parts of the packages from which targets may come; the longest prefix of ALLOWED and DENIED decides.
ALLOWED = (
    "monai",
    "monai_anomaly",
    "monai_anomaly.bundle.options",
    "monai.utils.enums",
    "monai.utils.set_determinism",
    "monai.utils.misc.set_determinism",
    "torch.nn",
    "torch.optim",
    "torch.utils.data",
    "torch.utils.tensorboard",
    "torch.amp",
    "torch.cuda.amp",
    "torch.distributions",
    "torch.device",
    "torch.Generator",
    "torch._C.Generator",
    "torch.Size",
    "ignite.engine",
    "ignite.handlers",
    "ignite.metrics",
)
#: Code that runs commands, evaluates text, unpickles, downloads, or reads a second config.
DENIED = (
    "monai.apps.auto3dseg",
    "monai.apps.datasets",
    "monai.apps.mmars",
    "monai.apps.nnunet",
    "monai.apps.tcia",
    "monai.apps.utils",
    "monai.auto3dseg",
    "monai.bundle",
    "monai.config",
    "monai.data.torchscript_utils",
    "monai.fl",
    "monai.losses.perceptual",
    "monai.networks.blocks.text_embedding",
    "monai.networks.nets.torchvision_fc",
    "monai.networks.trt_compiler",
    "monai.networks.utils",
    "monai.utils",
    "monai_anomaly.benchmark",
    "monai_anomaly.bundle",
    "monai_anomaly.cli",
    "torch",
    "torch.utils.data.datapipes",
    "ignite",
)


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
    return _locate_problem(target)


@lru_cache(maxsize=4096)
def _locate_problem(target: str) -> str | None:
    if target.split(".")[0] not in PACKAGES:
        return f"{target!r} is outside {', '.join(PACKAGES)}"
    if not is_allowed(target):
        return f"{target!r} is in a part of its package that can run, load or download code"
    try:
        found = _locate(target)
    except LookupError as error:
        return f"{target!r}: {error}"
    return _object_problem(target, found)


def is_allowed(path: str) -> bool:
    """Whether the longest entry of ``ALLOWED`` and ``DENIED`` that covers the dotted ``path`` is an allowed one."""
    allowed = max((len(prefix) for prefix in ALLOWED if _covers(prefix, path)), default=0)
    denied = max((len(prefix) for prefix in DENIED if _covers(prefix, path)), default=0)
    return allowed > denied


def _covers(prefix: str, path: str) -> bool:
    return path == prefix or path.startswith(prefix + ".")


def _locate(target: str) -> object:
    """Walk from package to submodule to the public name; never through an attribute that is a foreign module."""
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


def _object_problem(target: str, found: object) -> str | None:
    if not (inspect.isclass(found) or inspect.isfunction(found)):
        return f"{target!r} is a {type(found).__name__}, not a class or function"
    home = getattr(found, "__module__", None) or ""
    name = f"{home}.{getattr(found, '__qualname__', '')}"
    if home.split(".")[0] not in PACKAGES or not is_allowed(name):
        return f"{target!r} is '{name}', which is outside the parts allowed"
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
