# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""``logging.conf`` may hold what this package's own one holds: handlers that print to the screen, and a format.

``logging.config.fileConfig`` evaluates ``class``, ``args``, ``kwargs`` and ``defaults``, and a handler can write any
file: with a chosen format, a script. So every key and value is compared with what is allowed, and none is evaluated.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

from .finding import Finding

_NAME = r"[A-Za-z_][\w.]*"
_NAMES = rf"({_NAME}(\s*,\s*{_NAME})*)?"
_FIELD = (
    r"%\((asctime|levelname|levelno|message|module|name|lineno|process|threadName|filename|funcName)\)[-0-9]{0,3}[sd]"
)
_VALUES = {
    r"loggers|handlers|formatters": {"keys": _NAMES},
    r"logger_\w+": {
        "level": r"[A-Z]+",
        "handlers": _NAMES,
        "qualname": _NAME,
        "propagate": "[01]",
    },
    r"handler_\w+": {
        "class": r"(logging\.)?StreamHandler",
        "level": r"[A-Z]+",
        "formatter": r"(\w+)?",
        "args": r"\(\s*sys\.(stdout|stderr)\s*,?\s*\)|\(\s*\)",
    },
    r"formatter_\w+": {
        "class": r"(logging\.)?Formatter",
        "format": rf"({_FIELD}|[\w \-:.,\[\]()])*",
        "datefmt": r"(%[A-Za-z]|[\w \-:.,/])*",
    },
}


def lint_logging(path: Path, name: str) -> Iterator[Finding]:
    """Compare a logging configuration with what is allowed in one."""
    remedy = "copy configs/logging.conf of a bundle of monai_anomaly: StreamHandler on sys.stdout, and a plain format"
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        yield Finding("logging", name, "", f"cannot be parsed: {error}", remedy)
        return
    if parser.defaults():
        yield Finding("logging", name, "DEFAULT", "it sets values for all sections", remedy)
    for section in parser.sections():
        allowed = next((table for names, table in _VALUES.items() if re.fullmatch(names, section)), {})
        for key, value in parser.items(section):
            if key not in parser.defaults() and (key not in allowed or not re.fullmatch(allowed[key], value)):
                yield Finding("logging", name, section, f"it sets {key}={value!r}", remedy)
