# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Hostile bundles by what their expressions, paths and runs of other bundles do; see ``hostile_bundles``."""

from __future__ import annotations

from typing import Any

from hostile_bundles import expression, in_file, value, values
from small_bundle import EVALUATE, MULTI_GPU

EXPRESSIONS = {
    "a dunder import": expression("runs a command", "$__import__('os').system('id')", "$os.path.join('a', 'b')"),
    "a walk through classes": expression("reaches everything", "$().__class__.__bases__", "$()"),
    "a private attribute": expression("reaches modules", "$@network._modules", "$@network_def"),
    "getattr": expression("reaches anything", "$getattr(@network, 'x' + 'y')", "$@network"),
    "a lambda": expression("runs later", "$(lambda: 1)()", "$(1)"),
    "a comprehension": expression("hides names", "$[x for x in @network]", "$[1, 2]"),
    "a format": expression("reads attributes", "$'{0.__class__}'.format(@network)", "$'{0.__class__}'"),
    "an f-string": expression("reads attributes", "$f'{@network}'", "$'x'"),
    "another alphabet": expression("is normalized to eval", "$ｅval('1')", "$len('1')"),
    "two statements": expression("runs both", "$1; __import__('os')", "$1"),
    "a writer of ours": expression(
        "writes a file", "$monai_anomaly.utils.write_text('x.py', 'x')", "$monai_anomaly.__version__"
    ),
    "a part of ours": expression("calls a part", "$monai_anomaly.engines.run_steps({})", "$monai_anomaly.__version__"),
    "torch.load": expression("unpickles", "$torch.load('x.pt')", "$torch.float32"),
    "os.system": expression("runs a command", "$os.system('id')", "$os.path.exists('id')"),
    "a component in an expression": expression(
        "a dictionary that turns into one", "${'_target_': 'os.x'}", "${'a': 1}"
    ),
    "a component by keyword": expression("a dictionary that turns into one", "$dict(_target_='os.x')", "$dict(a=1)"),
    "a method that registers": expression(
        "calls at every step", "$@network.register_forward_hook(1)", "$@network.train()"
    ),
    "an endless range": expression(
        "counts for years", "$sum(range(10 * 10 * 10000 * 10000 * 10000))", "$sum(range(9))"
    ),
    "a power": expression("fills the memory", "$10 ** 10 ** 10", "$10 * 10"),
    "a long text": expression("fills the memory", "$'a' * 1000000 * 1000000", "$'a' * 10"),
    "a long list": expression("fills the memory", "$[0] * 99999999", "$[0] * 9"),
    "a wide format": expression("fills the memory", "$'%99999999999d' % 1", "$'%9d' % 1"),
    "a doubling": values(
        "expression",
        "each reference doubles it",
        {f"x{i}": f"$@x{i - 1} + @x{i - 1}" if i else "$['a']" for i in range(40)},
        {f"x{i}": f"$@x{i - 1} + @x{i - 1}" if i else "$['a']" for i in range(4)},
    ),
    "a doubling of what is unknown": values(
        "expression",
        "each reference doubles it",
        {f"x{i}": f"$@x{i - 1} + @x{i - 1}" if i else "$list(@train#dataset)" for i in range(40)},
        {f"x{i}": f"$@x{i - 1} + @x{i - 1}" if i else "$list(@train#dataset)" for i in range(4)},
    ),
    "a squaring": values(
        "expression",
        "each reference squares it",
        {f"x{i}": f"$@x{i - 1} * @x{i - 1}" if i else "$99" for i in range(40)},
        {f"x{i}": f"$@x{i - 1} * @x{i - 1}" if i else "$99" for i in range(3)},
    ),
    "a macro bomb": values(
        "macro",
        "each macro holds ten of the one before",
        {f"x{i}": [f"%x{i - 1}"] * 10 if i else ["a"] for i in range(8)},
        {f"x{i}": [f"%x{i - 1}"] * 2 if i else ["a"] for i in range(4)},
    ),
    "deep parentheses": expression("overflows the parser", "$" + "(" * 900 + "1" + ")" * 900, "$(1)"),
    "a server": in_file(
        "call",
        "connects to a stranger, who joins the training",
        MULTI_GPU,
        "initialize",
        ["@check_options", "$torch.distributed.init_process_group('gloo', init_method='tcp://1.2.3.4:1')"],
        ["@check_options", "$torch.distributed.init_process_group('nccl' if torch.cuda.is_available() else 'gloo')"],
    ),
    "a server put together": in_file(
        "call",
        "connects to a stranger, who joins the training",
        MULTI_GPU,
        "initialize",
        ["@check_options", "$torch.distributed.init_process_group('gloo', 'tc' + str('p:/') + '/' + @dataset_dir)"],
        ["@check_options", "$torch.distributed.init_process_group(backend='gloo')"],
    ),
    "a secret of the environment": expression(
        "ends in a file", "$os.getenv('AWS_SECRET')", "$os.getenv('RANK')", "call"
    ),
    "a secret by a reference": values(
        "call",
        "ends in a file",
        {"n": "AWS_SECRET", "extra": "$os.environ.get(@n)"},
        {"extra": "$os.environ.get('RANK')"},
    ),
    "any JSON file": expression(
        "ends in a file", "$json.load(open('/' + 'root/x.json'))", "$json.load(open(@dataset_dir + '/x.json'))", "call"
    ),
    "a list of files": expression(
        "tells of the disk", "$glob.glob(str('/') + '*')", "$glob.glob(@dataset_dir + '/*')", "call"
    ),
    "an address put together": expression("is fetched", "$'ht' + 'tps://example.org/x'", "$'ht' + 'tp'", "download"),
}


