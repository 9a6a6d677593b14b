# Copyright (c) monai_anomaly contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from audit_case import Sections, codes, mask, picture, save
from PIL import Image
from scipy.ndimage import zoom

from monai_anomaly.data.audit import AuditError, DatalistAudit
from monai_anomaly.data.audit import datalist_audit as audit_module
from monai_anomaly.data.datalist import load_datalist


def test_clean_data(audit: Callable[..., dict[str, Any]], sections: Sections) -> None:
    result = audit()
    assert result["errors"] == []
    assert codes(result["warnings"]) <= {"small_test_set", "trivial_baseline"}
    numbers = {"images": 6, "healthy": 6, "anomalous": 0, "unknown": 0, "patients": 6}
    assert result["counts"]["training"] == numbers
    assert result["counts"]["unlabeled"]["unknown"] == len(sections["unlabeled"])
    assert len(result["baselines"]) == 6
    for table in result["baselines"].values():
        assert len(table["testing"]["scores"]) == len(sections["testing"])
        assert 0 <= table["testing"]["image_auroc"] <= 1
    json.dumps(result, allow_nan=False)


def test_unnamed_patients(audit: Callable[..., dict[str, Any]], sections: Sections) -> None:
    assert "unnamed_patients" not in codes(audit()["warnings"])
    del sections["training"][1]["patient"]
    sections["testing"][0]["patient"] = ""
    (found,) = [warning for warning in audit()["warnings"] if warning["code"] == "unnamed_patients"]
    assert found["message"].startswith("2 of 14 images name no patient") and found["file"].endswith("1.png")


def test_mixed_bit_depth(audit: Callable[..., dict[str, Any]], sections: Sections, tmp_path: Path) -> None:
    assert "mixed_bit_depth" not in codes(audit()["warnings"])
    deep = sections["training"][2]["image"]
    Image.fromarray(picture(2).astype(np.uint16) * 200).save(tmp_path / deep)
    (found,) = [warning for warning in audit()["warnings"] if warning["code"] == "mixed_bit_depth"]
    assert found["message"].startswith("13 images have 8 bits") and "1 have not" in found["message"]
    assert found["file"] == str(tmp_path / deep)


def test_baseline_scores_belong_to_their_images(
    audit: Callable[..., dict[str, Any]], sections: Sections, tmp_path: Path
) -> None:
    result = audit()
    items = load_datalist(tmp_path / "datalist.json", "testing")
    pixels = [np.asarray(Image.open(item["image"]), dtype=float) for item in items]
    table = {name: result["baselines"][name]["testing"] for name in result["baselines"]}
    np.testing.assert_allclose(table["mean_intensity"]["scores"], [p.mean() for p in pixels], rtol=1e-6)
    np.testing.assert_allclose(table["contrast"]["scores"], [p.std() for p in pixels], rtol=1e-6)

    def laplacian(p: np.ndarray) -> np.ndarray:
        q = np.pad(p, 1, "symmetric")
        return q[2:, 1:-1] + q[:-2, 1:-1] + q[1:-1, 2:] + q[1:-1, :-2] - 4 * p

    np.testing.assert_allclose(table["sharpness"]["scores"], [laplacian(p).var() for p in pixels], rtol=1e-4)
    wins = [
        (a > b) + 0.5 * (a == b)
        for a, i in zip(table["contrast"]["scores"], items, strict=True)
        for b, j in zip(table["contrast"]["scores"], items, strict=True)
        if i["target"] > j["target"]
    ]
    assert table["contrast"]["image_auroc"] == pytest.approx(np.mean(wins))


def test_slice_position_only_where_every_item_has_it(audit: Callable[..., dict[str, Any]], sections: Sections) -> None:
    for section in sections.values():
        for number, item in enumerate(section):
            item["z"] = number / 10
    training = np.median([item["z"] for item in sections["training"]])
    scores = audit()["baselines"]["slice_position"]["testing"]["scores"]
    np.testing.assert_allclose(scores, [abs(item["z"] - training) for item in sections["testing"]])


