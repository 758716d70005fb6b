"""Geometry: what counts as the same grid, and what doesn't."""

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def box():
    mask = np.zeros((6, 8, 10), np.uint8)
    mask[1:3, 2:5, 3:7] = 1
    return mask


def write(workspace, box, **prediction_geometry):
    workspace.nifti(workspace.references / "case.nii.gz", box, spacing=(2, 1, 0.5))
    geometry = {"spacing": (2, 1, 0.5), **prediction_geometry}
    workspace.nifti(workspace.predictions / "case.nii.gz", box, **geometry)


def assert_refused(run, workspace, needed):
    assert run.code == 1
    (failure,) = run.summary["failures"]
    assert failure["case"] == "case"
    for text in (workspace.predictions / "case.nii.gz", workspace.references / "case.nii.gz", needed, "resample"):
        assert str(text) in failure["message"]
    assert failure["message"] in run.err


def test_spacing_comes_from_the_header_in_array_order(workspace, box):
    shifted = np.roll(box, 1, axis=0)
    workspace.pair(box, shifted, spacing=(2.5, 1, 0.5))
    assert workspace.run().value("hd_mm") == pytest.approx(2.5)
    shifted = np.roll(box, 1, axis=2)
    workspace.pair(box, shifted, spacing=(2.5, 1, 0.5))
    assert workspace.run().value("hd_mm") == pytest.approx(0.5)


def test_shift_below_1_percent_of_the_smallest_spacing_is_ignored(workspace, box):
    write(workspace, box, origin=(0.0049, 0, 0))
    run = workspace.run()
    assert run.code == 0
    assert run.value("dice") == 1


def test_shift_above_1_percent_of_the_smallest_spacing_is_refused(workspace, box):
    write(workspace, box, origin=(0.0051, 0, 0))
    assert_refused(workspace.run(), workspace, "0.0051 mm apart, at most 0.005 mm")


def test_small_spacing_error_adds_up_over_the_image(workspace, box):
    # 0.1 % of 2 mm is 0.002 mm a voxel, but 0.011 mm at the far corner (5.5 voxels)
    write(workspace, box, spacing=(2.002, 1, 0.5))
    assert_refused(workspace.run(), workspace, "0.011 mm apart")


def test_other_shape_is_refused(workspace, box):
    workspace.nifti(workspace.references / "case.nii.gz", box)
    workspace.nifti(workspace.predictions / "case.nii.gz", box[:5])
    assert_refused(workspace.run(), workspace, "shape (5, 8, 10) against (6, 8, 10)")


