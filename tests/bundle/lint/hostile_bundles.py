# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""Ways to make a bundle do harm: what each plants, by which rule the linter must find it, and a harmless twin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from small_bundle import EVALUATE, INFERENCE, META, MULTI_GPU, NETWORK, TRAIN, put


class Hostile(NamedTuple):
    """One kind of hostile bundle.

    Args:
        reason: what it would do.
        rule: the rule that must find it.
        file: the file in which it must be found.
        plant: puts it into a faultless bundle.
        twin: puts something of the same form, without the harm, into one; None where there is no such thing.
    """

    reason: str
    rule: str
    file: str
    plant: Callable[[Path], Any]
    twin: Callable[[Path], Any] | None = None


def value(rule: str, reason: str, hostile: Any, harmless: Any = None) -> Hostile:
    """A value at an id of ``train.json`` that nothing else reads."""
    return Hostile(
        reason,
        rule,
        TRAIN,
        lambda bundle: put(bundle, TRAIN, "extra", hostile),
        None if harmless is None else lambda bundle: put(bundle, TRAIN, "extra", harmless),
    )


def values(rule: str, reason: str, hostile: dict[str, Any], harmless: dict[str, Any] | None = None) -> Hostile:
    """Several ids of ``train.json``."""

    def plant(table: dict[str, Any]) -> Callable[[Path], None]:
        def write(bundle: Path) -> None:
            for key, content in table.items():
                put(bundle, TRAIN, key, content)

        return write

    return Hostile(reason, rule, TRAIN, plant(hostile), None if harmless is None else plant(harmless))


def part(
    reason: str, target: str, rule: str = "target", harmless: dict[str, Any] | None = None, **given: Any
) -> Hostile:
    """A component that is one of the run's handlers."""
    return value(rule, reason, {"_target_": target, **given}, harmless)


_IMPORTS = [
    *("$import os", "$import glob", "$import json", "$import torch", "$import monai_anomaly"),
    "$import ignite.distributed as idist",
]


def expression(reason: str, text: str, harmless: str, rule: str = "expression") -> Hostile:
    """A text behind ``$``, with every module imported that it may need."""
    return values(rule, reason, {"imports": _IMPORTS, "extra": text}, {"imports": _IMPORTS, "extra": harmless})


def lambdad(func: Any) -> dict[str, Any]:
    """MONAI's transform that calls what it is given."""
    return {"_target_": "monai.transforms.Lambdad", "keys": "image", "func": func}


def loader(**given: Any) -> dict[str, Any]:
    """A component whose arguments MONAI locates by name."""
    return {"_target_": "monai.transforms.LoadImaged", "keys": "image", **given}


def in_file(rule: str, reason: str, file: str, identifier: str, hostile: Any, harmless: Any) -> Hostile:
    """A value in another file than ``train.json``."""
    return Hostile(
        reason,
        rule,
        file,
        lambda bundle: put(bundle, file, identifier, hostile),
        lambda bundle: put(bundle, file, identifier, harmless),
    )


SHELL = "subprocess.getoutput"
ACTIVATION = {"_target_": "torch.nn.ReLU"}