def _missing(s: Sections, folder: Path) -> None:
    s["training"][0]["image"] = "nowhere.png"


def _empty(s: Sections, folder: Path) -> None:
    (folder / "0.png").write_bytes(b"")


def _damaged(s: Sections, folder: Path) -> None:
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:200])


def _nan(s: Sections, folder: Path) -> None:
    values = picture(0).astype(np.float32)
    values[3, 3] = np.nan
    nib.save(nib.Nifti1Image(values, np.eye(4)), folder / "nan.nii.gz")
    s["training"][0]["image"] = "nan.nii.gz"


def _volume(s: Sections, folder: Path) -> None:
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((8, 8, 8), np.float32), np.eye(4)), folder / "v.nii.gz")
    s["training"][0]["image"] = "v.nii.gz"


def _color(s: Sections, folder: Path) -> None:
    save(folder, "0.png", np.stack([picture(i) for i in range(3)], -1))


def _misfit(s: Sections, folder: Path) -> None:
    save(folder, s["testing"][1]["label"], mask(True, 40))


def _missing_mask(s: Sections, folder: Path) -> None:
    s["testing"][1]["label"] = "nowhere_mask.png"


def _marked(s: Sections, folder: Path) -> None:
    s["testing"][0]["label"] = save(folder, "m.png", mask(True))


def _anomalous(s: Sections, folder: Path) -> None:
    s["training"][0]["target"] = 1


def _patient(s: Sections, folder: Path) -> None:
    s["testing"][0]["patient"] = "p0"


def _copy(s: Sections, folder: Path) -> None:
    Image.open(folder / "0.png").save(folder / s["testing"][0]["image"], compress_level=0)


def _contradiction(s: Sections, folder: Path) -> None:
    Image.open(folder / s["testing"][0]["image"]).save(folder / s["testing"][1]["image"])


def _no_target(s: Sections, folder: Path) -> None:
    del s["testing"][0]["target"]


def _odd_target(s: Sections, folder: Path) -> None:
    s["validation"][0]["target"] = 2


def _no_image(s: Sections, folder: Path) -> None:
    del s["training"][0]["image"]


def _mixed_fields(s: Sections, folder: Path) -> None:
    s["training"][0]["z"] = 0.5


def _empty_section(s: Sections, folder: Path) -> None:
    s["validation"] = []


ERRORS = {
    "missing_file": (_missing, _missing_mask),
    "empty_file": (_empty,),
    "unreadable_file": (_damaged,),
    "invalid_image": (_nan,),
    "mixed_dimensions": (_volume,),
    "mixed_channels": (_color,),
    "bad_mask": (_misfit,),
    "marked_healthy": (_marked,),
    "anomalous_in_training": (_anomalous,),
    "patient_in_two_splits": (_patient,),
    "exact_duplicate": (_copy,),
    "contradicting_targets": (_contradiction,),
    "bad_target": (_no_target, _odd_target),
    "bad_item": (_no_image,),
    "mixed_fields": (_mixed_fields,),
    "bad_section": (_empty_section,),
}


@pytest.mark.parametrize(("code", "spoil"), [(code, spoil) for code, spoils in ERRORS.items() for spoil in spoils])
def test_each_error(
    audit: Callable[..., dict[str, Any]],
    sections: Sections,
    tmp_path: Path,
    code: str,
    spoil: Callable[[Sections, Path], None],
) -> None:
    spoil(sections, tmp_path)
    result = audit()
    assert codes(result["errors"]) == {code}
    (error,) = result["errors"]
    assert error["message"] and error["remedy"]
    assert code == "bad_item" or Path(error["file"]).name
    json.dumps(result, allow_nan=False)


def test_demanded_shape(audit: Callable[..., dict[str, Any]]) -> None:
    assert codes(audit(in_channels=3)["errors"]) == {"wrong_channels"}
    assert codes(audit(spatial_dims=3)["errors"]) == {"invalid_image"}
    assert audit(in_channels=1, spatial_dims=2)["errors"] == []