def test_flipped_axis_is_refused(workspace, box):
    workspace.nifti(workspace.references / "case.nii.gz", box)
    image = nib.load(workspace.references / "case.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([-1, 1, 1, 1])), workspace.predictions / "case.nii.gz")
    assert_refused(workspace.run(), workspace, "mm apart")


def test_case_with_another_grid_leaves_the_others_scored(workspace, box):
    write(workspace, box, origin=(5, 0, 0))
    workspace.pair(box, box, case="good")
    run = workspace.run()
    assert run.code == 1
    assert {row["case"] for row in run.rows} == {"good"}
    assert run.summary["n_cases"] == 1


def test_oblique_grid_gives_the_same_distances(workspace, box):
    turn = np.array([[np.cos(0.3), -np.sin(0.3), 0], [np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.5, 1, 2])
    affine[:3, 3] = (10, -20, 30)
    for folder, mask in ((workspace.references, box), (workspace.predictions, np.roll(box, 2, axis=1))):
        nib.save(nib.Nifti1Image(mask.T, affine), folder / "case.nii.gz")
    assert workspace.run().value("hd_mm") == pytest.approx(2 * 1.0, rel=1e-6)


def test_file_that_does_not_say_where_it_lies_is_compared_by_spacing(workspace, box):
    write(workspace, box, origin=(7, 7, 7))
    path = workspace.references / "case.nii.gz"
    image = nib.Nifti1Image(box.T, None)
    image.header.set_zooms((0.5, 1, 2))
    nib.save(image, path)
    assert workspace.run().value("dice") == 1
    image.header.set_zooms((0.6, 1, 2))
    nib.save(image, path)
    assert_refused(workspace.run(), workspace, "spacing (2, 1, 0.5) mm against (2, 1, 0.6) mm")


def test_real_grids_of_two_organs_are_refused(workspace, real_data):
    for folder, name in ((workspace.predictions, "ts_heart"), (workspace.references, "ts_pulmonary_artery")):
        (folder / "case.nii.gz").write_bytes((real_data / "bad_inputs" / f"{name}.nii.gz").read_bytes())
    assert_refused(workspace.run(), workspace, "shape (191, 167, 233) against (112, 102, 122)")


def test_prediction_on_another_grid_is_resampled_when_asked(workspace):
    fine = np.zeros((8, 12, 20), np.uint8)
    fine[2:6, 4:8, 4:12] = 3
    coarse = fine[::2, ::2, ::2]  # each of its voxels covers 2 x 2 x 2 of the fine ones, so it begins half of one later
    workspace.nifti(workspace.references / "case.nii.gz", fine, spacing=(2, 1, 0.5))
    workspace.nifti(workspace.predictions / "case.nii.gz", coarse, spacing=(4, 2, 1), origin=(0.25, 0.5, 1.0))
    refused = workspace.run()
    assert refused.code == 1 and "or let --resample do it" in refused.err
    run = workspace.run("--resample")
    assert run.code == 0
    assert run.value("dice", label="3") == 1
    assert "brought from its grid of (4, 6, 10) voxels" in run.err
    assert run.summary["options"]["resample"] is True


def test_resampling_a_shifted_grid_moves_the_labels_back(workspace):
    box = np.zeros((8, 10, 12), np.uint8)
    box[2:5, 3:6, 4:8] = 1
    workspace.nifti(workspace.references / "case.nii.gz", box, spacing=(2, 1, 0.5))
    moved = np.roll(box, (1, 2, -3), axis=(0, 1, 2))
    origin = (3 * 0.5, -2 * 1.0, -1 * 2.0)  # x, y, z of the first voxel, in RAS
    workspace.nifti(workspace.predictions / "case.nii.gz", moved, spacing=(2, 1, 0.5), origin=origin)
    assert workspace.run("--resample").value("dice") == 1


def oblique(degrees, spacing):
    """Return an affine (i, j, k) to RAS, turned about two axes."""
    turn = np.eye(4)
    a, b = np.radians(degrees), np.radians(degrees / 2)
    about_z = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    turn[:3, :3] = np.array(about_z) @ np.array(about_x) @ np.diag(spacing)
    turn[:3, 3] = 11.3, -7.7, 5.1
    return turn


@pytest.mark.parametrize("degrees", [7, 23, 41])
def test_crop_of_an_oblique_volume_is_resampled_without_loss(workspace, degrees):
    whole = np.random.default_rng(degrees).integers(0, 3, (14, 12, 10)).astype(np.uint8)  # (x, y, z)
    affine = oblique(degrees, (0.7, 0.9, 2.1))
    crop = affine.copy()
    crop[:3, 3] = (affine @ (3, 2, 1, 1))[:3]
    nib.save(nib.Nifti1Image(whole, affine), workspace.predictions / "case.nii.gz")
    nib.save(nib.Nifti1Image(whole[3:11, 2:9, 1:8].copy(), crop), workspace.references / "case.nii.gz")
    run = workspace.run("--resample")
    assert [run.value("dice", label=label) for label in "12"] == [1, 1]


def test_resampling_reaches_to_the_faces_of_the_outer_voxels(workspace):
    coarse, fine = np.ones((5, 5, 5), np.uint8), np.ones((10, 10, 10), np.uint8)
    workspace.nifti(workspace.predictions / "case.nii.gz", coarse, spacing=(2, 2, 2), origin=(0.5, 0.5, 0.5))
    workspace.nifti(workspace.references / "case.nii.gz", fine, spacing=(1, 1, 1))
    assert workspace.run("--resample").value("dice") == 1


def test_resampling_needs_files_that_say_where_they_lie(workspace):
    sitk = pytest.importorskip("SimpleITK")
    for folder, side in ((workspace.references, 6), (workspace.predictions, 8)):
        sitk.WriteImage(sitk.GetImageFromArray(np.ones((side, side), np.uint8)), folder / "case.png")
    run = workspace.run("--resample")
    assert run.code == 1
    assert "--resample needs two files of the same dimension that say where they lie" in run.err
