# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Export every bundle to every file format, and write what comes out as a table.

Makes its environment from PyPI, once: PyTorch, this package with its extra ``onnx``, and ONNX Runtime. In it each
bundle, with its default settings and random weights, goes through the code of ``python -m monai_anomaly.bundle
export``: a file counts when its maps of radiographs are those of the network, for one image, some and several. The
exit status is 1 when a check fails. ``--write`` puts the table into the documentation.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from environment import (
    PASSED,
    ROOT,
    Results,
    finish,
    open_checks,
    parse_options,
    read_results,
    run_inside,
    table,
    write_results,
)

STEPS = [["torch==2.13.0"], ["-c", str(ROOT / "constraints.txt"), f"{ROOT}[onnx]", "onnxruntime"]]
FORMATS = ("torchscript", "onnx", "pt2")
PAGE = ROOT / "docs" / "results" / "export.md"
TEXT = """# Exported networks

Each bundle's map network, with its default settings and random weights, as TorchScript, ONNX (run by ONNX Runtime)
and PyTorch's `.pt2`: the largest difference of its maps from those of the network, as a share of the largest value, on
five radiographs of the embedded sample, one, four and five together; and the size of the file. At most 1e-4 passes;
where gradients make the map (`d2ue_*`), one value of a hundred may be up to 1e-2 away, because an activation of zero
lets rounding decide. All files take any number of images; the other axes are fixed.

```bash
python tools/consumers/export_table.py --write
```

{table}

How to export a bundle of your own: [](../guide/inference.md#export).
"""


def main() -> int:
    """Make the environment, or, inside it, export the bundles."""
    write = "--write" in sys.argv
    sys.argv = [word for word in sys.argv if word != "--write"]
    options = parse_options((__doc__ or "").partition("\n")[0], "export")
    if options.inside:
        return _run(options)
    status = run_inside(__file__, options, STEPS)
    if write and status == 0:
        shown = table(read_results(options.work_dir, False), options.bundles, FORMATS).replace(f"{PASSED}, ", "")
        PAGE.write_text(TEXT.format(table=shown), encoding="utf-8")
    return status


def _run(options: Any) -> int:
    results: Results = read_results(options.work_dir, options.again)
    options.work_dir.mkdir(parents=True, exist_ok=True)
    for name in options.bundles:
        network: Any = None
        for format in open_checks(results, name, FORMATS):
            try:
                network = network or _network(name)
                told = _export(network, format)
            except Exception as error:  # whatever a format or a library refuses is what the table is to show
                told = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            results.setdefault(name, {})[format] = told
            print(f"{name} {format}: {told}", flush=True)
            write_results(options.work_dir, results)
    return finish(results, options.bundles, FORMATS)


def _network(name: str) -> Any:
    """A bundle with random weights, those of its members apart from each other."""
    import torch

    from monai_anomaly.bundle.export import BundleNetwork, read_configuration

    bundle = ROOT / "bundles" / name
    with tempfile.TemporaryDirectory() as folder:
        network = read_configuration(bundle).get_parsed_content("network_def")
        draw = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=draw)
        torch.save(network.state_dict(), Path(folder) / "model.pt")
        return BundleNetwork(bundle, Path(folder) / "model.pt")


def _export(network: Any, format: str) -> str:
    from monai_anomaly.bundle.export import FORMATS as SUFFIXES

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        exported = network.export(format, Path(folder) / f"model{SUFFIXES[format]}")
        size = exported.path.stat().st_size / 2**20
    print(f"  {time.monotonic() - start:.0f} s", flush=True)
    return f"{PASSED}, {exported.difference:.0e}, {size:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
