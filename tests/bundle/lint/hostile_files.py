# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Hostile bundles by the files in them; see ``hostile_bundles``."""

from __future__ import annotations

import io
import json
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hostile_bundles import Hostile
from small_bundle import LOGGING, LOGGING_FILE, META, TRAIN, WEIGHTS

_SCRIPT = b"#!/bin/sh\nid\n"


def content(rule: str, reason: str, name: str, hostile: str | bytes, harmless: str | bytes | None = None) -> Hostile:
    """A file with some content."""

    def plant(data: str | bytes) -> Callable[[Path], None]:
        def write(bundle: Path) -> None:
            (bundle / name).parent.mkdir(parents=True, exist_ok=True)
            (bundle / name).write_bytes(data.encode() if isinstance(data, str) else data)

        return write

    return Hostile(reason, rule, name, plant(hostile), None if harmless is None else plant(harmless))


def special(rule: str, reason: str, name: str, make: Callable[[Path], Any]) -> Hostile:
    """Something in the folder that is not a file."""
    return Hostile(reason, rule, name, lambda bundle: make(bundle / name))


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may have no more than a hundred characters
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def _deep(path: Path) -> None:
    (path / "/".join("a" * 25)).mkdir(parents=True)


def logging(old: str, new: str, reason: str, harmless: str | None = None) -> Hostile:
    """A change to a faultless logging configuration."""
    assert old in LOGGING
    other = None if harmless is None else LOGGING.replace(old, harmless)
    return content("logging", reason, LOGGING_FILE, LOGGING.replace(old, new), other)


