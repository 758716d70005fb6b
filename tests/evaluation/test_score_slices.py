"""Slice by slice: `test2d`."""

import math

import numpy as np
import pytest


@pytest.fixture
def volume():
    """Return a reference in slices 1 to 3 of 6, and a prediction that misses slice 3 and adds slice 4."""
    reference, prediction = np.zeros((2, 6, 8, 10), np.uint8)
    reference[1:4, 2:6, 2:6] = 1
    prediction[1:3, 2:6, 2:6] = 1
    prediction[2, 2:6, 5] = 0
    prediction[4, 2:6, 2:6] = 1
    return reference, prediction


def test_rows_say_axis_and_slice(workspace, volume):
    workspace.pair(*volume, spacing=(3, 2, 1))
    run = workspace.run2d()
    header = (workspace.scores / "metrics.csv").read_text().splitlines()[0]
    assert header == "case,label,label_name,metric,value,axis,slice"
    assert {row["axis"] for row in run.rows} == {"0"}
    assert [row["slice"] for row in run.rows if row["metric"] == "dice"] == list("012345")
    assert run.value("dice", slice="1") == 1
    assert run.value("dice", slice="2") == pytest.approx(2 * 12 / (16 + 12))
    assert math.isnan(run.value("dice", slice="0"))
    assert run.value("hd_mm", slice="3") == run.value("hd_mm", slice="4") == math.inf
    assert run.value("hd_mm", slice="2") == 1


def test_empty_slices_are_not_averaged_but_counted(workspace, volume):
    workspace.pair(*volume)
    statistics = workspace.run2d().summary["labels"]["1"]["pooled_over_slices"]["dice"]
    assert statistics["mean"] == pytest.approx((1 + 24 / 28 + 0 + 0) / 4)
    assert [statistics[key] for key in ("n", "n_na", "n_missed", "n_spurious")] == [4, 2, 1, 1]


def test_missed_slice_enters_the_second_mean_as_the_diagonal_of_the_slice(workspace, volume):
    workspace.pair(*volume, spacing=(3, 2, 1))
    statistics = workspace.run2d().summary["labels"]["1"]["pooled_over_slices"]["hd_mm"]
    diagonal = math.hypot(8 * 2, 10 * 1)
    assert statistics["mean"] == pytest.approx((0 + 1) / 2)
    assert statistics["mean_inf_as_diagonal"] == pytest.approx((0 + 1 + 2 * diagonal) / 4)


def test_pooled_slices_and_mean_of_cases_differ_when_cases_have_unequal_slices(workspace, volume):
    perfect = np.zeros((2, 8, 10), np.uint8)
    perfect[0, 2:6, 2:6] = 1
    workspace.pair(*volume, case="long")
    workspace.pair(perfect, perfect, case="short")
    run = workspace.run2d()
    entry = run.summary["labels"]["1"]
    long_mean = (1 + 24 / 28 + 0 + 0) / 4
    assert entry["pooled_over_slices"]["dice"]["mean"] == pytest.approx((4 * long_mean + 1) / 5)
    assert entry["mean_of_cases"]["dice"]["mean"] == pytest.approx((long_mean + 1) / 2)
    assert (entry["pooled_over_slices"]["dice"]["n"], entry["mean_of_cases"]["dice"]["n"]) == (5, 2)
    assert run.summary["foreground_mean"]["mean_of_cases"] == entry["mean_of_cases"]
    assert "all slices" in run.out and "mean of each case" in run.out


@pytest.mark.parametrize(("axis", "in_plane"), [(0, (2, 1)), (1, (3, 1)), (2, (3, 2))])
def test_axis_chooses_slices_and_the_spacing_within_them(workspace, blobs, axis, in_plane):
    from evaluation import score

    reference, prediction = blobs(0, (9, 10, 11))
    workspace.pair(reference, prediction, spacing=(3, 2, 1))
    run = workspace.run2d("--axis", str(axis))
    index = reference.shape[axis] // 2
    expected = score(reference.take(index, axis), prediction.take(index, axis), in_plane)
    for name, value in expected[1].metrics().items():
        assert run.value(name, slice=str(index), axis=str(axis)) == pytest.approx(value, rel=1e-6, nan_ok=True)
    assert run.summary["options"]["axis"] == axis


def test_wrong_axis_exits_with_2(workspace, volume):
    workspace.pair(*volume)
    run = workspace.run2d("--axis", "3")
    assert run.code == 2
    assert "invalid choice: 3" in run.err


def png(path, array):
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def test_png_masks_are_one_slice_in_pixels(workspace):
    reference, prediction = np.zeros((2, 20, 30), np.uint8)
    reference[5:10, 5:10] = prediction[5:10, 8:13] = 255
    png(workspace.references / "case.png", reference)
    png(workspace.predictions / "case.png", prediction)
    run = workspace.run2d()
    assert run.code == 0
    assert run.value("hd_mm", label="255", axis="0", slice="0") == 3
    assert "doesn't say where it lies; distances take its voxels as 1 x 1 mm" in run.err
    assert workspace.run().value("hd_mm", label="255") == 3  # whole 2D images too


def test_colour_png_is_refused_with_the_file(workspace):
    reference = np.zeros((20, 30), np.uint8)
    png(workspace.references / "case.png", reference)
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(np.zeros((20, 30, 3), np.uint8), isVector=True)
    sitk.WriteImage(image, str(workspace.predictions / "case.png"))
    run = workspace.run2d()
    assert run.code == 1
    assert "case.png: labels must be one integer a pixel, got 3 colours" in run.err


def test_2d_npz_with_a_slice_axis_fits_a_2d_reference(workspace):
    logits = np.random.default_rng(0).standard_normal((2, 1, 20, 30)).astype(np.float32)
    png(workspace.references / "case.png", logits[:, 0].argmax(0).astype(np.uint8))
    import pickle

    np.savez_compressed(workspace.predictions / "case.npz", logits=logits)
    (workspace.predictions / "case.pkl").write_bytes(pickle.dumps({"spacing": (999, 1, 1)}))
    assert workspace.run2d().value("dice") == 1


def test_2d_nifti_is_read_with_its_spacing(workspace):
    reference, prediction = np.zeros((2, 20, 30), np.uint8)
    reference[5:10, 5:10] = prediction[8:13, 5:10] = 1
    workspace.pair(reference, prediction, spacing=(2.5, 0.5))
    assert workspace.run2d().value("hd_mm") == pytest.approx(3 * 2.5)
    logits = np.stack([1 - prediction, prediction]).astype(np.float32)[:, None]
    (workspace.predictions / "case.nii.gz").unlink()
    workspace.npz(workspace.predictions, "case", spacing=(2.5, 0.5), logits=logits)
    assert workspace.run2d().value("hd_mm") == pytest.approx(3 * 2.5)


def test_hd95_of_a_slice_matches_monai(workspace, blobs):
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_hausdorff_distance

    reference, prediction = blobs(8, (4, 30, 30))
    workspace.pair(reference, prediction, spacing=(5, 0.75, 1.25))
    run = workspace.run2d()
    for index in range(4):
        y_pred, y = (torch.tensor(mask[index])[None, None] for mask in (prediction, reference))
        expected = compute_hausdorff_distance(y_pred, y, include_background=True, percentile=95, spacing=[0.75, 1.25])
        assert run.value("hd95_mm", slice=str(index)) == pytest.approx(expected.item(), abs=1e-5)
