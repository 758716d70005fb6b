"""`python -m nnunet_ext crf` on what nnU-Net leaves: ignore labels, and validation folders without dataset.json."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from prediction_folders import CLASSES, GEOMETRY, REGIONS, SHAPE, Folders

from nnunet_ext.crf_postprocessing import refine_folder
from nnunet_ext.data.image_io import read_label
from nnunet_ext.errors import DatasetError, UserError
from nnunet_ext.networks.mean_field import MeanFieldCRF

VALIDATION = "Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0/validation"


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path)


@pytest.fixture
def validation(tmp_path) -> Folders:
    """The folder that `nnUNetv2_train --npz` leaves: what describes it lies with the model, above the fold."""
    folders = Folders(tmp_path, VALIDATION)
    for name in ("dataset.json", "plans.json"):
        (folders.predictions / name).rename(folders.predictions.parents[1] / name)
    return folders


@pytest.mark.parametrize("labels", [{**CLASSES, "ignore": 3}, {"background": 0, "ignore": 3, "right": 2, "left": 1}])
def test_ignore_label_has_no_channel_and_changes_nothing(folders, labels):
    assert folders.run() == 0
    expected = [read_label(folders.output / f"{name}.nii.gz")[0] for name in "ab"]
    folders.describe(labels)
    assert folders.run("--overwrite") == 0
    for name, label in zip("ab", expected, strict=True):
        assert np.array_equal(read_label(folders.output / f"{name}.nii.gz")[0], label)
    assert json.loads((folders.output / "dataset.json").read_text())["labels"] == labels


def test_channels_and_labels_beside_an_ignore_label_match_nnunet(folders):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    for number, (labels, order) in enumerate([({**CLASSES, "ignore": 3}, None), ({**REGIONS, "ignore": 3}, [1, 2])]):
        theirs = LabelManager(labels, order)
        folders.describe(labels, regions_class_order=order)
        logits = np.random.default_rng(0).normal(0, 2, (theirs.num_segmentation_heads, *SHAPE)).astype(np.float32)
        for name in "ab":
            folders.predict(name, logits, "probabilities", regions=theirs.has_regions)
        output = folders.output / str(number)
        off = {"smoothness_weight": 0.0}
        assert refine_folder(folders.predictions, folders.images, output, field_options=off).failures == {}
        expected = theirs.convert_logits_to_segmentation(torch.from_numpy(logits))
        assert np.array_equal(read_label(output / "a.nii.gz")[0], expected)


@pytest.mark.parametrize(
    ("labels", "entries", "message"),
    [
        ({"background": 0, "left": 1, "ignore": 2, "right": 3}, {}, "label values must be consecutive from 1 on"),
        ({**CLASSES, "ignore": 2}, {}, "the ignore label must be the highest, 3, got 2"),
        ({**CLASSES, "ignore": 4}, {}, "the ignore label must be the highest, 3, got 4"),
        ({**CLASSES, "ignore": [3]}, {}, r"the ignore label must be the highest, 3, got \[3\]"),
        ({**REGIONS, "ignore": 2}, {"regions_class_order": [1, 2]}, "the ignore label must be the highest, 3, got 2"),
    ],
)
def test_ignore_label_that_is_not_the_highest_is_an_error_as_in_nnunet(folders, labels, entries, message):
    folders.describe(labels, **entries)
    with pytest.raises(DatasetError, match=rf"dataset\.json: {message}"):
        refine_folder(folders.predictions, folders.images, folders.output)
    assert not folders.output.exists()


def test_validation_folder_of_nnunet_is_described_by_its_models_folder(validation):
    assert validation.run("--smoothness-mm", "2") == 0
    crf = MeanFieldCRF(3, smoothness_mm=2.0)
    for name, logits in validation.logits.items():
        refined = crf(logits[None], spacing_mm=(3.0, 1.1, 0.8))[0].argmax(0)
        assert np.array_equal(read_label(validation.output / f"{name}.nii.gz")[0], refined)
    for name in ("dataset.json", "plans.json"):
        above = validation.predictions.parents[1] / name
        assert (validation.output / name).read_text() == above.read_text()


def test_validation_folder_is_understood_from_within_it(validation, monkeypatch):
    monkeypatch.chdir(validation.predictions)
    assert refine_folder(".", validation.images, validation.output).refined == ["a", "b"]


def test_dataset_json_of_the_predictions_themselves_goes_first(validation):
    validation.describe({**CLASSES, "third": 3})
    failures = refine_folder(validation.predictions, validation.images, validation.output).failures
    assert "must be numbers of shape (4, Z, Y, X)" in failures["a"]


def test_plans_of_the_models_folder_say_that_arrays_were_turned(validation):
    plans = {"image_reader_writer": "SimpleITKIOWithReorient"}
    (validation.predictions.parents[1] / "plans.json").write_text(json.dumps(plans))
    validation.add("a", replace(GEOMETRY, direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)), seed=0)
    original = validation.logits["a"].argmax(0)
    turned = np.ascontiguousarray(validation.logits["a"].numpy()[..., ::-1, ::-1])  # left to right, back to front
    np.savez_compressed(validation.predictions / "a.npz", logits=turned)
    off = {"smoothness_weight": 0.0}
    refine_folder(validation.predictions, validation.images, validation.output, field_options=off)
    assert np.array_equal(read_label(validation.output / "a.nii.gz")[0], original)


def test_missing_dataset_json_is_an_error_that_names_both_places_and_what_to_do(validation, capsys):
    above = validation.predictions.parents[1] / "dataset.json"
    above.unlink()
    assert validation.run() == 2
    error = capsys.readouterr().err
    assert f"{validation.predictions / 'dataset.json'}: not found" in error
    assert f"nor {above}" in error
    assert "copy the data set's dataset.json" in error
    assert not validation.output.exists()


def test_folder_that_does_not_exist_is_named(validation, capsys):
    shutil.rmtree(validation.predictions)
    assert validation.run() == 2
    assert f"{validation.predictions}: is no folder; check --predictions" in capsys.readouterr().err


def test_validation_without_probabilities_is_an_error_that_says_how_to_get_them(validation):
    for file in validation.predictions.glob("*.npz"):
        file.unlink()
    with pytest.raises(UserError, match=r"nnUNetv2_train .*--val --npz"):
        refine_folder(validation.predictions, validation.images, validation.output)


def test_output_of_a_validation_folder_can_be_continued(validation):
    assert validation.run() == 0
    os.utime(validation.output / "b.nii.gz", (0, 0))
    result = refine_folder(
        validation.predictions,
        validation.images,
        validation.output,
        field_options=json.loads((validation.output / "crf.json").read_text())["options"],
    )
    assert (result.skipped, result.refined) == (["a"], ["b"])
