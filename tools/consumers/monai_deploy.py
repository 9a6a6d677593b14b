# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""Run every bundle in MONAI Deploy App SDK 4.0.0, as examples/deploy/app.py does, and compare the maps.

Makes its environment from PyPI, once. In it each bundle goes through the SDK's own ``MonaiBundleInferenceOperator``
with a PNG, one slice and a volume as NIfTI, and a DICOM series; the NIfTI that comes out must be the map that the
bundle itself writes of the same image. Prints a table; the exit status is 1 when a check fails.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path
from typing import Any

from environment import ROOT, finish, open_checks, parse_options, read_results, run_inside, write_results

# the SDK imports highdicom, pydicom and SimpleITK with its operators but does not ask for them
STEPS = [
    ["torch==2.13.0"],
    ["monai==1.6.1", "monai-deploy-app-sdk==4.0.0", "highdicom", "SimpleITK"],
    [f"{ROOT}[features,flows]"],
]
SERIES = "series"
CHECKS = {"picture": "PNG", "slice": "NIfTI slice", "volume": "NIfTI volume", SERIES: "DICOM series"}


def main() -> int:
    """Make the environment, or, inside it, run the bundles."""
    options = parse_options((__doc__ or "").partition("\n")[0], "deploy")
    return _run(options) if options.inside else run_inside(__file__, options, STEPS)


def _run(options: argparse.Namespace) -> int:
    from served_bundles import make_images

    sys.path.insert(0, str(ROOT / "examples" / "deploy"))
    images = make_images(options.work_dir / "images")
    images[SERIES] = _write_series(images["volume"], options.work_dir / "images" / "series")
    results = read_results(options.work_dir, options.again)
    for name in options.bundles:
        for kind, check in CHECKS.items():
            if check not in open_checks(results, name, [check]):
                continue
            try:
                said = _check(name, kind, images, options.work_dir)
            except Exception as error:  # whatever the SDK raises is what the table says
                traceback.print_exc()
                said = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            results.setdefault(name, {})[check] = said
            write_results(options.work_dir, results)
            print(f"{name}, {check}: {said}", flush=True)
    return finish(results, options.bundles, list(CHECKS.values()))


def _check(name: str, kind: str, images: dict[str, Path], work_dir: Path) -> str:
    import nibabel as nib
    import numpy as np
    from app import AnomalyApp
    from served_bundles import NOT_ASKED, expected_map, make_bundle, reads_features, verdict

    like = "volume" if kind == SERIES else kind
    if like == "volume" and reads_features(name):
        return NOT_ASKED
    bundle = make_bundle(name, work_dir / "bundles", like)
    output = work_dir / "maps" / f"{name}_{kind}.nii.gz"
    output.unlink(missing_ok=True)
    AnomalyApp(bundle, images[kind], output).run()
    written: Any = nib.load(output)
    wanted = _affine_of(images[kind], kind)
    if not np.allclose(written.affine, wanted, atol=1e-4):
        return f"affine {written.affine.tolist()}, expected {wanted.tolist()}"
    expected = expected_map(bundle, images[like], work_dir / "expected")
    # NIfTI has three axes: of an image it is one slice
    return verdict(np.asarray(written.dataobj), expected, (*expected.shape, 1)[:3])


def _affine_of(image: Path, kind: str) -> Any:
    import nibabel as nib
    import numpy as np

    if kind == "picture":
        return np.eye(4)
    if kind != SERIES:
        return nib.load(image).affine  # type: ignore[attr-defined]
    # DICOM's axes run to the left and to the back. The pixels are square: the SDK exchanges rows' and columns' spacing
    return np.array([[-2.0, 0, 0, 10], [0, -2.0, 0, 20], [0, 0, 2.5, -30], [0, 0, 0, 1]])


def _write_series(volume: Path, folder: Path) -> Path:
    """The voxels of a NIfTI as DICOM files, one a slice."""
    import nibabel as nib
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    voxels = np.asarray(nib.load(volume).dataobj)  # type: ignore[attr-defined]
    for number in range(voxels.shape[2]):
        slice_uid = f"1.2.826.0.1.3680043.10.1.3.{number + 1}"
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = slice_uid
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.10.1.1", "1.2.826.0.1.3680043.10.1.2"
        dataset.PatientID, dataset.PatientName, dataset.Modality = "phantom", "phantom", "CT"
        dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, number + 1
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-10, -20, -30 + 2.5 * number]
        dataset.PixelSpacing, dataset.SliceThickness = [2.0, 2.0], 2.5
        dataset.Rows, dataset.Columns = voxels.shape[1], voxels.shape[0]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = voxels[:, :, number].T.astype("<i2").tobytes()
        dataset.save_as(folder / f"{number:03}.dcm", enforce_file_format=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
