# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""The export commands that a bundle's README tells its users to type, run as they would run."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from .export_cli import export_by_words

_MONAI = ["python", "-m", "monai.bundle", "ckpt_export"]
_OURS = ["python", "-m", "monai_anomaly.bundle", "export"]
# options that change no setting of the configuration, which lint has read; and the one that names the weights
_OPTIONS = {
    "monai.bundle": {"filepath", "ckpt_file", "meta_file", "config_file", "key_in_ckpt", "use_trace", "input_shape"},
    "monai_anomaly.bundle": {"format", "checkpoint", "output", "config_file"},
}
_PLAIN = re.compile(r"[A-Za-z_]\w*|\.")
_DEFAULT = (
    "python -m monai.bundle ckpt_export network_def --filepath models/model.ts --ckpt_file models/model.pt "
    "--meta_file configs/metadata.json --config_file configs/inference.json"
)


@dataclass(frozen=True)
class ExportCommand:
    """A command that exports a bundle's network, to be run from the bundle's folder.

    Args:
        words: the command line, program and module included.
    """

    words: tuple[str, ...]

    @property
    def module(self) -> str:
        """``monai.bundle`` or ``monai_anomaly.bundle``."""
        return self.words[2]

    @property
    def options(self) -> dict[str, str]:
        """Options by name."""
        return {name[2:]: value for name, value in zip(self.words[5::2], self.words[6::2], strict=False)}

    @property
    def weights(self) -> str:
        """The file of weights that it reads."""
        return self.options.get("ckpt_file") or self.options.get("checkpoint") or "models/model.pt"

    @property
    def output(self) -> str:
        """The file that it writes."""
        return self.options.get("filepath") or self.options.get("output") or "models/model.ts"

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the images that it names, if it does."""
        return tuple(map(int, re.findall(r"\d+", self.options.get("input_shape", "")))) or None

    def __str__(self) -> str:
        """The part that tells it from others."""
        more = "--use_trace" if "use_trace" in self.options else f"--format {self.options.get('format', 'torchscript')}"
        return self.words[3] + (f" {more}" if self.module != "monai.bundle" or "use_trace" in self.options else "")

    def run(self) -> None:
        """Run it in this process, from the current folder.

        Raises:
            ValueError: when it has options that are none of an export, leads out of the folder, or fails.
        """
        self._check()
        told = io.StringIO()
        try:
            with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
                status = self._call()
        except SystemExit as error:
            status = error.code
        if status:
            raise ValueError(f"{shlex.join(self.words)} ends with: {' '.join(told.getvalue().split())[-400:]}")

    def _call(self) -> int | str | None:
        if self.module == "monai_anomaly.bundle":
            return export_by_words([*self.words[3:], "--trust"])  # lint has been asked before
        from fire.parser import DefaultParseValue  # what reads the values of options of monai.bundle
        from monai.bundle import ckpt_export

        ckpt_export(self.words[4], **{name: DefaultParseValue(value) for name, value in self.options.items()})
        return None

    def _check(self) -> None:
        """Refuse whatever is not one argument and pairs ``--option value``: fire knows other ways to say an option."""
        argument, *pairs = self.words[4:] or ("",)
        names, values = pairs[::2], pairs[1::2]
        if (
            not _PLAIN.fullmatch(argument)
            or len(names) != len(values)
            or not all(name.startswith("--") for name in names)
            or any(value.startswith("-") for value in values)
        ):
            raise ValueError(
                f"{shlex.join(self.words)} of docs/README.md is not run: write the name of the network (or the folder) "
                "and then pairs --option value"
            )
        unknown = self.options.keys() - _OPTIONS[self.module]
        if unknown:
            raise ValueError(
                f"{shlex.join(self.words)} of docs/README.md has options that are not run: {', '.join(sorted(unknown))}"
            )
        for value in self.options.values():
            if ".." in value or re.search(r"(^|['\"\[,\s])[/~$]", value):
                raise ValueError(f"{shlex.join(self.words)} of docs/README.md leads out of the bundle: {value}")


def export_commands(root: Path) -> list[ExportCommand]:
    """The export commands in a bundle's ``docs/README.md``; MONAI's, with scripting, where there are none.

    Args:
        root: folder of the bundle.
    """
    readme = root / "docs" / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    lines = "\n".join(re.findall(r"```(?:bash|sh|shell)?\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    found = [
        line for line in lines.splitlines() if re.match(r"\s*python -m monai(_anomaly)?\.bundle (ckpt_)?export\s", line)
    ]
    commands = [shlex.split(line, comments=True) for line in found or [_DEFAULT]]
    return [ExportCommand(tuple(words)) for words in commands if words[:4] in (_MONAI, _OURS)]
