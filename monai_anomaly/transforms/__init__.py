# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from .anatomy.foreground import (
    AboveMinimum,
    AboveMinimumd,
    DifferentFromBackground,
    DifferentFromBackgroundd,
)
from .anatomy.lungs import (
    LungMask,
    LungMaskd,
)
from .labels import (
    NOT_ANNOTATED,
    PrepareLabel,
    PrepareLabelD,
    PrepareLabeld,
    PrepareLabelDict,
    ResizeLabelD,
    ResizeLabeld,
    ResizeLabelDict,
)
from .loading import LoadImageChecked, LoadImageCheckedD, LoadImageCheckedd, LoadImageCheckedDict
from .postprocessing import ScoreMapD, ScoreMapd, ScoreMapDict
from .saving import SaveImageMapD, SaveImageMapd, SaveImageMapDict, read_map, resize_to_source
from .scaling import ScaleSourceRange, ScaleSourceRangeD, ScaleSourceRanged, ScaleSourceRangeDict
from .synthesis.anat_paste import (
    RandAnatPaste,
    RandAnatPasted,
)
from .synthesis.anomaly import (
    RandAnomaly,
)
from .synthesis.batch import (
    BatchAnomaly,
)
from .synthesis.coarse_noise import (
    RandCoarseNoise,
    RandCoarseNoised,
)
from .synthesis.corruptors import (
    AlphaBlend,
    IntensityChange,
    PoissonBlend,
    RadialWarp,
)
from .synthesis.cut_paste import (
    RandCutPaste,
    RandCutPaste3Way,
    RandCutPaste3Wayd,
    RandCutPasted,
    RandCutPasteScar,
    RandCutPasteScard,
    RandCutPasteUnion,
    RandCutPasteUniond,
)
from .synthesis.dictionary import (
    RandAnomalyd,
)
from .synthesis.draem import (
    RandPerlinTexture,
    RandPerlinTextured,
)
from .synthesis.interpolation import (
    RandFPI,
    RandFPId,
    RandPII,
    RandPIId,
)
from .synthesis.many_tasks import (
    ManyTasksAnomaly,
    RandFractalIntensity,
    RandFractalIntensityd,
    RandPoissonBlend,
    RandPoissonBlendd,
    RandSinkDeform,
    RandSinkDeformd,
    RandSmoothIntensity,
    RandSmoothIntensityd,
    RandSourceDeform,
    RandSourceDeformd,
    many_tasks,
    task_folds,
)
from .synthesis.mixture import (
    RandAnomalyMixture,
    RandAnomalyMixtured,
)
from .synthesis.nsa import (
    RandNSA,
    RandNSAd,
)
from .synthesis.placements import (
    CenterPlacement,
    FixedPlacement,
    ForegroundPlacement,
    UniformPlacement,
)
from .synthesis.plan import (
    Frame,
    Patch,
    Plan,
)
from .synthesis.shapes import (
    RandomBox,
    RandomDeformedShape,
    RandomRectangle,
)
from .synthesis.sources import (
    ImageSource,
    RandomSourceBox,
    SamePlace,
)

__all__ = [
    "AboveMinimum",
    "AboveMinimumd",
    "AlphaBlend",
    "BatchAnomaly",
    "CenterPlacement",
    "DifferentFromBackground",
    "DifferentFromBackgroundd",
    "FixedPlacement",
    "ForegroundPlacement",
    "Frame",
    "ImageSource",
    "IntensityChange",
    "LoadImageChecked",
    "LoadImageCheckedD",
    "LoadImageCheckedDict",
    "LoadImageCheckedd",
    "LungMask",
    "LungMaskd",
    "ManyTasksAnomaly",
    "NOT_ANNOTATED",
    "Patch",
    "Plan",
    "PoissonBlend",
    "PrepareLabel",
    "PrepareLabelD",
    "PrepareLabelDict",
    "PrepareLabeld",
    "RadialWarp",
    "RandAnatPaste",
    "RandAnatPasted",
    "RandAnomaly",
    "RandAnomalyMixture",
    "RandAnomalyMixtured",
    "RandAnomalyd",
    "RandCoarseNoise",
    "RandCoarseNoised",
    "RandCutPaste",
    "RandCutPaste3Way",
    "RandCutPaste3Wayd",
    "RandCutPasteScar",
    "RandCutPasteScard",
    "RandCutPasteUnion",
    "RandCutPasteUniond",
    "RandCutPasted",
    "RandFPI",
    "RandFPId",
    "RandFractalIntensity",
    "RandFractalIntensityd",
    "RandNSA",
    "RandNSAd",
    "RandPII",
    "RandPIId",
    "RandPerlinTexture",
    "RandPerlinTextured",
    "RandPoissonBlend",
    "RandPoissonBlendd",
    "RandSinkDeform",
    "RandSinkDeformd",
    "RandSmoothIntensity",
    "RandSmoothIntensityd",
    "RandSourceDeform",
    "RandSourceDeformd",
    "RandomBox",
    "RandomDeformedShape",
    "RandomRectangle",
    "RandomSourceBox",
    "ResizeLabelD",
    "ResizeLabelDict",
    "ResizeLabeld",
    "SamePlace",
    "SaveImageMapD",
    "SaveImageMapDict",
    "SaveImageMapd",
    "ScaleSourceRange",
    "ScaleSourceRangeD",
    "ScaleSourceRangeDict",
    "ScaleSourceRanged",
    "ScoreMapD",
    "ScoreMapDict",
    "ScoreMapd",
    "UniformPlacement",
    "many_tasks",
    "read_map",
    "resize_to_source",
    "task_folds",
]
