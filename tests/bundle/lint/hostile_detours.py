# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Hostile bundles whose values have to be worked out before their harm is seen; see ``hostile_bundles``."""

from __future__ import annotations

from typing import Any

from hostile_bundles import expression, value, values
from hostile_values import checkpoints, saver, scores, steps

from monai_anomaly.bundle.lint.known_values import MAX_DEPTH

_UP = "os.path.basename('a/.' + '.')"
_KNOWN = {"_target_": "monai_anomaly.handlers.TrainedSettings", "defaults": {"a": 1}, "path": "models/model.pt"}
_IMPORTS = ["$import os", "$import json", "$import glob", "$import ignite.distributed as idist"]


def classes(**given: Any) -> dict[str, Any]:
    """MONAI's writer of a table."""
    return {"_target_": "monai.transforms.SaveClassificationd", "keys": "x", "output_dir": "@output_dir", **given}


def weights(path: str) -> dict[str, Any]:
    """MONAI's reader of weights."""
    return {"_target_": "monai.handlers.CheckpointLoader", "load_path": path, "load_dict": {}}


def chain(last: str) -> dict[str, Any]:
    """References to references, more than are followed."""
    return {f"a{i}": f"@a{i + 1}" for i in range(MAX_DEPTH + 10)} | {f"a{MAX_DEPTH + 10}": last}


def images(name: str, **given: Any) -> dict[str, Any]:
    """A data set that is written down, whose first image says under which name MONAI saves it."""
    transforms = [{"_target_": "monai.transforms.ToMetaTensord", "keys": "pred"}, saver(**given)]
    return {
        "_target_": "monai.data.Dataset",
        "data": f"$[{{'pred': [[[0.0]]], 'pred_meta_dict': {{'filename_or_obj': {name}}}}}]",
        "transform": {"_target_": "monai.transforms.Compose", "transforms": transforms},
    }


#: What a function gives, of which less is known than its name says.
_RESULTS = {
    "a program by the least of two": value(
        "path", "is imported next time", classes(filename="$min('x.p' + 'y', 'z')"), classes(filename="$min('a', 'z')")
    ),
    "a table by the least of two": value(
        "path",
        "the name climbs out",
        classes(filename="$min('.' + './statistics.p' + 'y', 'z')"),
        classes(filename="x.csv"),
    ),
    "a table by the greatest of two": value(
        "path", "the name climbs out", classes(filename="$max('.' + './x', '')"), classes(filename="x.csv")
    ),
    "files by the least of two": expression(
        "tells of the disk", "$glob.glob(min('/' + '*', 'z'))", "$glob.glob(@dataset_dir + '/*')", "call"
    ),
    "JSON by the least of two": expression(
        "ends in a file", "$json.load(open(min('/e' + 'tc/x.json', 'z')))", "$min(len('ab'), 3)", "call"
    ),
    "weights by the least of two": value(
        "path", "reads any file", weights("$min('/e' + 'tc/x.pt', 'z')"), weights("models/model.pt")
    ),
    "code by the least of two": value(
        "steps",
        "the other bundle evaluates it",
        steps(settings={"seed": "$min('$' + '1', 'z')"}),
        steps(settings={"seed": "$min(1, 2)"}),
    ),
    "a folder by the first of some": value(
        "write", "sorting brings another one to the front", scores("$sorted(['runs/x', '/e' + 'tc'])[0]")
    ),
    "a folder by a format": value(
        "write",
        "what is put in climbs out",
        scores("$'runs/%s' % ('x../../../etc'[1:],)"),
        scores("$'runs/%s' % 'x'"),
    ),
    "a folder above by basename": value(
        "write",
        "the last part of a text can be two dots",
        scores(f"$os.path.join(@output_dir, {_UP}, {_UP}, 'escaped')"),
        scores("$os.path.join(@output_dir, os.path.basename('a/b'))"),
    ),
    "a file above by basename": values(
        "call",
        "reads any JSON file",
        {"imports": _IMPORTS, "extra": f"$json.load(open(os.path.join(@dataset_dir, {_UP}, {_UP}, 'x.json')))"},
        {"imports": _IMPORTS, "extra": "$json.load(open(os.path.join(@dataset_dir, os.path.basename(@output_dir))))"},
    ),
}

