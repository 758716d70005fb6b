"""Reading dataset.json and listing cases."""

import json

import pytest

from nnunet_ext.data import open_dataset
from nnunet_ext.data.raw_dataset import list_cases
from nnunet_ext.errors import DatasetError


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize("written", [".", "../Dataset950_Test/", "imagesTr/..", "./"])
def test_name_is_the_folders_however_it_is_written(raw, monkeypatch, written):
    raw.describe()
    touch(raw.root / "imagesTr")
    monkeypatch.chdir(raw.root)
    assert open_dataset(written).name == "Dataset950_Test"


def test_name_of_a_link_is_its_own(raw):
    raw.describe()
    link = raw.root.parent / "linked"
    link.symlink_to(raw.root)
    assert open_dataset(f"{link}/").name == "linked"


def test_channels_come_in_the_order_of_their_numbers(raw):
    raw.describe(channels=("T1", "T2", "FLAIR"))
    touch(raw.root / "imagesTr", "a_0002.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz")
    touch(raw.root / "labelsTr", "a.nii.gz")
    (case,) = open_dataset(raw.root).training_cases().values()
    assert [path.name for path in case.images] == ["a_0000.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz"]


def test_channel_names_are_ordered_by_number_not_by_text(raw):
    raw.describe(channel_names={str(number): f"c{number}" for number in (10, 2, 0, 1, *range(3, 10))})
    assert open_dataset(raw.root).channel_names == [f"c{number}" for number in range(11)]


def test_missing_channel_is_an_error_that_names_the_case(raw):
    raw.describe(channels=("T1", "T2"))
    touch(raw.root / "imagesTr", "a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii.gz")
    with pytest.raises(DatasetError, match=r"imagesTr/b: need channels 0000 to 0001 .* got \['0001'\]"):
        open_dataset(raw.root).training_cases()


def test_strays_beside_the_images_are_ignored(raw):
    raw.describe()
    touch(raw.root / "imagesTr", "a_0000.nii.gz", ".DS_Store", "._a_0000.nii.gz", "notes.txt", "a.nii.gz")
    touch(raw.root / "labelsTr", "a.nii.gz", ".DS_Store", "._a.nii.gz")
    assert list(open_dataset(raw.root).training_cases()) == ["a"]


def test_case_names_may_contain_numbers_dots_and_spaces(raw):
    touch(raw.root / "images", "scan_0001_0000.nii.gz", "a b_0000.nii.gz", "v1.2_0000.nii.gz")
    assert sorted(list_cases(raw.root / "images", ".nii.gz", 1)) == ["a b", "scan_0001", "v1.2"]


def test_image_without_a_label_is_an_error_that_names_both_files(raw):
    raw.describe()
    touch(raw.root / "imagesTr", "a_0000.nii.gz")
    with pytest.raises(DatasetError, match=r"labelsTr/a.nii.gz: image without a label.*a_0000.nii.gz to imagesTs"):
        open_dataset(raw.root).training_cases()


def test_explicit_file_lists_are_used_in_place_of_folders(raw, tmp_path, monkeypatch):
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))
    listed = {
        "b": {"images": ["any/b.nii.gz"], "label": "any/b_seg.nii.gz"},
        "a": {"images": ["$ELSEWHERE/a.nii.gz"], "label": str(tmp_path / "a_seg.nii.gz")},
    }
    raw.describe(dataset=listed)
    a, b = open_dataset(raw.root).training_cases().values()
    assert (a.name, a.images, a.label) == ("a", (tmp_path / "elsewhere/a.nii.gz",), tmp_path / "a_seg.nii.gz")
    assert (b.images, b.label) == ((raw.root / "any/b.nii.gz",), raw.root / "any/b_seg.nii.gz")


def test_explicit_file_lists_match_nnunet(raw):
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    raw.describe(dataset={"a": {"images": ["x/../a.nii.gz"], "label": "/labels/a.nii.gz"}})
    theirs = get_filenames_of_train_images_and_targets(str(raw.root))["a"]
    ours = open_dataset(raw.root).training_cases()["a"]
    assert [str(path.resolve()) for path in ours.images] == theirs["images"]
    assert str(ours.label) == theirs["label"]


