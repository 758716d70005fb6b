"""Bandwidths of `python -m nnunet_ext crf`: by default so many voxels of each image, whatever their size in mm."""

import json

import numpy as np
import pytest
from prediction_folders import GEOMETRY, Folders

from nnunet_ext.crf_postprocessing import refine_folder
from nnunet_ext.data.geometry import Geometry
from nnunet_ext.data.image_io import read_label
from nnunet_ext.errors import UserError
from nnunet_ext.networks.crf import default_bandwidths
from nnunet_ext.networks.mean_field import MeanFieldCRF

BOTH_TERMS = ["--appearance-weight", "2", "--appearance-window", "3"]


def cubes(side_mm: float, dims: int) -> Geometry:
    return Geometry((8, 9, 4)[:dims], (side_mm,) * dims, (0.0,) * dims, tuple(np.eye(dims).ravel()))


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path)


def test_default_bandwidths_are_one_voxel_and_two_by_the_smallest_side():
    assert default_bandwidths((4.0, 3.0, 5.0)) == {"smoothness_mm": 3.0, "appearance_mm": 6.0}


def test_default_bandwidths_of_tiny_voxels_are_accepted_by_the_layer():
    MeanFieldCRF(2, appearance_weight=1.0, **default_bandwidths((0.001, 0.001)))


@pytest.mark.parametrize(
    ("kind", "options", "dims"),
    [("exact", [], 2), ("exact", [], 3), ("exact", BOTH_TERMS, 2), ("exact", BOTH_TERMS, 3), ("crfseg", [], 3)],
)
def test_case_of_4_mm_voxels_is_refined_as_one_of_1_mm_in_the_same_folder(folders, kind, options, dims):
    if kind == "crfseg":
        pytest.importorskip("crfseg", reason="needs crfseg (pip install -e '.[dev]')")
    for name, side_mm in (("a", 1.0), ("b", 4.0)):
        folders.add(name, cubes(side_mm, dims), seed=0)
    assert folders.run("--kind", kind, "--smoothness-weight", "5", *options) == 0
    fine, coarse = (read_label(folders.output / f"{name}.nii.gz")[0] for name in "ab")
    before = folders.logits["b"].argmax(0).numpy()
    assert (coarse != before).mean() > 0.02  # with a bandwidth of 1 mm, exp(-4² / 2) = 0.0003: not one
    assert np.array_equal(coarse, fine)
    fine, coarse = (np.load(folders.output / f"{name}.npz")["probabilities"] for name in "ab")
    np.testing.assert_allclose(coarse, fine, atol=1e-5)


def test_bandwidth_that_is_given_counts_in_mm(folders):
    for name, side_mm in (("a", 1.0), ("b", 4.0)):
        folders.add(name, cubes(side_mm, 3), seed=0)
    assert folders.run("--smoothness-mm", "1") == 0
    fine, coarse = (read_label(folders.output / f"{name}.nii.gz")[0] for name in "ab")
    before = folders.logits["b"].argmax(0).numpy()
    assert np.array_equal(coarse, before)
    assert not np.array_equal(fine, before)


def test_folder_without_options_is_refined_as_by_the_command(folders):
    refine_folder(folders.predictions, folders.images, folders.output)
    refined = MeanFieldCRF(3, smoothness_mm=0.8)(folders.logits["a"][None], spacing_mm=GEOMETRY.spacing_zyx_mm())[0]
    np.testing.assert_allclose(
        np.load(folders.output / "a.npz")["probabilities"], refined.softmax(0).detach(), atol=1e-5
    )


def test_run_that_was_begun_with_a_bandwidth_of_1_mm_is_not_continued_with_voxels(folders):
    refine_folder(folders.predictions, folders.images, folders.output)
    record = folders.output / "crf.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "options": {}}))  # as it was written before
    with pytest.raises(UserError, match="refined with"):
        refine_folder(folders.predictions, folders.images, folders.output)
