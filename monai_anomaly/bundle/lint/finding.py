# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import asdict, dataclass

ERROR = "error"
WARNING = "warning"


def printable(text: str) -> str:
    """Text of a foreign bundle as one line that a terminal shows as it is: what it would obey or hide is escaped.

    Args:
        text: anything, such as a file's name with a line break or a mark that turns the writing round.
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


@dataclass(frozen=True)
class Finding:
    """One thing that the linter says about a bundle.

    Args:
        rule: name of the rule, stable over versions, such as ``"target"``.
        file: path of the file, relative to the bundle's folder.
        path: config id inside the file with ``#`` between its parts; empty for the whole file.
        message: what is wrong, with the value found.
        remedy: what to do about it.
        severity: ``"error"`` or ``"warning"``.
    """

    rule: str
    file: str
    path: str
    message: str
    remedy: str
    severity: str = ERROR

    @property
    def place(self) -> tuple[str, str, str]:
        """Rule, id and message, the same in a config and in one that is laid over it."""
        return self.rule, self.path, self.message

    def __str__(self) -> str:
        """One line for people."""
        place = f"{self.file}:{self.path}" if self.path else self.file
        return printable(f"{self.severity} [{self.rule}] {place}: {self.message} -> {self.remedy}")

    def as_dict(self) -> dict[str, str]:
        """Fields as strings, for JSON."""
        return asdict(self)
