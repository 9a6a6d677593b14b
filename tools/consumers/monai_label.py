# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Run every bundle in MONAI Label 0.8.5: its inference task, then its server over REST, and compare the maps.

Makes its environment from PyPI, once. In it each bundle is asked by MONAI Label's ``BundleInferTask`` for maps of a
PNG, of one slice and of a volume as NIfTI; then the server runs on the loopback with the sample app ``monaibundle`` and
all bundles in it, and each answers one request over REST. The file that comes back must be the map that the bundle
itself writes of the same image. Prints a table; the exit status is 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from environment import PASSED, ROOT, finish, open_checks, parse_options, read_results, run_inside, write_results

# MONAI Label asks for sam2, whose build needs a compiler and a second PyTorch, and is not needed here; and it leaves
# versions open that have gone on without it: pydicom-seg needs pydicom 2, numpymaxflow NumPy 1
STEPS = [
    ["torch==2.13.0", "torchvision"],
    ["monai==1.6.1", "numpy<2", "pydicom<3", "pynetdicom<3", "dicomweb-client<0.60", "pydicom-seg", "numpymaxflow"],
    ["--no-deps", "monailabel==0.8.5"],
    [
        *("bcrypt", "cachetools", "einops", "expiring_dict", "expiringdict", "fastapi", "filelock", "girder-client"),
        *(
            "google-auth",
            "httpx",
            "lmdb",
            "ninja",
            "passlib",
            "psutil",
            "pydantic-settings",
            "pyjwt",
            "pynrrd",
            "python-dotenv",
        ),
        *("python-multipart", "requests", "requests-toolbelt", "schedule", "scikit-learn", "shapely", "timeloop"),
        *("uvicorn", "watchdog", "numpy<2", "pydicom<3"),
    ],
    [f"{ROOT}[features,flows]", "numpy<2", "pydicom<3"],
]
# With a PyTorch that has no CUDA, PyPI's torchvision finds none of its operators and cannot be imported; MONAI Label
# uses two functions of it that draw pictures. Without the descriptions of the missing operators it can.
REPAIR = """
import importlib.util, pathlib
try:
    import torchvision
except RuntimeError:
    folder = pathlib.Path(importlib.util.find_spec("torchvision").origin).parent
    (folder / "_meta_registrations.py").write_text("")
"""
TASKS = {"picture": "PNG", "slice": "NIfTI slice", "volume": "NIfTI volume"}
REST = "REST, PNG"
_DEADLINE = 600.0  # of the server's start, in seconds


def main() -> int:
    """Make the environment, or, inside it, run the bundles."""
    options = parse_options((__doc__ or "").partition("\n")[0], "label")
    return _run(options) if options.inside else run_inside(__file__, options, STEPS, REPAIR)


def _run(options: argparse.Namespace) -> int:
    from served_bundles import make_images

    images = make_images(options.work_dir / "images")
    results = read_results(options.work_dir, options.again)

    def keep(name: str, check: str, said: str) -> None:
        results.setdefault(name, {})[check] = said
        write_results(options.work_dir, results)
        print(f"{name}, {check}: {said}", flush=True)

    for name in options.bundles:
        for kind, check in TASKS.items():
            if check in open_checks(results, name, [check]):
                keep(name, check, _said(_ask_task, name, kind, images[kind], options.work_dir))
    asked = [name for name in options.bundles if REST in open_checks(results, name, [REST])]
    if asked:
        with _Server(asked, images["picture"], options.work_dir) as server:
            for name in asked:
                keep(name, REST, _said(server.ask, name))
    return finish(results, options.bundles, [*TASKS.values(), REST])


def _said(check: Callable[..., str], *args: Any) -> str:
    try:
        return check(*args)
    except Exception as error:  # whatever MONAI Label raises is what the table says
        traceback.print_exc()
        return f"{type(error).__name__}: {error}".splitlines()[0][:120]


def _ask_task(name: str, kind: str, image: Path, work_dir: Path) -> str:
    from monailabel.tasks.infer.bundle import BundleInferTask
    from served_bundles import NOT_ASKED, VOLUME, make_bundle, reads_features

    if kind == VOLUME and reads_features(name):
        return NOT_ASKED
    bundle = make_bundle(name, work_dir / "bundles", kind)
    task = BundleInferTask(str(bundle), {})
    file, answer = task({"image": str(image), "device": "cpu", "logging": "WARNING"})
    try:
        return _judged(bundle, image, Path(file), answer, work_dir)
    finally:
        Path(file).unlink(missing_ok=True)


