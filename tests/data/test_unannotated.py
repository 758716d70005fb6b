"""`unannotated_labels` of dataset.json: read, checked, and carried by the slices of a case."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunet_ext.data import SliceDataset, cache_volumes, check_dataset, fit_preprocessing, open_dataset
from nnunet_ext.data.unannotated import UnannotatedLabels, refuse_other_entry
from nnunet_ext.errors import DatasetError

LABELS = {"background": 0, "low": 1, "high": 2, "far": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
FILE = Path("dataset.json")


def read(entry: object, labels: dict = LABELS) -> UnannotatedLabels:
    return UnannotatedLabels.from_dataset_json({"labels": labels, "unannotated_labels": entry}, FILE)


def test_labels_are_numbered_by_their_values_and_regions_by_their_order():
    found = read({"a": ["far", "low"], "b": ["high"], "c": [], "d": ["low", "far"]})
    assert found.channels == {"a": (1, 3), "b": (2,), "d": (1, 3)}
    assert found.sets == [(), (1, 3), (2,)]
    assert found.codes() == {"a": 1, "b": 2, "d": 1}
    assert (found.num_outputs, found.has_regions) == (4, False)
    regions = read({"a": ["core"]}, REGIONS)
    assert (regions.channels, regions.num_outputs, regions.has_regions) == ({"a": (1,)}, 2, True)


def test_without_the_entry_all_is_annotated():
    found = UnannotatedLabels.from_dataset_json({"labels": LABELS}, FILE)
    assert not found
    assert found.codes() == {}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["a"], r'unannotated_labels must be \{"<case>": \["<label>", ...\]\}, got \[\'a\'\]'),
        ({"a": "low"}, "unannotated_labels: a: need a list of low, high, far, got low"),
        ({"a": ["lwo"]}, r"unannotated_labels: a: need a list of low, high, far, got \['lwo'\]"),
        ({"a": ["background"]}, r"need a list of low, high, far, got \['background'\]"),
    ],
)
def test_a_garbled_entry_is_refused(entry, message):
    with pytest.raises(DatasetError, match=message):
        read(entry)


def test_an_entry_that_came_after_planning_is_not_overlooked(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    folder = tmp_path / "Dataset001_A"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"unannotated_labels": {"a": ["low"]}}))
    refuse_other_entry({"unannotated_labels": {"a": ["low"]}}, "Dataset001_A")
    with pytest.raises(DatasetError, match=r"unannotated_labels is not that of the preprocessed data set; copy"):
        refuse_other_entry({}, "Dataset001_A")


@pytest.fixture
def dataset_dir(tmp_path) -> Path:
    """Three cases of 4 slices; case_2 has nobody's annotation of `high`."""
    root = tmp_path / "Dataset002_Partial"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for number in range(3):
        label = np.zeros((8, 8, 4), np.uint8)
        label[:4] = 1
        label[6:] = 2 if number < 2 else 0
        nib.save(nib.Nifti1Image(label.astype(np.float32), np.eye(4)), root / f"imagesTr/case_{number}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), root / f"labelsTr/case_{number}.nii.gz")
    write_entry(root, {"case_2": ["high"]})
    return root


def write_entry(root: Path, entry: dict) -> None:
    content = {
        "channel_names": {"0": "noNorm"},
        "labels": {"background": 0, "low": 1, "high": 2},
        "file_ending": ".nii.gz",
        "unannotated_labels": entry,
    }
    (root / "dataset.json").write_text(json.dumps(content))


def test_check_names_contradictions(dataset_dir):
    assert check_dataset(dataset_dir) == []
    write_entry(dataset_dir, {"case_1": ["low", "high"], "case_9": ["low"]})
    problems = [str(problem) for problem in check_dataset(dataset_dir)]
    assert len(problems) == 2
    assert "case_1.nii.gz: dataset.json calls low, high unannotated here" in problems[0]
    assert "there is no case 'case_9'" in problems[1]


def test_slices_carry_the_code_of_their_case(dataset_dir, tmp_path):
    dataset = open_dataset(dataset_dir)
    volumes = cache_volumes(dataset, list(dataset.training_cases().values()), tmp_path / "cache")
    preprocessing = fit_preprocessing(dataset, volumes, 0)
    slices = SliceDataset(volumes, preprocessing, (16, 16), unannotated=dataset.unannotated)
    for item in range(len(slices)):
        code = slices[item]["label"][1]
        assert slices[item]["label"].shape == (2, 16, 16)
        assert (code == (1 if slices[item]["case"] == "case_2" else 0)).all()
    write_entry(dataset_dir, {})
    plain = SliceDataset(volumes, preprocessing, (16, 16), unannotated=open_dataset(dataset_dir).unannotated)
    assert plain[0]["label"].shape == (1, 16, 16)