def saver(**given: Any) -> dict[str, Any]:
    """MONAI's writer of images."""
    return {"_target_": "monai.transforms.SaveImaged", "keys": "pred", "output_dir": "@output_dir", **given}


def checkpoints(**given: Any) -> dict[str, Any]:
    """MONAI's writer of weights."""
    return {
        "_target_": "monai.handlers.CheckpointSaver",
        "save_dir": "@output_dir",
        "save_dict": {"model": "@network"},
        **given,
    }


def scores(output_dir: Any) -> dict[str, Any]:
    """Our writer of scores."""
    return {"_target_": "monai_anomaly.handlers.ScoresWriter", "output_dir": output_dir}


_MAPS = "$os.path.join(@output_dir, 'maps')"

PATHS = {
    "an absolute folder": value("write", "writes anywhere", scores("/etc"), scores(_MAPS)),
    "a folder above": value("write", "writes anywhere", scores("../../x"), scores("@output_dir")),
    "a folder above, by join": value(
        "write", "writes anywhere", scores("$os.path.join(@output_dir, '..', 'x')"), scores(_MAPS)
    ),
    "a folder put together": value(
        "write", "writes anywhere", scores("$'.' + './' + 'x'"), scores("$@output_dir + '/x'")
    ),
    "a folder beside": value(
        "write", "writes beside the output folder", scores("$@output_dir + 'x'"), scores("$@output_dir + '/x'")
    ),
    "an absolute part": value(
        "write", "join forgets what stands before", scores("$os.path.join(@output_dir, '/etc')"), scores(_MAPS)
    ),
    "a folder cut out": value(
        "write", "is the root for a user's folder", scores("$@output_dir[:1]"), scores("@output_dir")
    ),
    "a folder above by dirname": value(
        "write", "climbs out", scores("$os.path.dirname(@output_dir)"), scores(f"$os.path.dirname({_MAPS[1:]})")
    ),
    "a choice of folders": value(
        "write",
        "one of them is outside",
        scores("$@output_dir if @in_channels == 1 else '/etc'"),
        scores("$None or @output_dir"),
    ),
    "a folder by detours": values(
        "write",
        "the reference leads outside",
        {"a": "$'/e' + 'tc'", "b": "@a", "extra": scores("@b")},
        {"extra": scores("@output_dir")},
    ),
    "a folder in an overlay": in_file(
        "write",
        "train.json is harmless by itself",
        EVALUATE,
        "train#handlers#0#save_dir",
        "$'/e' + 'tc'",
        "@output_dir",
    ),
    "the bundle's own folder": value("write", "writes configs/train.json", scores("@bundle_root"), scores(_MAPS)),
    "the configurations": value(
        "write", "replaces them", scores("$@bundle_root + '/configs'"), scores("$@bundle_root + '/runs'")
    ),
    "the data set": value("write", "changes the images", scores("@dataset_dir"), scores(_MAPS)),
    "the output folder itself": values(
        "path", "everything goes there", {"output_dir": "$'/e' + 'tc'"}, {"output_dir": "runs"}
    ),
    "the output folder above": values("path", "everything goes there", {"output_dir": "$@bundle_root + '/../x'"}),
    "the output folder is configs": values("path", "replaces them", {"output_dir": "$@bundle_root + '/configs'"}),
    "the bundle is elsewhere": values(
        "path", "everything goes there", {"bundle_root": "$'/e' + 'tc'"}, {"bundle_root": "."}
    ),
    "event files": value(
        "write",
        "TensorBoard writes anywhere",
        {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "$'/e' + 'tc'"},
        {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "@output_dir"},
    ),
    "event files by default": value(
        "write",
        "writes into the working folder",
        {"_target_": "monai.handlers.TensorBoardStatsHandler"},
        {"_target_": "monai.handlers.TensorBoardStatsHandler", "log_dir": "@output_dir"},
    ),
    "images by default": value(
        "write", "writes into the working folder", {"_target_": "monai.transforms.SaveImaged", "keys": "x"}, saver()
    ),
    "event files with an end": value(
        "path",
        "the end of the name climbs out",
        {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "@output_dir", "filename_suffix": "/../../x"},
        {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "@output_dir", "filename_suffix": "x"},
    ),
    "weights by a name": value(
        "path", "the name climbs out", checkpoints(final_filename="../x.pt"), checkpoints(final_filename="x.pt")
    ),
    "weights as code": value(
        "path", "is imported next time", checkpoints(final_filename="x.py"), checkpoints(final_filename="x.pt")
    ),
    "weights by a prefix": value(
        "path", "the name climbs out", checkpoints(file_prefix="$'.' + './x'"), checkpoints(file_prefix="x")
    ),
    "weights by a metric": value(
        "path", "its name is in the file's", checkpoints(key_metric_name="a/../../x"), checkpoints(key_metric_name="a")
    ),
    "images beside their patch": value("path", "the patch's name climbs out", saver(patch_index="x/../../y"), saver()),
    "event files by a comment": value(
        "path",
        "the comment climbs out of the default folder",
        {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "@output_dir", "comment": "/../../x"},
        {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": "@output_dir", "comment": "x"},
    ),
    "event files anywhere by null": value(
        "write", "means the working folder", {"_target_": "torch.utils.tensorboard.SummaryWriter", "log_dir": None}
    ),
    "a cache": value(
        "write",
        "writes anywhere",
        {"_target_": "monai.data.PersistentDataset", "data": [], "cache_dir": "$'/e' + 'tc'"},
        {"_target_": "monai.data.PersistentDataset", "data": [], "cache_dir": _MAPS},
    ),
    "images as code": value("path", "is imported next time", saver(output_ext=".py"), saver(output_ext=".nii.gz")),
    "images by an end": value(
        "path", "the end of the name climbs out", saver(output_postfix="/../../x"), saver(output_postfix="x")
    ),
    "images beside their like": value(
        "path", "goes as far up as this is deep", saver(data_root_dir="a/b/c"), saver(data_root_dir="")
    ),
    "weights from anywhere": value(
        "path",
        "reads any file",
        {"_target_": "monai.handlers.CheckpointLoader", "load_path": "$'/e' + 'tc/x.pt'", "load_dict": {}},
        {
            "_target_": "monai.handlers.CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {},
        },
    ),
    "a datalist from anywhere": value(
        "path",
        "reads any JSON file, whose texts end in the results",
        {"_target_": "monai_anomaly.data.load_datalist", "datalist": "$'/e' + 'tc/x.json'", "section": "x"},
        {"_target_": "monai_anomaly.data.load_datalist", "datalist": "$@dataset_dir + '/x.json'", "section": "x"},
    ),
    "a home": value("path", "reads what is private", "~/.ssh", "ssh"),
}


def steps(**given: Any) -> dict[str, Any]:
    """A run of another bundle, as the pipelines of ours have it."""
    step = {"configs": ["train"], "settings": {"max_epochs": 1}}
    own = {"bundle": "ae", "output_dir": "@output_dir", "settings": {"seed": 0}, "steps": {"first": step}}
    return {"_target_": "monai_anomaly.engines.BundleSteps", **own, **given}


def step(**given: Any) -> dict[str, Any]:
    """One step of such a run."""
    return steps(steps={"first": {"configs": ["train"], **given}})


_CODE = "$'$' + '__import__(1)'"
_SETTINGS = {"_target_": "monai_anomaly.handlers.TrainedSettings", "defaults": {"a": 1}, "path": "models/model.pt"}

STEPS = {
    "an argument of the workflow": value(
        "steps", "a logging configuration of one's own", steps(settings={"logging_file": "docs/a.txt"}), steps()
    ),
    "an argument of the workflow in a step": value(
        "steps", "the same", step(settings={"meta_file": "docs/a.txt"}), step(settings={"max_epochs": 1})
    ),
    "a text that becomes code": value(
        "steps", "the other bundle evaluates it", steps(settings={"seed": _CODE}), steps()
    ),
    "a text of a step": value(
        "steps", "the other bundle evaluates it", step(settings={"seed": _CODE}), step(settings={"seed": 1})
    ),
    "a text by reference": values(
        "steps",
        "the other bundle evaluates it",
        {"a": _CODE, "extra": steps(settings={"seed": "@a"})},
        {"a": 1, "extra": steps(settings={"seed": "@a"})},
    ),
    "a text in a list": values(
        "steps",
        "the other bundle evaluates it",
        {"a": [1, _CODE], "extra": steps(settings={"seed": "@a"})},
        {"a": [1, 2], "extra": steps(settings={"seed": "@a"})},
    ),
    "a text cut out": value(
        "steps", "begins with a dollar", steps(settings={"seed": "$'a$1'[1:]"}), steps(settings={"seed": "a$1"})
    ),
    "a text cut out of settings of weights": values(
        "steps",
        "begins with a dollar",
        {"known": _SETTINGS, "extra": steps(settings={"seed": "$@known['a'][1:]"})},
        {"known": _SETTINGS, "extra": steps(settings={"seed": "$@known['a'] // 2", "max_epochs": "$@known['a']"})},
    ),
    "a text split off": value(
        "steps", "begins with a dollar", steps(settings={"seed": "$'a b$1'.split('b')[1]"}), steps()
    ),
    "a text from a file": values(
        "steps",
        "nobody has read it",
        {
            "imports": ["$import os", "$import json"],
            "extra": steps(settings={"seed": "$json.load(open('docs/x.json'))"}),
        },
        {"extra": steps(settings={"seed": "$len(@train#dataset)"})},
    ),
    "items from a file": value(
        "steps",
        "nobody has read them",
        steps(
            settings={
                "seed": {"_target_": "monai_anomaly.data.load_datalist", "datalist": "docs/x.json", "section": "a"}
            }
        ),
        steps(settings={"seed": {"a": 1}}),
    ),
    "another target": value(
        "target",
        "replaces a part of the other bundle",
        steps(settings={"network_def#_target_": "os.system"}),
        steps(settings={"seed": 1}),
    ),
    "settings that are made": value("steps", "their names are unknown", steps(settings="$dict(run=1)"), steps()),
    "a config from elsewhere": value(
        "steps", "was not linted", step(configs=["../../../docs/x"]), step(configs=["train", "evaluate"])
    ),
    "a config put together": value(
        "steps", "was not linted", step(configs="$['.' + './x']"), step(configs="$['train'] + ['evaluate']")
    ),
    "an option for the builder": value(
        "steps", "is read as an option", steps(bundle="--output-dir=/etc"), steps(bundle="ae")
    ),
    "an option for the folds": value(
        "steps",
        "the processes of the folds read it as another config file",
        {
            "_target_": "monai_anomaly.engines.FoldRuns",
            "output_dir": "@output_dir",
            "num_folds": 2,
            "run_id": "--config_file=x",
        },
        {
            "_target_": "monai_anomaly.engines.FoldRuns",
            "output_dir": "@output_dir",
            "num_folds": 2,
            "run_id": "run_fold",
        },
    ),
    "another folder": value("write", "is written into", steps(output_dir="$'/e' + 'tc'"), steps(output_dir=_MAPS)),
    "a result elsewhere": value(
        "write", "decides what is run", step(results=["/etc/x"]), step(results=["models/model.pt"])
    ),
}
