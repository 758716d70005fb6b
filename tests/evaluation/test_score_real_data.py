"""Real label maps: hippocampus, two predictions of one CT, nuclei, and defective files."""

import math
import shutil

import nibabel as nib
import numpy as np
import pytest

from evaluation import score


def copy(source, folder, name="case.nii.gz"):
    shutil.copy(source, folder / name)


def test_hippocampus_against_itself_is_perfect_with_names_from_dataset_json(workspace, real_data):
    dataset = real_data / "Dataset004_Hippocampus"
    for path in sorted((dataset / "labelsTr").glob("*.nii.gz"))[:3]:
        copy(path, workspace.predictions, path.name)
    arguments = ["--references", dataset / "labelsTr", "--labels", "Anterior", "Posterior"]
    run = workspace.run(*arguments)
    assert run.code == 0
    assert run.summary["n_cases"] == 3
    assert len(run.summary["references_without_prediction"]) > 100
    assert {row["label_name"] for row in run.rows} == {"Anterior", "Posterior"}
    assert {float(row["value"]) for row in run.rows if row["metric"] == "dice"} == {1.0}


def test_two_real_predictions_of_one_scan_miss_label_13(workspace, real_data):
    folder = real_data / "ts_example_ct"
    copy(folder / "example_seg.nii.gz", workspace.references)
    copy(folder / "example_seg_fast.nii.gz", workspace.predictions)
    run = workspace.run()
    assert run.code == 0
    assert len(run.summary["labels"]) == 41
    assert run.value("dice", label="13") == 0
    assert run.value("hd95_mm", label="13") == math.inf
    missed = [key for key, entry in run.summary["labels"].items() if entry["metrics"]["dice"]["n_missed"]]
    assert missed == ["13"]
    assert run.summary["foreground_mean"]["metrics"]["dice"]["mean"] == pytest.approx(0.90, abs=0.01)


def test_two_real_predictions_of_one_scan_matches_monai(real_data):
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    folder = real_data / "ts_example_ct"
    reference, prediction = (
        np.asarray(nib.load(folder / name).dataobj) for name in ("example_seg.nii.gz", "example_seg_fast.nii.gz")
    )
    labels = [1, 5, 7, 52, 98]
    scores = score(reference, prediction, (3, 3, 3), labels=labels, nsd_tolerance_mm=3)
    y_pred, y = (torch.tensor(np.stack([m == k for k in labels]))[None] for m in (prediction, reference))
    keywords = {"include_background": True, "spacing": [3.0, 3.0, 3.0]}
    hd95 = compute_hausdorff_distance(y_pred, y, percentile=95, **keywords)[0].tolist()
    assert [scores[k].hd95_mm for k in labels] == pytest.approx(hd95, abs=1e-4)
    # NSD is compared without the image edge, which MONAI doesn't count as surface
    y_pred, y = (torch.nn.functional.pad(m.float(), (1,) * 6).bool() for m in (y_pred, y))
    nsd = compute_surface_dice(y_pred, y, [3.0] * len(labels), use_subvoxels=True, **keywords)[0].tolist()
    assert [scores[k].nsd_3mm for k in labels] == pytest.approx(nsd, abs=1e-5)


def test_rotated_axes_give_the_same_scores_as_the_array(workspace, real_data):
    folder = real_data / "sct_spinalcord"  # axes (P, S, R)
    copy(folder / "t2_seg-manual.nii.gz", workspace.references)
    copy(folder / "t2_seg-deepseg_sc-3d.nii.gz", workspace.predictions)
    run = workspace.run()
    maps = [
        np.asarray(nib.load(f / "case.nii.gz").dataobj).astype(int)
        for f in (workspace.references, workspace.predictions)
    ]
    expected = score(*maps, nib.load(workspace.references / "case.nii.gz").header.get_zooms())
    for name, value in expected[1].metrics().items():
        assert run.value(name) == pytest.approx(value, rel=1e-5)


def test_nuclei_masks_in_png_are_scored_in_2d(workspace, real_data):
    masks = sorted((real_data / "nuclei2d_dsb2018" / "masks").glob("*.png"))[:3]
    for path in masks:
        copy(path, workspace.predictions, path.name)
    run = workspace.run2d("--references", masks[0].parent)
    assert run.code == 0
    assert run.summary["labels"]["1"]["pooled_over_slices"]["dice"]["mean"] == 1


def test_real_defective_files_are_named_and_the_good_one_scored(workspace, real_data):
    bad = real_data / "bad_inputs"
    good = real_data / "bad_inputs" / "float32_label_hippocampus_243.nii.gz"
    copy(good, workspace.predictions, "float.nii.gz")
    copy(good, workspace.references, "float.nii.gz")
    copy(bad / "ts_spine_report.nii.gz", workspace.predictions, "colours.nii.gz")
    copy(bad / "ts_heart.nii.gz", workspace.references, "colours.nii.gz")
    copy(bad / "orphan_label_hippocampus_010.nii.gz", workspace.predictions, "orphan.nii.gz")
    copy(bad / "DS_Store_beside_images", workspace.predictions, ".DS_Store")
    run = workspace.run()
    assert run.code == 1
    assert [failure["case"] for failure in run.summary["failures"]] == ["colours", "orphan"]
    assert run.value("dice", case="float") == 1


def test_real_empty_label_is_not_applicable(workspace, real_data):
    for folder in (workspace.predictions, workspace.references):
        copy(real_data / "bad_inputs" / "ts_iliac_artery_left.nii.gz", folder)
    run = workspace.run("--labels", "1")
    assert run.code == 0
    assert run.statistics("dice")["n_na"] == 1