#: What weights say of themselves is theirs to say.
_TRAINED = {
    "a file named by weights": values(
        "path",
        "whoever made the weights chose it",
        {"known": _KNOWN, "extra": checkpoints(final_filename="$@known['a']")},
        {"known": _KNOWN, "extra": checkpoints(n_saved="$@known['a']")},
    ),
    "a table named by weights": values(
        "path",
        "whoever made the weights chose it",
        {"known": _KNOWN, "extra": classes(filename="$@known['a']")},
        {"known": _KNOWN, "extra": classes(filename="x.csv")},
    ),
    "a file to read named by weights": values(
        "call",
        "whoever made the weights chose it",
        {"imports": _IMPORTS, "known": _KNOWN, "extra": "$json.load(open(@known['a']))"},
        {"imports": _IMPORTS, "known": _KNOWN, "extra": "$@known['a']"},
    ),
}

#: Values that nobody works out, because that would take too long.
_LONG_WAYS = {
    "a folder at the end of a chain": values(
        "write",
        "climbs out where nobody looks any more",
        {**chain("$os.path.dirname(@output_dir)"), "extra": checkpoints(save_dir="@a0")},
        {"a0": "@a1", "a1": "@output_dir", "extra": checkpoints(save_dir="@a0")},
    ),
    "code at the end of a chain": values(
        "steps",
        "the other bundle evaluates it",
        {**chain("$'a$1'[1:]"), "extra": steps(settings={"seed": "@a0"})},
        {"a0": "@a1", "a1": 1, "extra": steps(settings={"seed": "@a0"})},
    ),
    "the output folder at the end of a chain": values(
        "path", "everything goes there", {**chain("$'/e' + 'tc'"), "output_dir": "@a0"}
    ),
    "a number in a text": expression("counts for years", "$sum(range(int('99999999999999999')))", "$int('99')"),
    "a long text by a number in a text": expression("fills the memory", "$'a' * int('9999999999999')", "$'a' * int(9)"),
    "a long list by a number in a text": expression("fills the memory", "$[0] * int('99999999999')", "$[0] * len('a')"),
    "a list as long as weights say": values(
        "expression",
        "fills the memory",
        {"known": _KNOWN, "extra": "$[0] * @known['a']"},
        {"known": _KNOWN, "extra": "$[0] * len(@train#dataset)"},
    ),
    "a range as long as weights say": values(
        "expression",
        "counts for years",
        {"known": _KNOWN, "extra": "$sum(range(@known['a']))"},
        {"known": _KNOWN, "extra": "$sum(range(len(@train#dataset)))"},
    ),
    "a list by its own length": values(
        "expression",
        "each reference squares it",
        {f"x{i}": f"$@x{i - 1} * len(@x{i - 1})" if i else "$list(@train#dataset)" for i in range(9)},
        {"x": "$len(@train#dataset) * 2"},
    ),
    "a format cut out": expression("fills the memory", "$'x%999999999d'[1:] % 1", "$'x%9d' % 1"),
    "a format of what is unknown": expression("fills the memory", "$'%999999999d' % len('a'[1:])", "$'%9d' % len('a')"),
    "a format by a name": expression("fills the memory", "$'%(a)999999999d' % {'a': 1}", "$'%d' % 1"),
}

#: The name of an image says where MONAI saves it, if it is told where the names begin.
_IMAGES = {
    "images beside the data": value(
        "path",
        "goes up as far as the name of an image says",
        images("'a.png'", data_root_dir="@dataset_dir"),
        images("'a.png'", data_root_dir=""),
    ),
    "an image's name": value(
        "path", "is where it is saved", images("'/tm' + 'p/x/img.nii'"), images("'a/' + 'img.nii'")
    ),
}

DETOURS = {**_RESULTS, **_TRAINED, **_LONG_WAYS, **_IMAGES}
