"""Data sets of the adaptation experiment: no case does two things, and labels are what was asked for."""

import json

import nibabel as nib
import numpy as np
import pytest
from adapt_data import derive, split_cases

from nnunet_ext.data import open_dataset
from nnunet_ext.errors import OptionError


@pytest.fixture
def dataset(tmp_path):
    """Forty cases as empty files: a split only looks at names."""
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for number in range(40):
        (tmp_path / "imagesTr" / f"c{number:02d}_0000.nii.gz").touch()
        (tmp_path / "labelsTr" / f"c{number:02d}.nii.gz").touch()
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return open_dataset(tmp_path)


def test_no_case_does_two_things(dataset):
    split = split_cases(dataset, dataset, seeds=2, val_cases=4, test_cases=6)
    parts = [split.base, split.base_val, *split.train, split.val, split.test]
    assert [len(part) for part in parts] == [6, 4, 10, 10, 4, 6]  # 40 - 20 - 4 - 6 = 10 for the base and its 4
    assert len({name for part in parts for name in part}) == 40


def test_too_few_cases_are_an_error_that_names_the_options(dataset):
    with pytest.raises(OptionError, match=r"need 36 .* got 40 .* lower --val-cases or --test-cases"):
        split_cases(dataset, dataset, seeds=2, val_cases=8, test_cases=8)


def test_derived_labels_are_renumbered_and_the_others_are_background(tiny_phantom, tmp_path):
    source = open_dataset(tiny_phantom)
    first, second, *_ = sorted(source.training_cases())
    names = list(source.description["labels"])
    keep = [names[3], names[1]]
    derive(source, tmp_path / "part", keep, [{"train": [first], "val": [first]}], [second])
    made = open_dataset(tmp_path / "part")
    assert made.description["labels"] == {"background": 0, keep[0]: 1, keep[1]: 2}
    assert list(made.training_cases()) == [first]
    for part, name in (("Tr", first), ("Ts", second)):
        old = nib.load(source.training_cases()[name].label)
        new = nib.load(tmp_path / "part" / f"labels{part}" / f"{name}.nii.gz")
        np.testing.assert_allclose(new.affine, old.affine, atol=1e-5)
        want = np.zeros(old.shape)
        want[np.asarray(old.dataobj) == source.description["labels"][keep[0]]] = 1
        want[np.asarray(old.dataobj) == source.description["labels"][keep[1]]] = 2
        assert want.any()
        np.testing.assert_array_equal(np.asarray(new.dataobj), want)


def test_an_unknown_label_is_an_error_that_lists_the_known(dataset, tmp_path):
    with pytest.raises(OptionError, match="need some of background, a, each one number, got b"):
        derive(dataset, tmp_path / "part", ["b"], [], [])