def test_every_error_is_listed_at_once(sections: Sections, tmp_path: Path) -> None:
    for spoil in (_missing_mask, _empty, _marked):
        spoil(sections, tmp_path)
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"no picture")
    (tmp_path / "datalist.json").write_text(json.dumps(sections))
    with pytest.raises(AuditError) as caught:
        DatalistAudit(tmp_path / "datalist.json", output_dir=tmp_path / "out", progress=False).run()
    text = str(caught.value)
    assert "5 error(s)" in text and len(caught.value.errors) == 5
    for name in ("0.png", "1.png", "2.png", "nowhere_mask.png", "m.png"):
        assert str(tmp_path / name) in text
    assert text.count("remove it from the datalist") == 2 and "2 files: image" in text
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["errors"] == caught.value.errors


def _constant(s: Sections, folder: Path) -> None:
    save(folder, "0.png", np.full((48, 48), 7, np.uint8))


def _sizes(s: Sections, folder: Path) -> None:
    save(folder, "0.png", picture(0)[:40])


def _empty_mask(s: Sections, folder: Path) -> None:
    save(folder, s["testing"][1]["label"], mask(False))


def _healthy_validation(s: Sections, folder: Path) -> None:
    s["validation"] = [item for item in s["validation"] if item["target"] == 0]


def _copy_in_validation(s: Sections, folder: Path) -> None:
    Image.open(folder / "0.png").save(folder / s["validation"][0]["image"])


def _changed_copy(s: Sections, folder: Path) -> None:
    copy = zoom(picture(0)[:, ::-1].astype(float), [1.05, 1], order=1)[1:49] * 0.7 + 20
    save(folder, s["testing"][0]["image"], copy.round().astype(np.uint8))


def _confounded(s: Sections, folder: Path) -> None:
    for item in s["testing"]:
        if item["target"]:
            save(folder, item["image"], (np.asarray(Image.open(folder / item["image"])) * 0.3).astype(np.uint8))


WARNINGS = {
    "constant_image": _constant,
    "mixed_sizes": _sizes,
    "empty_mask": _empty_mask,
    "no_anomalous_validation": _healthy_validation,
    "exact_duplicate": _copy_in_validation,
    "near_duplicates": _changed_copy,
    "trivial_baseline": _confounded,
}


def test_images_to_learn_from_alone_need_no_validation(
    audit: Callable[..., dict[str, Any]], sections: Sections
) -> None:
    for section in ("validation", "testing"):
        del sections[section]
    assert "no_anomalous_validation" not in codes(audit()["warnings"])


@pytest.mark.parametrize("code", WARNINGS)
def test_each_warning(audit: Callable[..., dict[str, Any]], sections: Sections, tmp_path: Path, code: str) -> None:
    unspoiled = codes(audit()["warnings"]) - {"trivial_baseline"}
    assert unspoiled == {"small_test_set"}
    WARNINGS[code](sections, tmp_path)
    result = audit()
    assert result["errors"] == []
    assert code in codes(result["warnings"])
    assert codes(result["warnings"]) <= {code, "small_test_set", "trivial_baseline", "near_duplicates"}
    assert ("near_duplicates" in codes(result["warnings"])) is (code in ("near_duplicates", "exact_duplicate"))


def test_near_duplicates_name_the_pair_and_the_share(
    audit: Callable[..., dict[str, Any]], sections: Sections, tmp_path: Path
) -> None:
    _changed_copy(sections, tmp_path)
    result = audit()
    (record,) = result["near_duplicates"]
    assert (record["section"], record["seen_in"]) == ("testing", "training")
    assert (record["images_found"], record["healthy_found"]) == (1, 1)
    (pair,) = record["pairs"]
    assert pair["file"] == str(tmp_path / sections["testing"][0]["image"]) and pair["other"] == str(tmp_path / "0.png")
    (warning,) = [w for w in result["warnings"] if w["code"] == "near_duplicates"]
    assert f"1 of {record['healthy']} healthy" in warning["message"] and pair["other"] in warning["message"]


