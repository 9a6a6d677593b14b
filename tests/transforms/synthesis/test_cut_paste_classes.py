# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

"""CutPaste for two and three classes, and its dictionary versions."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Lambdad
from scipy import stats

from monai_anomaly.transforms.synthesis.cut_paste import (
    RandCutPaste,
    RandCutPaste3Way,
    RandCutPaste3Wayd,
    RandCutPasted,
    RandCutPasteScar,
    RandCutPasteScard,
    RandCutPasteUnion,
    RandCutPasteUniond,
)


def unique_values(size):
    """An image in [0, 1] of which no two pixels are alike."""
    values = torch.from_numpy(np.random.RandomState(0).permutation(int(np.prod(size)))).float()
    return (values / values.max()).reshape(1, *size)


def drawn(result):
    (params,) = json.loads(result["params"])
    return params


def test_the_union_has_both_kinds_and_one_binary_label():
    transform = RandCutPasteUnion().set_random_state(0)
    results = [transform(unique_values((40, 56))) for _ in range(120)]
    assert {result["target"] for result in results} == {1}
    tasks = Counter(result["task"] for result in results)
    assert set(tasks) == {1, 2}
    assert stats.binomtest(tasks[1], 120).pvalue > 0.01
    areas = {task: np.mean([float(r["label"].mean()) for r in results if r["task"] == task]) for task in (1, 2)}
    assert areas[1] > 0.05 > 0.01 > areas[2]
    assert {result["label"].unique().numel() for result in results} == {2}


def test_the_union_leaves_some_clean():
    transform = RandCutPasteUnion(p_clean=0.5).set_random_state(0)
    targets = [transform(unique_values((16, 16)))["target"] for _ in range(200)]
    assert stats.binomtest(sum(targets), 200).pvalue > 0.01


def test_three_samples_of_three_classes_from_one_image():
    image = unique_values((40, 56))
    normal, patch, scar = RandCutPaste3Way(jitter=0).set_random_state(0)(image)
    assert [sample["task"] for sample in (normal, patch, scar)] == [0, 1, 2]
    assert [sample["target"] for sample in (normal, patch, scar)] == [0, 1, 1]
    assert torch.equal(normal["image"], image)
    assert not normal["label"].any()
    for sample in (patch, scar):
        assert torch.equal(sample["clean"], image)
        assert torch.equal(sample["label"][0] == 1, (sample["image"] != image).any(0))
    assert "upright" in drawn(scar)
    assert "upright" not in drawn(patch)


def test_a_sample_that_did_not_change_is_of_the_class_normal():
    samples = RandCutPaste3Way()(torch.zeros(1, 20, 20))
    assert [sample["task"] for sample in samples] == [0, 0, 0]


def test_a_loader_makes_three_samples_of_each_image():
    images = torch.stack([unique_values((24, 24)) + row for row in range(4)])
    steps = Compose(
        [
            RandCutPaste3Wayd("image", value_range=(0, 5)).set_random_state(0),
            Lambdad("image", lambda x: 10 * x),  # later transforms see each sample by itself
        ]
    )
    data = [{"image": image, "name": str(row)} for row, image in enumerate(images)]
    batches = list(DataLoader(Dataset(data, steps), batch_size=2))
    assert [tuple(batch["image"].shape) for batch in batches] == [(6, 1, 24, 24)] * 2
    assert batches[0]["task"].tolist() == [0, 1, 2, 0, 1, 2]
    assert batches[1]["name"] == ["2", "2", "2", "3", "3", "3"]
    torch.testing.assert_close(batches[1]["image"][::3], 10 * images[2:])


def test_the_three_samples_share_nothing():
    image = MetaTensor(unique_values((24, 24)), meta={"filename_or_obj": "a.png"})
    data = {"image": image, "mask": torch.zeros(1, 24, 24), "notes": ["x"]}
    transform = RandCutPaste3Wayd("image", task_key="class", foreground_key="mask").set_random_state(0)
    first, second, _ = transform(data)
    first["mask"] += 1
    first["notes"].append("y")
    assert not second["mask"].any()
    assert second["notes"] == ["x"] == data["notes"]
    assert (first["class"], second["class"]) == (0, 1)
    assert second["image"].meta["filename_or_obj"] == "a.png"
    assert torch.equal(data["image"], image)


def test_a_missing_image_passes_or_is_named():
    sample = {"other": 1}
    assert RandCutPaste3Wayd("image", allow_missing_keys=True)(sample) == [sample]
    with pytest.raises(KeyError, match="image"):
        RandCutPaste3Wayd("image")(sample)
    with pytest.raises(ValueError, match='key "image".*2D'):
        RandCutPaste3Wayd("image")({"image": torch.zeros(1, 4, 4, 4)})


def test_dictionary_versions_equal_the_array_versions():
    image = unique_values((32, 40))
    for maker, array in (
        (RandCutPasted, RandCutPaste),
        (RandCutPasteScard, RandCutPasteScar),
        (RandCutPasteUniond, RandCutPasteUnion),
    ):
        sample = maker("image", jitter=0.05).set_random_state(4)({"image": image})
        result = array(jitter=0.05).set_random_state(4)(image)
        assert torch.equal(sample["image"], result["image"])
        assert sample["params"] == result["params"]
    samples = RandCutPaste3Wayd().set_random_state(4)({"image": image})
    results = RandCutPaste3Way().set_random_state(4)(image)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(samples, results, strict=True))