#: Components: what they name runs code, reads pickles, writes, downloads or connects.
TARGETS = {
    "a shell": part("runs a command", SHELL, harmless=ACTIVATION, cmd="id"),
    "a short name": part("eval, by the name that pydoc finds", "eval", harmless=ACTIVATION),
    "a module's module": part("os.system, through torch", "torch.os.system", command="id"),
    "an imported function": part("torch.load, through monai", "monai.data.utils.torch.load", f="x"),
    "a method": part("an unbound method on any object", "torch.nn.Linear.forward", harmless=ACTIVATION),
    "a dunder": part("globals of a module", "monai.transforms.Compose.__init__.__globals__"),
    "code in the bundle": part("imports a file beside the config", "scripts.net.Network"),
    "an unpickler": part("pickle.loads", "monai.data.utils.pickle.loads", data="x"),
    "torch.load": part("unpickles a file", "torch.load", f="models/x.png", weights_only=False),
    "torch.jit.load": part("runs a TorchScript program that was not linted", "torch.jit.load", f="docs/x.png"),
    "torch.package": part("imports code from an archive", "torch.package.PackageImporter", file_or_buffer="docs/x.png"),
    "torch.hub": part("downloads and runs a repository", "torch.hub.load", repo_or_dir="a/b", model="c"),
    "a compiler": part("compiles and loads C++", "torch.utils.cpp_extension.load", name="x", sources=["docs/x.txt"]),
    "a library of operators": part("loads machine code", "torch.ops.load_library", path="docs/x.png"),
    "numpy.load": part("unpickles a file", "numpy.load", file="docs/x.png"),
    "functools.partial": part("calls anything later", "functools.partial", func="os.system"),
    "another bundle": part("runs a config that was not linted", "monai.bundle.run", config_file="docs/x.json"),
    "a config parser": part("evaluates texts of its own", "monai.bundle.ConfigParser", config={"a": 1}),
    "a command of MONAI": part("runs a command", "monai.utils.run_cmd", cmd_list=["id"]),
    "an importer of MONAI": part("imports any module", "monai.utils.optional_import", module="x"),
    "Auto3DSeg": part("unpickles an algorithm", "monai.auto3dseg.algo_from_pickle", pkl_filename="docs/x.png"),
    "nnU-Net": part("runs commands", "monai.apps.nnunet.nnUNetV2Runner", input_config="docs/x.json"),
    "a federated client": part("reads configs of its own", "monai.fl.client.MonaiAlgo", bundle_root="docs"),
    "a download": part("fetches a file", "monai.apps.download_url", url="x", filepath="configs/train.json"),
    "a data set of MONAI": part("downloads and extracts", "monai.apps.DecathlonDataset", root_dir="configs"),
    "a database of pickles": part("MONAI reads it by pickle", "monai.data.LMDBDataset", cache_dir="docs"),
    "a table on the network": part("pandas reads addresses", "monai.data.CSVDataset", src="docs/x.csv"),
    "a transform by name": part(
        "imports torchvision, which the working folder may hold",
        "monai.transforms.TorchVisiond",
        name="x",
        keys="image",
    ),
    "a mapping of files": part("writes JSON anywhere", "monai.transforms.WriteFileMappingd", keys="image"),
    "a perceptual loss": part("downloads weights", "monai.losses.PerceptualLoss", spatial_dims=2),
    "a network that downloads": part(
        "downloads weights unless told not to", "monai.networks.nets.MILNet", num_classes=2
    ),
    "a network that downloads by default": part(
        "downloads weights unless told not to",
        "monai.networks.nets.ResNetFeatures",
        "download",
        {"_target_": "monai.networks.nets.ResNetFeatures", "model_name": "resnet10", "pretrained": False},
        model_name="resnet10",
    ),
    "a network told to download": part(
        "downloads weights",
        "monai.networks.nets.DenseNet121",
        "download",
        {"_target_": "monai.networks.nets.DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 1},
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        pretrained=True,
    ),
    "a metric that downloads": part("downloads a network", "ignite.metrics.FID"),
    "a tracking server": part("sends results away", "monai.handlers.MLFlowHandler", tracking_uri="x"),
    "a logger that connects": part("sends results away", "ignite.handlers.WandBLogger"),
    "a metric that calls": part("calls anything with any arguments", "ignite.metrics.MetricsLambda", f=SHELL),
    "an engine of Ignite": part("calls anything", "ignite.engine.Engine", process_function="@network"),
    "a saver of Ignite": part(
        "saves under the name it is called with", "ignite.handlers.DiskSaver", dirname="@output_dir"
    ),
    "an array transform that saves": part("SaveImage takes a file name when called", "monai.transforms.SaveImage"),
    "a function that calls": part(
        "calls anything with a list of arguments", "monai.transforms.apply_transform", data=[]
    ),
    "an adaptor": part("calls anything with named arguments", "monai.transforms.adaptor", function="@network"),
    "parallel calls": part("calls anything with any arguments", "torch.nn.parallel.parallel_apply", modules=[]),
    "a tensor with a file name": part("SaveImaged believes it", "monai.data.MetaTensor", x=[0.0]),
    "TensorRT": part("loads machine code that was not linted", "monai.networks.trt_compiler.TrtCompiler", model="x"),
    "a socket": part("connects", "torch.distributed.TCPStore", host_name="x", port=1),
    "a log file": part("writes anywhere", "logging.FileHandler", filename="x.py"),
    "a writer of ours": part(
        "writes torchvision/transforms.py, which is imported later", "monai_anomaly.utils.write_text"
    ),
    "a writer of ours, out of the folder": part("writes ../../x", "monai_anomaly.utils.write_json", path="x", value=1),
    "a converter of ours": part(
        "writes a datalist anywhere", "monai_anomaly.data.convert_folder", folder="/", output="x"
    ),
    "a phantom": part("writes a data set anywhere", "monai_anomaly.data.make_phantom", folder="x"),
    "steps of ours": part("runs texts as configurations", "monai_anomaly.engines.run_steps", job={}),
    "our command line": part("does what our commands do", "monai_anomaly.bundle.cli.main", arguments=[]),
    "our benchmark": part("starts processes", "monai_anomaly.benchmark.runner.run_matrix", matrix="x"),
    "another package's name": part("a package that only looks like ours", "monai_anomaly_extras.Network"),
    "another alphabet": part("looks like monai.transforms", "monai.trаnsforms.Compose"),
    "a reader": value("target", "MONAI locates it and calls it", loader(reader=SHELL), loader(reader="ITKReader")),
    "a writer by name": value(
        "target",
        "MONAI locates it and calls it",
        {"_target_": "monai.transforms.SaveImaged", "keys": "pred", "output_dir": "@output_dir", "writer": SHELL},
        {"_target_": "monai.transforms.SaveImaged", "keys": "pred", "output_dir": "@output_dir", "writer": "ITKWriter"},
    ),
    "a merger": value(
        "target",
        "MONAI locates it, and it writes files of its own",
        {"_target_": "monai.inferers.PatchInferer", "splitter": None, "merger_cls": "ZarrAvgMerger"},
        {"_target_": "monai.inferers.PatchInferer", "splitter": None, "merger_cls": "AvgMerger"},
    ),
    "pickles in data": value("pickle", "a data file runs code", loader(allow_pickle=True), loader(allow_pickle=False)),
    "weights in full": value(
        "pickle",
        "a cached file runs code",
        {"_target_": "monai.data.PersistentDataset", "data": [], "cache_dir": "@output_dir", "weights_only": False},
        {"_target_": "monai.data.PersistentDataset", "data": [], "cache_dir": "@output_dir", "weights_only": True},
    ),
}

_TRAINER = {
    "_target_": "monai.engines.SupervisedTrainer",
    "device": "@device",
    "max_epochs": 1,
    "train_data_loader": [],
    "network": "@network",
    "optimizer": None,
    "loss_function": None,
}

_CHECK = {"_target_": "monai_anomaly.bundle.options.check_options"}

#: Places where a target or an expression can hide.
PLACES = {
    "a transform that calls": value(
        "target", "calls it with every image", lambdad({"_target_": SHELL, "_mode_": "callable"}), lambdad(ACTIVATION)
    ),
    "a list in a list": value("target", "is made all the same", [[{"x": [{"_target_": SHELL}]}]], [[{"x": []}]]),
    "a collate function": value(
        "target",
        "runs in every worker",
        {"_target_": "monai.data.DataLoader", "dataset": [], "collate_fn": {"_target_": SHELL, "_mode_": "callable"}},
        {
            "_target_": "monai.data.DataLoader",
            "dataset": [],
            "collate_fn": {"_target_": "monai.data.list_data_collate", "_mode_": "callable"},
        },
    ),
    "a debugger": value(
        "mode", "starts a debugger", {**ACTIVATION, "_mode_": "debug"}, {**ACTIVATION, "_mode_": "default"}
    ),
    "a debugger by a flag": value("mode", "starts a debugger", {**ACTIVATION, "_debug_": True}),
    "a requirement": value("expression", "is evaluated first", {**ACTIVATION, "_requires_": ["$eval('1')"]}),
    "a condition": value(
        "expression", "is evaluated", {**ACTIVATION, "_disabled_": "$eval('1')"}, {**ACTIVATION, "_disabled_": "$1 > 0"}
    ),
    "a description": value("expression", "is evaluated, too", {**ACTIVATION, "_desc_": "$eval('1')"}),
    "a target from an expression": value("target", "is known at run time only", {"_target_": "$'os.' + 'system'"}),
    "a target by reference": value("target", "is known at run time only", {"_target_": "@device"}),
    "a target by macro": value("target", "is known at run time only", {"_target_": "%imports::0"}),
    "an overlay's target": in_file(
        "target", "replaces one target", EVALUATE, "network_def#_target_", SHELL, NETWORK["_target_"]
    ),
    "an overlay that adds": in_file(
        "target", "is merged in", MULTI_GPU, "+network_def", {"_target_": SHELL}, {"spatial_dims": 2}
    ),
    "an overlay of any name": Hostile(
        "is laid over train.json by whoever names it",
        "expression",
        "configs/more.json",
        lambda bundle: (bundle / "configs/more.json").write_text('{"in_channels": "$eval(\'1\')"}'),
        lambda bundle: (bundle / "configs/more.json").write_text('{"in_channels": 3}'),
    ),
    "a config among the documents": Hostile(
        "is a config to whoever names it",
        "live-data",
        "docs/more.json",
        lambda bundle: (bundle / "docs/more.json").write_text('{"run": "$eval(\'1\')"}'),
        lambda bundle: (bundle / "docs/more.json").write_text('{"run": "first"}'),
    ),
    "the metadata": in_file("live-data", "joins the config as _meta_", META, "task", "$eval('1')", "eval"),
    "a component in the metadata": in_file(
        "live-data", "is instantiated", META, "eval_metrics", {"_target_": SHELL}, {}
    ),
    "a key": values("key", "relative ids paste keys into code", {"y'][eval('1')]#": {"w": 1, "v": "$[@::w]"}}),
    "a quoted reference": expression("MONAI replaces it as text, quotes and all", "$'@or'", "$'or'"),
    "a writer for later": value(
        "path",
        "each image's text becomes a folder of event files",
        lambdad({"_target_": "torch.utils.tensorboard.SummaryWriter", "_mode_": "callable"}),
        lambdad({"_target_": "monai.transforms.Identity"}),
    ),
    "a reader for later": value(
        "path",
        "each image's text becomes a path",
        lambdad({"_target_": "monai_anomaly.data.load_datalist", "section": "x", "_mode_": "callable"}),
    ),
    "a list that becomes arguments": value(
        "path",
        "calls what it holds with the file's own texts",
        {"_target_": "monai.transforms.Compose", "transforms": [], "unpack_items": True},
        {"_target_": "monai.transforms.Compose", "transforms": [], "unpack_items": False},
    ),
    "options of a compiler": value(
        "path",
        "name the program that compiles",
        {**_TRAINER, "compile": True, "compile_kwargs": {"options": {"cpp.cxx": "sh"}}},
        {**_TRAINER, "compile": False},
    ),
    "a nested import": value("import", "reaches an import by a macro's copy", ["@extra#imports#0"]),
    "a key that is a file": expression("the checkpoint's name", "${'../x': @network}", "${'model': @network}"),
    "a shape that is code": in_file(
        "metadata",
        "MONAI evaluates shapes",
        META,
        "network_data_format/inputs/image/spatial_shape",
        ["exit()"],
        ["16*n", 64],
    ),
    "a macro to another file": value("macro", "reads what was not linted", "%/etc/x.json::a", "%network_def"),
    "a macro up and out": value(
        "macro", "reads what was not linted", "%configs/../../x.json", "%configs/train.json::network_def"
    ),
    "a macro to an import": value("import", "hands out a module", "%imports::0"),
    "a module by reference": value("import", "hands out a module", "@imports#0", "@network_def"),
    "a module by a relative reference": value("import", "hands out a module", ["@::::imports::0"]),
    "an import of another module": in_file(
        "import",
        "runs the module",
        TRAIN,
        "imports",
        [*_IMPORTS, "$import subprocess"],
        _IMPORTS,
    ),
    "an import of a bundle's folder": value("import", "runs a file beside the config", "$from scripts import net"),
    "an import that goes on": value("import", "runs what follows", "$import os; os.system('id')"),
    "a start without a check": in_file(
        "start",
        "nobody looks where MONAI's writers write",
        TRAIN,
        "initialize",
        ["$monai.utils.set_determinism(seed=0)"],
        ["@check_options"],
    ),
    "a check that comes too late": in_file(
        "start", "the first has written", TRAIN, "initialize", ["$1", "@check_options"], ["@check_options", "$1"]
    ),
    "a check that is off": in_file(
        "start", "nobody makes it", TRAIN, "check_options", {**_CHECK, "_disabled_": True}, _CHECK
    ),
    "a check that is left to be called": in_file(
        "start", "nobody calls it", TRAIN, "check_options", {**_CHECK, "_mode_": "callable"}, _CHECK
    ),
    "a check of other things": in_file(
        "start",
        "is another component",
        TRAIN,
        "check_options",
        ACTIVATION,
        _CHECK,
    ),
    "a check that an overlay leaves out": in_file(
        "start", "replaces what comes first", MULTI_GPU, "initialize", ["$1"], ["@check_options", "$1"]
    ),
    "inference alone": in_file("expression", "only inference.json is hostile", INFERENCE, "extra", "$eval('1')", "$1"),
}
