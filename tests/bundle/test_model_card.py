"""What lies beside the weights, and how weights are found."""

import json
import os

import pytest

from nnunet_ext.bundle import ModelCard, find_checkpoint, read_model_card
from nnunet_ext.data import open_dataset
from nnunet_ext.errors import UserError


def touch(path, seconds=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (seconds, seconds))
    return str(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_written_card_is_read_back(make_card, tmp_path, ending):
    card = make_card(file_ending=ending, slice_axis=2, image_size=(64, 48))
    card.write(tmp_path)
    assert read_model_card(tmp_path / "model_best.pt") == card


def test_plans_hold_what_nnunet_reads(make_card, tmp_path):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    make_card().write(tmp_path)
    plans = PlansManager(json.loads((tmp_path / "plans.json").read_text()))
    dataset_json = json.loads((tmp_path / "dataset.json").read_text())
    assert plans.image_reader_writer_class.__name__ == "SimpleITKIO"
    assert plans.dataset_name == "Dataset950_Test"
    assert plans.get_label_manager(dataset_json).foreground_labels == [1, 2]


def test_photographs_get_nnunets_reader_for_them(make_card, tmp_path):
    make_card(file_ending=".png").write(tmp_path)
    assert json.loads((tmp_path / "plans.json").read_text())["image_reader_writer"] == "NaturalImage2DIO"


def test_file_lists_do_not_leave_the_data_set(tiny_phantom, make_card):
    dataset = open_dataset(tiny_phantom)
    dataset.description["dataset"] = {"secret": {}}
    assert "dataset" not in ModelCard.of(dataset, make_card().preprocessing, (32, 32)).dataset_json


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_missing_file_beside_the_weights_is_an_error_that_says_what_to_do(make_card, tmp_path, name):
    make_card().write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=r"plans\.json and dataset\.json must lie beside model\.pt.*copy them"):
        read_model_card(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "null", '{"plans_name": "nnUNetPlans"}', '{"nnunet_ext": {"image_size": 5, "preprocessing": {}}}'],
)
def test_plans_of_another_program_are_refused_by_name(make_card, tmp_path, content):
    make_card().write(tmp_path)
    (tmp_path / "plans.json").write_text(content)
    with pytest.raises(UserError, match=r"plans\.json: not written by a bundle's training"):
        read_model_card(tmp_path / "model.pt")


def test_a_checkpoint_file_is_taken_as_it_is(tmp_path):
    file = touch(tmp_path / "any.pt")
    assert find_checkpoint(file) == file


def test_a_runs_folder_gives_its_best_model(tmp_path):
    file = touch(tmp_path / "run" / "model_best.pt", 1)
    touch(tmp_path / "run" / "older" / "model_best.pt", 2)
    assert find_checkpoint(tmp_path / "run") == file


def test_a_folder_of_runs_gives_the_newest_best_model(tmp_path):
    touch(tmp_path / "runs" / "b" / "fold_0" / "model_best.pt", 1)
    newest = touch(tmp_path / "runs" / "a" / "fold_1" / "model_best.pt", 2)
    touch(tmp_path / "runs" / "c" / "checkpoint_last.pt", 3)
    assert find_checkpoint(tmp_path / "runs") == newest


def test_a_run_of_the_same_data_set_comes_before_newer_ones(tmp_path, caplog):
    for seconds, name in ((1, "Dataset004_A"), (2, "Dataset005_B")):
        touch(tmp_path / name / "model_best.pt", seconds)
        (tmp_path / name / "plans.json").write_text(json.dumps({"dataset_name": name}))
    assert find_checkpoint(tmp_path, dataset_dir="data/Dataset004_A") == str(tmp_path / "Dataset004_A/model_best.pt")
    assert not caplog.text
    assert find_checkpoint(tmp_path, dataset_dir="data/other") == str(tmp_path / "Dataset005_B/model_best.pt")
    assert "no run was trained on other" in caplog.text


def test_the_packaged_model_is_taken_when_there_is_no_run(tmp_path):
    packaged = touch(tmp_path / "bundle" / "models" / "model.pt")
    assert find_checkpoint(tmp_path / "runs", tmp_path / "bundle") == packaged


def test_no_checkpoint_is_an_error_that_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(UserError, match="train first") as error:
        find_checkpoint(tmp_path / "runs", tmp_path / "bundle")
    assert str(tmp_path / "runs") in str(error.value)
    assert str(tmp_path / "bundle" / "models" / "model.pt") in str(error.value)