def _judged(bundle: Path, image: Path, file: Path, answer: dict[str, Any], work_dir: Path) -> str:
    import nibabel as nib
    import numpy as np
    from served_bundles import expected_map, verdict

    written = sorted(path.name for path in (bundle / "eval").rglob("*")) if (bundle / "eval").exists() else []
    if written:
        return f"wrote {written[0]} into the bundle"
    expected = expected_map(bundle, image, work_dir / "expected")
    picture: Any = nib.load(file)
    said = verdict(np.asarray(picture.dataobj), expected)
    if said == PASSED and expected.ndim == 3:
        wanted = nib.load(image).affine  # type: ignore[attr-defined]
        said = said if np.allclose(picture.affine, wanted, atol=1e-4) else f"affine {picture.affine.tolist()}"
    if said != PASSED:
        return said
    score = _expected_score(work_dir / "expected")
    if "score" not in answer:
        return PASSED + ", map only"
    return said if abs(answer["score"] - score) <= 1e-4 * abs(score) else f"score {answer['score']}, expected {score}"


def _expected_score(folder: Path) -> float:
    import csv

    with open(folder / "scores.csv", encoding="utf-8", newline="") as stream:
        return float(next(csv.DictReader(stream))["score"])


class _Server:
    """MONAI Label's server on the loopback with the bundles in its sample app; stopped on leaving."""

    def __init__(self, names: list[str], image: Path, work_dir: Path) -> None:
        self.names, self.image, self.work_dir = names, image, work_dir
        self.bundles: dict[str, Path] = {}

    def __enter__(self) -> _Server:
        from served_bundles import make_bundle

        app, studies = self.work_dir / "app", self.work_dir / "studies"
        for folder in (app, studies):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(Path(sys.prefix) / "monailabel" / "sample-apps" / "monaibundle", app)
        for name in self.names:
            made = make_bundle(name, self.work_dir / "bundles", "picture")
            self.bundles[name] = Path(shutil.move(made, app / "model" / name))
        studies.mkdir()
        shutil.copyfile(self.image, studies / self.image.name)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [
            sys.executable,
            "-m",
            "monailabel.main",
            "start_server",
            "--app",
            str(app),
            "--studies",
            str(studies),
        ]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        for key, value in {
            "models": ",".join(self.names),
            "zoo_source": "local",
            "auto_update_scoring": "false",
        }.items():
            command += ["--conf", key, value]
        self.log = open(self.work_dir / "server.log", "w", encoding="utf-8")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=dict(os.environ))
        self._wait()
        return self

    def _wait(self) -> None:
        end = time.monotonic() + _DEADLINE
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/info/", timeout=30) as reply:
                    offered = json.load(reply)["models"]
                break
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.__exit__()
                    raise RuntimeError(f"the server did not start: see {self.log.name}") from error
                time.sleep(1.0)
        print(f"the server offers {', '.join(sorted(offered))}", flush=True)

    def ask(self, name: str) -> str:
        """One inference over REST: the JSON and the file of its answer."""
        import requests

        url = f"{self.url}/infer/{name}"
        query = {"image": self.image.name.partition(".")[0], "output": "all"}
        reply = requests.post(url, params=query, data={"params": json.dumps({"device": "cpu"})}, timeout=_DEADLINE)
        if reply.status_code != 200:
            return f"status {reply.status_code}: {reply.text[:80]}"
        parts = _parts(reply)
        file = self.work_dir / f"answer{parts['suffix']}"
        file.write_bytes(parts["image"])
        return _judged(self.bundles[name], self.image, file, parts["params"], self.work_dir)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()


def _parts(reply: Any) -> dict[str, Any]:
    from requests_toolbelt import MultipartDecoder

    found: dict[str, Any] = {}
    for part in MultipartDecoder.from_response(reply).parts:
        header = part.headers[b"Content-Disposition"].decode()
        if 'name="params"' in header:
            found["params"] = json.loads(part.content)
        else:
            found |= {"image": part.content, "suffix": ".nii.gz" if ".nii.gz" in header else ".unknown"}
    return found


if __name__ == "__main__":
    sys.exit(main())