def test_inverted_baseline_is_not_flipped(
    audit: Callable[..., dict[str, Any]], sections: Sections, tmp_path: Path
) -> None:
    _confounded(sections, tmp_path)
    result = audit()
    assert result["baselines"]["mean_intensity"]["testing"]["image_auroc"] == 0
    (warning,) = [w for w in result["warnings"] if w["code"] == "trivial_baseline"]
    assert "mean_intensity 0.00 (inverted)" in warning["message"]


def test_unusable_images_get_no_score(audit: Callable[..., dict[str, Any]], sections: Sections, tmp_path: Path) -> None:
    (tmp_path / sections["testing"][0]["image"]).write_bytes(b"")
    scores = audit()["baselines"]["pca_reconstruction"]["testing"]["scores"]
    assert scores[0] is None and all(isinstance(score, float) for score in scores[1:])


def test_unchanged_data_are_not_read_again(
    audit: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: Sections
) -> None:
    out = tmp_path / "out"
    first = audit(output_dir=out)
    assert json.loads((out / "audit.json").read_text()) == first
    with monkeypatch.context() as patch:
        patch.setattr(audit_module, "digest_items", lambda *_: pytest.fail("decoded again"))
        assert audit(output_dir=out) == first
    os.utime(tmp_path / "3.png", (1, 1))
    assert audit(output_dir=out)["fingerprint"] != first["fingerprint"]
    assert audit(output_dir=out, in_channels=1)["fingerprint"] != first["fingerprint"]
    (out / "audit.json").write_text("half a fi")
    assert audit(output_dir=out)["errors"] == []


def test_stored_errors_are_looked_at_again(
    audit: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: Sections
) -> None:
    _anomalous(sections, tmp_path)
    audit(output_dir=tmp_path / "out")
    calls: list[int] = []
    original = audit_module.digest_items
    monkeypatch.setattr(audit_module, "digest_items", lambda *a: (calls.append(1), original(*a))[1])
    audit(output_dir=tmp_path / "out")
    assert calls == [1]


def test_warnings_are_logged(audit: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = audit()
    assert [r.message.split(":")[0] for r in caplog.records] == [w["code"] for w in result["warnings"]]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"sections": ["train"]}, "sections must be"),
        ({"sections": "training"}, "sections must be"),
        ({"num_workers": -1}, "num_workers must be at least 0"),
        ({"spatial_dims": 4}, "spatial_dims must be 2, 3 or None, got 4"),
        ({"in_channels": 0}, "in_channels must be at least 1"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        DatalistAudit("datalist.json", **arguments)


def _rank(rank: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    read: list[int] = []
    original = audit_module.digest_items
    audit_module.digest_items = lambda *a: (read.append(1), original(*a))[1]  # type: ignore[assignment]
    outcome: dict[str, Any] = {}
    for name in ("good", "bad", "none"):
        try:
            outcome[name] = DatalistAudit(f"{folder}/{name}.json", progress=False, num_workers=1).run()["fingerprint"]
        except ValueError as error:
            outcome[name] = f"{type(error).__name__}: {error}"
    Path(folder, f"rank{rank}.json").write_text(json.dumps([outcome, len(read)]))
    torch.distributed.destroy_process_group()


def test_all_ranks_go_on_or_stop_together(sections: Sections, tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(json.dumps(sections))
    _anomalous(sections, tmp_path)
    (tmp_path / "bad.json").write_text(json.dumps(sections))
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    (first, read), (second, read_too) = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2))
    assert (read, read_too) == (2, 0)
    assert first["good"] == second["good"] and len(first["good"]) == 64
    assert first["bad"] == second["bad"] and "AuditError" in first["bad"] and "0.png" in first["bad"]
    assert "none.json does not exist" in first["none"] and "none.json does not exist" in second["none"]
