# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0
"""A MONAI Deploy application: an image file or a DICOM series through a bundle, the anomaly map as NIfTI.

``python app.py BUNDLE IMAGE OUTPUT`` needs monai-anomaly, monai-deploy-app-sdk 4.0.0, highdicom and SimpleITK.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, IOType
from monai.deploy.core.domain import Image
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from monai.deploy.operators.monai_bundle_inference_operator import IOMapping, MonaiBundleInferenceOperator
from numpy import ndarray
from operators import AnomalyMapWriterOperator, ImageFileLoaderOperator


class AnomalyApp(Application):
    """Image in, map out.

    Args:
        bundle: folder of the bundle, with ``models/model.pt``.
        image: an image file, or a folder of DICOM files of one series.
        output: file of the map.
    """

    def __init__(self, bundle: Path, image: Path, output: Path) -> None:
        self.bundle, self.image, self.output = bundle, image, output
        super().__init__()

    def compose(self) -> None:
        """Connect loader, bundle and writer."""
        infer = MonaiBundleInferenceOperator(
            self,
            # models are loaded from the bundle's folder, not from the context's
            app_context=AppContext({"model": str(self.bundle / "no_model_here")}),
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", ndarray, IOType.IN_MEMORY)],
            bundle_path=self.bundle,
            name="infer",
        )
        writer = AnomalyMapWriterOperator(self, output_path=self.output, name="writer")
        loader = self._loader()
        self.add_flow(loader, infer, {("image", "image")})
        self.add_flow(loader, writer, {("image", "image")})
        self.add_flow(infer, writer, {("pred", "pred")})

    def _loader(self) -> Any:
        once = CountCondition(self, 1)
        if self.image.is_file():
            return ImageFileLoaderOperator(self, once, input_path=self.image, name="loader")
        files = DICOMDataLoaderOperator(self, once, input_folder=self.image, name="files")
        series = DICOMSeriesSelectorOperator(self, name="series")
        volume = DICOMSeriesToVolumeOperator(self, name="volume")
        self.add_flow(files, series, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(series, volume, {("study_selected_series_list", "study_selected_series_list")})
        return volume


def main() -> None:
    """Run the application."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="folder of the bundle, with models/model.pt")
    parser.add_argument("image", type=Path, help="image file, or folder of one DICOM series")
    parser.add_argument("output", type=Path, help="map to write, .nii.gz")
    options = parser.parse_args()
    AnomalyApp(options.bundle.resolve(), options.image.resolve(), options.output.resolve()).run()


if __name__ == "__main__":
    main()