@pytest.mark.parametrize(
    "listed",
    [["a"], {"a": ["a.nii.gz"]}, {"a": {"images": ["a.nii.gz"]}}, {"a": {"images": "a.nii.gz", "label": "b.nii.gz"}}],
)
def test_garbled_file_list_is_an_error_that_names_dataset_json(raw, listed):
    raw.describe(dataset=listed)
    with pytest.raises(DatasetError, match=r"dataset\.json: dataset must"):
        open_dataset(raw.root).training_cases()


def test_file_list_with_too_few_channels_is_an_error_that_names_the_case(raw):
    raw.describe(channels=("T1", "T2"), dataset={"a": {"images": ["a.nii.gz"], "label": "b.nii.gz"}})
    with pytest.raises(DatasetError, match=r"dataset\.json: case a: need 2 images"):
        open_dataset(raw.root).training_cases()


def test_absent_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere, which does not exist"):
        open_dataset(tmp_path / "nowhere")


def test_folder_without_dataset_json_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DatasetError, match=r"dataset\.json: not found"):
        open_dataset(tmp_path)


def test_folder_without_images_is_an_error_that_shows_the_name_that_is_needed(raw):
    raw.describe()
    touch(raw.root / "imagesTr", "a.nii.gz")
    with pytest.raises(DatasetError, match=r"no file named <case>_0000.nii.gz"):
        open_dataset(raw.root).training_cases()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"numTraining": None, "file_ending": None}, r"entries \['file_ending'\] are missing"),
        ({"file_ending": None, "channel_names": None}, r"entries \['channel_names', 'file_ending'\] are missing"),
        ({"channel_names": None, "modality": {"0": "CT"}}, "`modality` is the old name of `channel_names`"),
        ({"channel_names": {"1": "CT"}}, "must number the channels 0, 1, ..."),
        ({"channel_names": {"zero": "CT"}}, "must number the channels 0, 1, ..."),
        ({"channel_names": ["CT"]}, "must number the channels 0, 1, ..."),
        ({"channel_names": {}}, "must number the channels 0, 1, ..."),
        ({"labels": {"0": "background", "1": "heart"}}, 'labels must contain "background": 0'),
        ({"labels": {"background": 1, "heart": 2}}, 'labels must contain "background": 0'),
        ({"labels": ["background", "heart"]}, "labels must"),
        ({"labels": {"background": 0}}, "at least one foreground label"),
        ({"labels": {"background": 0, "heart": 2}}, "consecutive from 1 on"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "consecutive from 1 on"),
        ({"labels": {"background": 0, "heart": "one"}}, "label values must be integers"),
        ({"labels": {"background": 0, "heart": 1.5}}, "label values must be integers"),
        ({"labels": {"background": 0, "heart": 1, "ignore": 2}}, "ignore labels are not supported"),
        ({"labels": {"background": 0, "whole": [1, 2], "core": 2}}, "regions need regions_class_order with 2"),
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1]},
            "regions need regions_class_order with 2",
        ),
        (
            {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": 1},
            "regions need regions_class_order with 2",
        ),
        ({"file_ending": 5}, "file_ending"),
    ],
)
def test_bad_entry_is_an_error_that_names_dataset_json(raw, entries, message):
    raw.describe(**entries)
    with pytest.raises(DatasetError, match=message) as error:
        open_dataset(raw.root)
    assert str(raw.root / "dataset.json") in str(error.value)


@pytest.mark.parametrize("content", ["{", "[]", "null", "7"])
def test_file_that_is_no_json_object_is_an_error_that_names_it(raw, content):
    (raw.root / "dataset.json").write_text(content)
    with pytest.raises(DatasetError, match=r"dataset\.json: "):
        open_dataset(raw.root)


def test_unknown_entries_are_kept_and_harmless(raw):
    raw.describe(reference="a paper", overwrite_image_reader_writer="SimpleITKIO")
    assert open_dataset(raw.root).description["reference"] == "a paper"
    json.dumps(open_dataset(raw.root).description)
