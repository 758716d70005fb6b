"""Folds are nnU-Net's own."""

import json

import numpy as np
import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_ext.data import fold_cases, generate_splits, load_splits, open_dataset
from nnunet_ext.errors import DatasetError

NAMES = [f"case_{index:03d}" for index in range(12)]


def as_lists(splits):
    return [{part: [str(name) for name in names] for part, names in split.items()} for split in splits]


def some_splits(first: str = "case_000") -> list[dict[str, list[str]]]:
    others = [name for name in NAMES if name != first]
    return [{"train": others, "val": [first]}, {"train": [first], "val": others}]


@pytest.fixture
def dataset(raw):
    """Twelve cases as files; those that only folds look at may be empty."""
    raw.describe()
    for name in NAMES:
        for path in (raw.root / "imagesTr" / f"{name}_0000.nii.gz", raw.root / "labelsTr" / f"{name}.nii.gz"):
            path.parent.mkdir(exist_ok=True)
            path.touch()
    return open_dataset(raw.root)


@pytest.fixture
def preprocessed(dataset, tmp_path, monkeypatch):
    """nnU-Net's folder of preprocessed data for the data set."""
    folder = tmp_path / "preprocessed" / dataset.name
    folder.mkdir(parents=True)
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    return folder


@pytest.mark.parametrize("number", [5, 12, 51, 200])
def test_generated_splits_match_nnunet(number):
    names = [f"kbp_{index}" for index in np.random.default_rng(0).permutation(number)]
    assert generate_splits(names) == as_lists(generate_crossval_split(np.sort(names)))


def test_generated_splits_of_real_data_match_nnunet(shared_data):
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    root = shared_data / "Dataset004_Hippocampus"
    names = list(np.sort(list(get_filenames_of_train_images_and_targets(str(root)))))
    assert load_splits(open_dataset(root)) == as_lists(generate_crossval_split(names))


def test_every_case_validates_in_exactly_one_fold(dataset):
    validated = [case.name for fold in range(5) for case in fold_cases(dataset, fold).val]
    assert sorted(validated) == NAMES


def test_no_case_trains_and_validates_in_one_fold(dataset):
    for number in range(5):
        fold = fold_cases(dataset, number)
        train, val = ({case.name for case in part} for part in (fold.train, fold.val))
        assert not train & val
        assert train | val == set(NAMES)


def test_fewer_cases_than_folds_is_an_error_that_says_what_to_do():
    with pytest.raises(DatasetError, match=r"need at least 5 .* got 4; .*splits_final.json.*fold all"):
        generate_splits(NAMES[:4])


def test_split_file_of_the_data_set_is_used(dataset):
    (dataset.root / "splits_final.json").write_text(json.dumps(some_splits()))
    assert [case.name for case in fold_cases(dataset, 0).val] == ["case_000"]


def test_split_file_of_nnunet_is_used(dataset, preprocessed):
    (preprocessed / "splits_final.json").write_text(json.dumps(some_splits("case_003")))
    assert [case.name for case in fold_cases(dataset, 0).val] == ["case_003"]


def test_two_split_files_that_agree_are_accepted_whatever_their_order(dataset, preprocessed):
    turned = [{part: names[::-1] for part, names in split.items()} for split in some_splits()]
    (preprocessed / "splits_final.json").write_text(json.dumps(some_splits()))
    (dataset.root / "splits_final.json").write_text(json.dumps(turned))
    assert len(load_splits(dataset)) == 2


def test_two_split_files_that_disagree_are_an_error_that_names_both(dataset, preprocessed):
    ours, theirs = dataset.root / "splits_final.json", preprocessed / "splits_final.json"
    theirs.write_text(json.dumps(some_splits()))
    ours.write_text(json.dumps(some_splits("case_001")))
    with pytest.raises(DatasetError) as error:
        load_splits(dataset)
    assert str(ours) in str(error.value)
    assert str(theirs) in str(error.value)


@pytest.mark.parametrize("content", ["{", "5", '[{"train": []}]', '[["a"]]'])
def test_garbled_split_file_is_an_error_that_names_it(dataset, content):
    file = dataset.root / "splits_final.json"
    file.write_text(content)
    with pytest.raises(DatasetError, match="need a list of") as error:
        load_splits(dataset)
    assert str(file) in str(error.value)


def test_split_that_names_an_absent_case_is_an_error_that_names_it(dataset):
    splits = [{"train": [*NAMES, "case_777"], "val": []}]
    (dataset.root / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(DatasetError, match="case_777"):
        fold_cases(dataset, 0)


@pytest.mark.parametrize("part", ["train", "val"])
def test_split_with_an_empty_part_is_an_error_that_names_it(dataset, part):
    (dataset.root / "splits_final.json").write_text(json.dumps([{"train": NAMES, "val": NAMES, part: []}]))
    with pytest.raises(DatasetError, match=f"fold 0 has no case under {part}.*use fold all"):
        fold_cases(dataset, 0)


def test_fold_all_trains_and_validates_every_case(dataset):
    fold = fold_cases(dataset, "all")
    assert [case.name for case in fold.train] == NAMES
    assert [case.name for case in fold.val] == NAMES


@pytest.mark.parametrize("fold", [5, -1, "0", 1.0, True, None])
def test_bad_fold_is_an_error_that_says_what_is_allowed(dataset, fold):
    with pytest.raises(DatasetError, match="fold: need 0 to 4 or all"):
        fold_cases(dataset, fold)
