"""What lies beside the weights."""

import json
from dataclasses import replace

import pytest

from nnunet_ext.bundle import ModelCard, read_model_card
from nnunet_ext.data import open_dataset
from nnunet_ext.errors import UserError


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


def test_network_that_restores_images_is_refused_where_one_must_segment(make_card, tmp_path):
    card = replace(make_card(), restores=True)
    card.write(tmp_path)
    with pytest.raises(UserError, match=r"must be a network that segments.*--pretrained .*model_best\.pt"):
        read_model_card(tmp_path / "model_best.pt")
    assert read_model_card(tmp_path / "model_best.pt", pretraining=True) == card


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
