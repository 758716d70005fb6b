"""`python -m nnunet_ext crf`: refines every case of a prediction folder, names those that it can't, goes on."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from prediction_folders import GEOMETRY, REGIONS, SHAPE, Folders

from nnunet_ext.crf_postprocessing import refine_folder
from nnunet_ext.data.geometry import Geometry, to_canonical
from nnunet_ext.data.image_io import read_channels, read_label, write_label
from nnunet_ext.errors import UserError
from nnunet_ext.networks.mean_field import MeanFieldCRF

MOVED = Geometry((8, 9, 4), (0.8, 1.1, 3.0), (0.0, 4.0, 7.0), GEOMETRY.direction)


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path)


def test_labels_and_probabilities_are_those_of_the_layer_at_the_spacing_of_the_image(folders):
    assert folders.run("--smoothness-weight", "3", "--smoothness-mm", "2", "--iterations", "2") == 0
    crf = MeanFieldCRF(3, iterations=2, smoothness_weight=3.0, smoothness_mm=2.0)
    for name, logits in folders.logits.items():
        refined = crf(logits[None], spacing_mm=(3.0, 1.1, 0.8))[0].detach()  # (z, y, x)
        with np.load(folders.output / f"{name}.npz") as arrays:
            assert arrays.files == ["probabilities"]
            np.testing.assert_allclose(arrays["probabilities"], refined.softmax(0), atol=1e-5)
        label, geometry = read_label(folders.output / f"{name}.nii.gz")
        assert np.array_equal(label, refined.argmax(0))
        assert geometry.difference(GEOMETRY) is None
        assert not np.array_equal(label, logits.argmax(0))
        assert pickle.loads((folders.output / f"{name}.pkl").read_bytes())["sitk_stuff"] == GEOMETRY.sitk_stuff()
    for name in ("dataset.json", "plans.json"):
        assert (folders.output / name).read_text() == (folders.predictions / name).read_text()


def test_logits_are_refined_where_they_are_and_both_arrays_written(folders):
    folders.predict("a", folders.logits["a"].numpy(), "logits", "probabilities")
    refine_folder(folders.predictions, folders.images, folders.output)
    with np.load(folders.output / "a.npz") as arrays:
        crf = MeanFieldCRF(3, smoothness_mm=0.8)  # the smallest side of a voxel
        expected = crf(folders.logits["a"][None], spacing_mm=(3.0, 1.1, 0.8))[0].detach()
        np.testing.assert_allclose(arrays["logits"], expected, atol=1e-5)
        np.testing.assert_allclose(arrays["probabilities"], expected.softmax(0), atol=1e-6)


def test_appearance_term_sees_the_image(folders):
    options = {"smoothness_weight": 0.0, "appearance_weight": 3.0, "appearance_window": 3}
    refine_folder(folders.predictions, folders.images, folders.output, field_options=options)
    constant, _ = read_channels([folders.images / "a_0000.nii.gz"])
    first = np.load(folders.output / "a.npz")["probabilities"]
    write_label(folders.images / "a_0000.nii.gz", np.zeros_like(constant[0]), GEOMETRY)
    refine_folder(folders.predictions, folders.images, folders.output, field_options=options, overwrite=True)
    assert not np.allclose(np.load(folders.output / "a.npz")["probabilities"], first)


def test_regions_are_refined_one_by_one_and_painted_in_their_order(folders):
    folders.describe(REGIONS, regions_class_order=[1, 2])
    logits = np.random.default_rng(0).normal(0, 2, (2, *SHAPE)).astype(np.float32)
    for name in "ab":
        folders.predict(name, logits, "probabilities", regions=True)
    assert folders.run("--smoothness-mm", "1") == 0
    refined = MeanFieldCRF(3, regions=True)(torch.from_numpy(logits)[None], spacing_mm=(3.0, 1.1, 0.8))[0] > 0
    label, _ = read_label(folders.output / "a.nii.gz")
    assert np.array_equal(label, np.where(refined[1], 2, refined[0]))


def test_weight_0_gives_the_labels_that_were_there(folders):
    assert folders.run("--smoothness-weight", "0") == 0
    for name, logits in folders.logits.items():
        assert np.array_equal(read_label(folders.output / f"{name}.nii.gz")[0], logits.argmax(0))


def test_interrupted_run_goes_on_with_the_cases_that_are_missing(folders):
    assert folders.run() == 0
    (folders.output / "b.nii.gz").unlink()
    kept = (folders.output / "a.nii.gz").stat().st_mtime_ns
    result = refine_folder(
        folders.predictions,
        folders.images,
        folders.output,
        field_options=json.loads((folders.output / "crf.json").read_text())["options"],
    )
    assert (result.skipped, result.refined) == (["a"], ["b"])
    assert (folders.output / "a.nii.gz").stat().st_mtime_ns == kept


def test_other_options_in_the_same_folder_are_an_error_unless_overwritten(folders, capsys):
    assert folders.run() == 0
    assert folders.run("--iterations", "1") == 2
    assert "refined with" in (error := capsys.readouterr().err)
    assert "give another --output, or --overwrite" in error
    assert folders.run("--iterations", "1", "--overwrite") == 0
    assert json.loads((folders.output / "crf.json").read_text())["options"]["iterations"] == 1


def test_case_that_was_predicted_again_is_refined_again(folders):
    refine_folder(folders.predictions, folders.images, folders.output)
    label = folders.output / "a.nii.gz"
    os.utime(label, (0, 0))  # older than its prediction
    result = refine_folder(folders.predictions, folders.images, folders.output)
    assert (result.skipped, result.refined) == (["b"], ["a"])


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_files_of_another_origin_are_neither_taken_for_results_nor_deleted(folders, capsys, options):
    assert folders.run() == 0
    (folders.output / "crf.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in folders.output.iterdir()}
    assert folders.run("--iterations", "1", *options) == 2
    assert "which this command did not write; give a new folder" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folders.output.iterdir()} == before
    images = folders.images
    folders.output = images
    assert folders.run(*options) == 2
    assert {path.name for path in images.iterdir()} == {"a_0000.nii.gz", "b_0000.nii.gz"}


def test_damaged_record_is_an_error_that_names_it(folders, capsys):
    assert folders.run() == 0
    (folders.output / "crf.json").write_text("{")
    assert folders.run() == 2
    assert "crf.json: cannot be read as JSON" in capsys.readouterr().err


@pytest.mark.parametrize("direction", [(0, 0, 1.0, -1.0, 0, 0, 0, 1.0, 0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)])
def test_arrays_that_nnunet_turned_meet_their_image_and_labels_go_back_to_its_axes(tmp_path, direction):
    """One reader of nnU-Net keeps arrays as S, A, R; on such axes and with another reader it is the same field."""
    rng = np.random.default_rng(0)
    image, logits = rng.integers(0, 99, SHAPE).astype(np.int16), rng.normal(0, 2, (3, *SHAPE)).astype(np.float32)
    own = Geometry((8, 9, 4), GEOMETRY.spacing_mm, (0.0, 0.0, 0.0), direction)
    permutation, _ = own.axis_order()
    spacing = tuple(own.spacing_zyx_mm()[axis] for axis in permutation)[::-1]

    def turned(array):
        return np.ascontiguousarray(to_canonical(array, own)[..., ::-1, ::-1])

    size = turned(image).shape[::-1]
    same = Geometry(size, spacing, (0.0, 0.0, 0.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    labels = {}
    for name, reader, geometry in (("turned", "NibabelIOWithReorient", own), ("plain", "SimpleITKIO", same)):
        folders = Folders(tmp_path / name)
        (folders.predictions / "plans.json").write_text(json.dumps({"image_reader_writer": reader}))
        for path in (*folders.predictions.glob("*.nii.gz"), folders.predictions / "b.npz"):
            path.unlink()
        folders.predict("a", turned(logits), "logits")
        (folders.predictions / "a.nii.gz").unlink()
        write_label(folders.images / "a_0000.nii.gz", image if geometry is own else turned(image), geometry)
        options = {"appearance_weight": 3.0, "appearance_window": 3}
        assert refine_folder(folders.predictions, folders.images, folders.output, field_options=options).failures == {}
        labels[name] = read_label(folders.output / "a.nii.gz")[0], np.load(folders.output / "a.npz")["logits"]
    assert labels["turned"][0].shape == SHAPE
    assert np.array_equal(turned(labels["turned"][0]), labels["plain"][0])
    np.testing.assert_allclose(labels["turned"][1], labels["plain"][1], atol=1e-5)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: (f.predictions / "a.npz").write_bytes(b"PK"), "a.npz: cannot be read"),
        (lambda f: np.save((f.predictions / "a.npz").open("wb"), np.zeros((3, *SHAPE))), "a.npz: cannot be read"),
        (lambda f: (f.predictions / "a.npz").unlink(), "a.npz: not found; predict the case again"),
        (lambda f: np.savez(f.predictions / "a.npz", other=np.zeros(3)), "must hold `probabilities` or `logits`"),
        (lambda f: f.predict("a", np.zeros((4, *SHAPE), np.float32), "logits"), "shape (3, Z, Y, X)"),
        (lambda f: f.predict("a", np.full((3, *SHAPE), np.nan, np.float32), "logits"), "logits must be finite"),
        (lambda f: np.savez(f.predictions / "a.npz", logits=np.full((3, *SHAPE), 1e300)), "logits must be finite"),
        (lambda f: np.savez(f.predictions / "a.npz", logits=np.full((3, *SHAPE), "x")), "got <U1 of shape"),
        (lambda f: np.savez(f.predictions / "a.npz", probabilities=f.logits["a"]), "must lie in [0, 1], got"),
        (lambda f: write_label(f.images / "a_0000.nii.gz", np.zeros(SHAPE, np.int16), MOVED), "corners up to"),
        (lambda f: f.predict("a", np.zeros((3, 4, 4, 4), np.float32), "logits"), "must have the size of a_0000.nii.gz"),
        (lambda f: (f.images / "a_0000.nii.gz").unlink(), "has no image a_0000.nii.gz"),
        (lambda f: (f.images / "a_0000.nii.gz").write_bytes(b"no"), "cannot be read as an image"),
    ],
)
def test_bad_case_is_named_with_its_file_and_the_others_are_refined(folders, capsys, spoil, reason):
    spoil(folders)
    assert folders.run() == 1
    out, error = capsys.readouterr()
    assert "1 case(s) refined, 0 finished before, 1 failed" in out
    assert "  a: " in error
    assert reason in error
    assert (folders.output / "b.nii.gz").is_file()
    assert not (folders.output / "a.nii.gz").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--smoothness-window", "4"], "smoothness_window must be an odd number of voxels >= 3, got 4; take 5"),
        (["--kind", "dense"], "kind must be one of exact, crfseg, got 'dense'"),
        (["--kind", "crfseg", "--appearance-weight", "1"], "kind=crfseg has no appearance_weight"),
    ],
)
def test_wrong_option_is_an_error_before_any_file_is_written(folders, capsys, options, message):
    assert folders.run(*options) == 2
    assert message in capsys.readouterr().err
    assert not folders.output.exists()


def test_folders_that_cannot_be_meant_are_errors(folders, tmp_path):
    with pytest.raises(UserError, match="must be another folder than the predictions"):
        refine_folder(folders.predictions, folders.images, folders.predictions)
    with pytest.raises(UserError, match="is no folder; check --predictions"):
        refine_folder(tmp_path / "absent", folders.images, folders.output)
    for path in folders.predictions.glob("*.npz"):
        path.unlink()
    with pytest.raises(UserError, match=r"holds no <case>.npz; predict with --save_probabilities"):
        refine_folder(folders.predictions, folders.images, folders.output)