def archive(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED, repeated: tuple[str, ...] = ()) -> bytes:
    """A zip file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as written:
        for name, data in entries.items():
            written.writestr(name, data)
        for name in repeated:
            written.writestr(name, b"")
    return stream.getvalue()


def exported(size: str) -> bytes:
    """A program of torch.export in which a size stands."""
    graph = {"sizes": [{"as_expr": {"expr_str": size}}]}
    return archive({"model/archive_format": b"pt2", "model/models/model.json": json.dumps(graph).encode()})


def saved(value: Any, **options: Any) -> bytes:
    """A file of ``torch.save``."""
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def overlapping() -> bytes:
    """A zip whose table of contents names one entry many times under other names: a bomb without compression."""
    data = archive({"model/data.pkl": b"\x80\x02}.", "model/data/0": b"a" * 1000})
    end = data.rindex(b"PK\x05\x06")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    entry = data[data.rindex(b"PK\x01\x02", start, end) : end]
    names = [f"model/data/{i:x}".encode() for i in range(16)]
    more = b"".join(entry.replace(b"model/data/0", name) for name in names[1:])
    count, size = 2 + len(names) - 1, end + len(more) - start
    finish = bytearray(data[end:])
    finish[8:10] = finish[10:12] = count.to_bytes(2, "little")
    finish[12:16] = size.to_bytes(4, "little")
    return data[:end] + more + bytes(finish)


def large_files(rule: str, reason: str, name: str = "large_files.yml", **change: Any) -> Hostile:
    """An entry in the list of what is downloaded."""
    entry = {"path": "models/more.pt", "url": "https://example.org/x.pt", "hash_type": "sha256", "hash_val": "0" * 64}
    harmless = json.dumps({"large_files": [entry]}) if name == "large_files.yml" else None
    return content(rule, reason, name, json.dumps({"large_files": [{**entry, **change}]}), harmless)


_LISTING = "large_files: [{path: models/more.pt, url: 'https://example.org/x', hash_type: sha256, hash_val: "
_BOMB = archive({"model/data.pkl": b"\x80\x02}.", "model/data/0": bytes(2**20)}, zipfile.ZIP_DEFLATED)
_CODE = "def forward(self, x):\n  return torch.from_file('/etc/x', False, 4)\n"

FILES = {
    "a module": content("executable-file", "is imported", "torchvision/transforms.py", "x = 1\n"),
    "a module before ours": content("executable-file", "python -m imports it first", "yaml.py", "x = 1\n"),
    "a compiled module": content("executable-file", "is imported", "docs/x.pyc", b"\x00"),
    "a library": content("executable-file", "is loaded", "docs/x.so", b"\x00"),
    "a start file of Python": content("executable-file", "runs when Python starts", "docs/x.pth", "import os\n"),
    "a repository for torch.hub": content("executable-file", "is run by torch.hub", "hubconf.py", "x = 1\n"),
    "a notebook": content("executable-file", "is run by its reader", "docs/x.ipynb", "{}"),
    "a pickle": content("executable-file", "is unpickled", "models/x.pkl", b"\x80\x02."),
    "an array": content("executable-file", "may be a pickle", "models/x.npy", b"\x93NUMPY"),
    "an engine of TensorRT": content("executable-file", "is machine code", "models/x.engine", b"\x00"),
    "a script as a picture": content("executable-file", "is run by its first line", "docs/x.png", _SCRIPT, b"\x89PNG"),
    "a program as a text": content("executable-file", "is a program", "docs/x.txt", b"\x7fELF\x02", "ELF"),
    "a YAML config": content("yaml", "is a config that was not linted", "configs/train.yaml", "a: 1\n"),
    "a named pipe": special("special-file", "a reader waits for ever", "configs/more.json", os.mkfifo),
    "a socket": special("special-file", "a reader fails", "docs/x.md", _socket),
    "a link to a file": special(
        "symlink", "reads outside", "configs/more.json", lambda path: path.symlink_to("/etc/x.json")
    ),
    "a link to a folder": special("symlink", "reads outside", "docs/more", lambda path: path.symlink_to("/etc")),
    "a link inside": special(
        "symlink", "changes with its target", "docs/x.md", lambda path: path.symlink_to("README.md")
    ),
    "endless folders": Hostile(
        "ends whoever walks them", "special-file", "docs/" + "/".join("a" * 20), lambda bundle: _deep(bundle / "docs")
    ),
    "a name that clears the screen": content("file-name", "the terminal obeys", "docs/\x1b[2J0 errors.md", "", None),
    "a name of two lines": content(
        "file-name", "reads '0 errors'", "docs/x\nsmall_bundle: 0 errors, 0 warnings\n.md", ""
    ),
    "a name turned round": content("file-name", "reads x.md.png", "docs/x\u202egnp.md", ""),
    "a name without width": content("file-name", "looks like README.md", "docs/READ\u200bME.md", ""),
    "a name outside UTF-8": content("file-name", "ends whoever prints it", "docs/\udcff.md", ""),
    "a name of another system": content("file-name", "is a path on Windows", "docs/..\\..\\x.md", ""),
    "a key in the message": content("key", "the terminal obeys", TRAIN, '{"\\u001b[2J": 1}'),
    "a key twice": content(
        "json", "readers differ in which one they take", "configs/more.json", '{"a": 1, "a": 2}', '{"in_channels": 1}'
    ),
    "NaN": content("json", "is not JSON", "docs/more.json", '{"a": NaN}', '{"a": 1}'),
    "deep JSON": content("json", "overflows the reader", "docs/more.json", "[" * 100_000 + "]" * 100_000, "[[[]]]"),
    "rather deep JSON": content("json", "overflows who walks it", META, "[" * 900 + "]" * 900),
    "huge JSON": content("json", "fills the memory", "docs/more.json", b"[" + b" " * (25 * 2**20) + b"]", b"[1]"),
    "a list at the top": content("json", "is not a config", "configs/more.json", "[1]"),
    "weights with an object": content(
        "weights", "is built by unpickling", WEIGHTS, saved({"a": os.system}), saved({"a": torch.zeros(2)})
    ),
    "weights of the old kind": content(
        "weights", "is a bare pickle", WEIGHTS, saved({"a": torch.zeros(2)}, _use_new_zipfile_serialization=False)
    ),
    "weights of a run": content(
        "weights", "evaluate.json loads them", "runs/models/model.pt", saved({"a": os.system}), saved({})
    ),
    "a bomb as weights": content("weights", "unpacks to a thousand times its size", WEIGHTS, _BOMB),
    "overlapping weights": content("weights", "unpacks to many times its size", WEIGHTS, overlapping()),
    "weights with two pickles": content(
        "weights",
        "readers differ in which one they take",
        WEIGHTS,
        archive({"model/data.pkl": b"\x80\x02}."}, repeated=("model/data.pkl",)),
    ),
    "TorchScript that reads": content(
        "weights",
        "reads any file",
        "models/model.ts",
        archive({"model/code/x.py": _CODE.encode()}),
        archive({"model/code/x.py": b"def f(x):\n  return x\n"}),
    ),
    "settings of version control": content(
        "file-type", "the next command of git runs a program", ".git/config", '[core]\nfsmonitor = "id"\n'
    ),
    "an archive": content("file-type", "may hold anything", "models/x.zip", archive({"a": b""})),
    "TorchScript that writes": content(
        "weights",
        "writes any file",
        "models/model.ts",
        archive({"model/code/x.py": b"def f(x):\n  ops.aten.save(x, '/tmp/x')\n"}),
    ),
    "TorchScript with a space": content(
        "weights",
        "reads any file",
        "models/model.ts",
        archive({"model/code/x.py": b"def f(x):\n  return torch. from_file('/etc/x')\n"}),
    ),
    "an exported size that is code": content(
        "weights", "sympy evaluates it", "models/model.pt2", exported("__import__('os')"), exported("Symbol('s0')")
    ),
    "a bomb as TorchScript": content(
        "weights",
        "unpacks to a thousand times its size",
        "models/model.ts",
        archive({"model/code/x.py": bytes(2**24)}, zipfile.ZIP_DEFLATED),
    ),
    "a log as a script": logging(
        "class=StreamHandler", "class=FileHandler", "writes a file of any name", "class=logging.StreamHandler"
    ),
    "a rotating log": logging(
        "class=StreamHandler", "class=logging.handlers.RotatingFileHandler", "writes a file of any name"
    ),
    "a log over the network": logging(
        "class=StreamHandler", "class=logging.handlers.SocketHandler", "sends pickles away"
    ),
    "an argument that is code": logging(
        "args=(sys.stdout,)", "args=(__import__('os').system('id'),)", "is evaluated", "args=(sys.stderr,)"
    ),
    "named arguments": logging("args=(sys.stdout,)", "args=()\nkwargs={'stream': print}", "are evaluated"),
    "a formatter by name": logging(
        "format=%(message)s", "format=%(message)s\nclass=x.Formatter", "is imported", "format=%(name)s: %(message)s"
    ),
    "defaults of a format": logging(
        "format=%(message)s", "format=%(message)s\ndefaults=print(1)", "are evaluated since Python 3.12"
    ),
    "a format that is a command": logging(
        "format=%(message)s", "format=rm -rf ~; #%(message)s", "a shell that reads the log obeys"
    ),
    "a format for the terminal": logging("format=%(message)s", "format=\x1b[2J%(message)s", "the terminal obeys"),
    "another logging configuration": content(
        "logging",
        "whoever names it applies it",
        "docs/log.conf",
        "[handler_x]\nclass=FileHandler\nargs=('x',)\n",
        LOGGING,
    ),
    "defaults of all sections": content(
        "logging", "is put into the others", LOGGING_FILE, "[DEFAULT]\nx=1\n" + LOGGING
    ),
    "a download over a config": large_files("large-files", "replaces what was linted", path="configs/train.json"),
    "a download over a document": large_files("large-files", "is a config to whoever names it", path="docs/x.json"),
    "a download that is code": large_files("large-files", "is imported", path="models/x.py"),
    "a download out of the folder": large_files("large-files", "writes anywhere", path="models/../../x.pt"),
    "a download without a hash": large_files("large-files-hash", "may be anything", hash_val=""),
    "a download with a weak hash": large_files(
        "large-files-hash", "may be anything", hash_type="md5", hash_val="0" * 32
    ),
    "a download in the clear": large_files("large-files", "can be exchanged on the way", url="http://example.org/x.pt"),
    "a download by expression": large_files("large-files", "is evaluated", url="$'https://' + 'x'"),
    "a download with more": large_files("large-files", "is an argument of the loader", filepath="configs/train.json"),
    "a second list": large_files("large-files", "MONAI takes any file of such a name", "large_files_2.json"),
    "an object in a list": content("large-files", "YAML builds it", "large_files.yml", "!!python/name:os.system"),
    "a bomb of anchors": content(
        "large-files",
        "YAML copies what is named",
        "large_files.yml",
        "large_files: &a [1]\nb: [*a, *a]\n",
        _LISTING + f"'{'0' * 64}'}}]\n",
    ),
}
