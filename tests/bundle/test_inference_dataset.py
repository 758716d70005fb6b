"""Finished cases are skipped, bad ones are named, and the rest is done."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from nnunet_ext.bundle import InferenceDataset, default_predictions_dir
from nnunet_ext.errors import UserError


@pytest.fixture
def images_dir(tmp_path):
    """Three images: a, b, c."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "abc":
        write_image(folder / f"{name}_0000.nii.gz")
    return folder


def write_image(path, shape=(2, 8, 8)) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.ones(shape, np.float32)), str(path))


def cases_of(dataset) -> list[str]:
    return [item["case"] for item in dataset]


def finish(output_dir, *names, npz=()) -> None:
    output_dir.mkdir(exist_ok=True)
    for name in names:
        (output_dir / f"{name}.nii.gz").touch()
        if npz:
            np.savez(output_dir / f"{name}.npz", **{key: np.zeros(1) for key in npz})


@pytest.fixture
def open_images(images_dir, tmp_path, make_card, checkpoint):
    def open_(**options) -> InferenceDataset:
        card = options.pop("card", None) or make_card()
        return InferenceDataset(images_dir, card, options.pop("checkpoint", checkpoint), tmp_path / "out", **options)

    return open_


def test_every_image_is_offered_once(open_images):
    dataset = open_images()
    assert cases_of(dataset) == ["a", "b", "c"]
    assert cases_of(dataset) == [], "a data loader that starts again must not predict again"


def test_image_comes_as_normalised_slices(open_images):
    item = next(iter(open_images()))
    assert item["image"].shape == (1, 2, 8, 8)
    assert item["image"].dtype == torch.float32


def test_finished_cases_are_skipped_and_counted(open_images, tmp_path, caplog):
    finish(tmp_path / "out", "a", "c")
    with caplog.at_level(logging.INFO):
        assert cases_of(open_images()) == ["b"]
    assert "2 of 3 cases are predicted already" in caplog.text


def test_finished_cases_are_done_again_on_request(open_images, tmp_path):
    finish(tmp_path / "out", "a", "c")
    assert cases_of(open_images(overwrite=True)) == ["a", "b", "c"]


def test_labels_without_the_probabilities_that_are_wanted_are_not_finished(open_images, tmp_path):
    finish(tmp_path / "out", "a")
    finish(tmp_path / "out", "b", npz=("probabilities",))
    finish(tmp_path / "out", "c", npz=("probabilities", "logits"))
    assert cases_of(open_images(save_probabilities=True)) == ["a"]
    assert cases_of(open_images(save_probabilities=True, save_logits=True)) == ["a", "b"]


@pytest.mark.parametrize("content", [b"", b"half", b"PK\x03\x04 half"])
def test_damaged_npz_is_not_finished(open_images, tmp_path, content):
    finish(tmp_path / "out", "a", npz=("probabilities",))
    (tmp_path / "out" / "a.npz").write_bytes(content)
    assert "a" in cases_of(open_images(save_probabilities=True))


def test_folder_that_a_failed_run_left_empty_may_take_other_weights(open_images, tmp_path):
    open_images()
    other = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(1)}, other)
    assert cases_of(open_images(checkpoint=other)) == ["a", "b", "c"]


def test_predictions_of_other_weights_are_refused(open_images, tmp_path, checkpoint):
    open_images()
    finish(tmp_path / "out", "a")
    other = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(1)}, other)
    with pytest.raises(UserError, match=r"holds predictions of other weights .*model_best\.pt.*--overwrite True"):
        open_images(checkpoint=other)


def test_predictions_of_other_options_of_the_network_are_refused(open_images, tmp_path, make_card):
    """Such as the iterations of a CRF, which no weight tells of."""
    cards = {count: replace(make_card(), network_options={"iterations": count}) for count in (1, 5)}
    open_images(card=cards[5])
    finish(tmp_path / "out", "a")
    assert cases_of(open_images(card=cards[5])) == ["b", "c"]
    with pytest.raises(UserError, match="holds predictions of other options of the network"):
        open_images(card=cards[1])
    assert cases_of(open_images(card=cards[1], overwrite=True)) == ["a", "b", "c"]


def test_record_of_an_older_version_is_continued(open_images, tmp_path):
    open_images()
    finish(tmp_path / "out", "a")
    record = tmp_path / "out" / "prediction.json"
    content = json.loads(record.read_text())
    del content["network_options"]
    record.write_text(json.dumps(content))
    assert cases_of(open_images()) == ["b", "c"]


def test_predictions_of_other_images_are_refused(open_images, images_dir, tmp_path, make_card, checkpoint):
    open_images()
    finish(tmp_path / "out", "a")
    moved = images_dir.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="holds predictions of other images"):
        InferenceDataset(moved, make_card(), checkpoint, tmp_path / "out")


def test_overwriting_removes_everything_that_other_weights_left(open_images, tmp_path):
    open_images()
    finish(tmp_path / "out", "a", "no_longer_there")
    (tmp_path / "out" / "a.npz").touch()
    other = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(1)}, other)
    open_images(checkpoint=other, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dataset.json",
        "plans.json",
        "prediction.json",
    ]


def test_the_same_weights_in_another_place_are_accepted(open_images, tmp_path, checkpoint):
    open_images()
    moved = tmp_path / "moved.pt"
    moved.write_bytes(checkpoint.read_bytes())
    open_images(checkpoint=moved)


def test_overwriting_that_was_interrupted_never_mixes_weights(open_images, tmp_path):
    open_images()
    finish(tmp_path / "out", "a", "b", "c")
    other = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(1)}, other)
    open_images(checkpoint=other, overwrite=True)  # killed before its first case
    assert cases_of(open_images(checkpoint=other)) == ["a", "b", "c"]


def test_unreadable_case_is_named_and_the_rest_is_offered(open_images, images_dir, caplog):
    (images_dir / "b_0000.nii.gz").write_text("no image")
    dataset = open_images()
    assert cases_of(dataset) == ["a", "c"]
    assert "case b skipped" in caplog.text
    with pytest.raises(UserError, match=r"1 case\(s\) failed, 2 predicted in .*\n  b: .*b_0000\.nii\.gz"):
        dataset.report()


def test_case_without_a_channel_is_named_and_the_rest_is_offered(open_images, images_dir, make_card):
    for name in "ac":
        write_image(images_dir / f"{name}_0001.nii.gz")
    dataset = open_images(card=make_card(num_channels=2))
    assert cases_of(dataset) == ["a", "c"]
    with pytest.raises(UserError, match=r"1 case\(s\) failed, 2 predicted.*\n  b: .*need channels 0000 to 0001"):
        dataset.report()


def test_channels_on_different_grids_are_named(open_images, images_dir, make_card):
    for name in "abc":
        write_image(images_dir / f"{name}_0001.nii.gz", shape=(2, 8, 9 if name == "c" else 8))
    dataset = open_images(card=make_card(num_channels=2))
    assert cases_of(dataset) == ["a", "b"]
    with pytest.raises(UserError, match="c_0001"):
        dataset.report()


def test_a_photograph_of_the_wrong_number_of_channels_is_named(images_dir, tmp_path, make_card, checkpoint):
    sitk.WriteImage(sitk.Image(8, 8, sitk.sitkUInt8), str(images_dir / "grey_0000.png"))
    card = make_card(num_channels=3, file_ending=".png")
    dataset = InferenceDataset(images_dir, card, checkpoint, tmp_path / "out")
    assert cases_of(dataset) == []
    with pytest.raises(UserError, match=r"grey_0000\.png: need 3 channels as in training, got 1"):
        dataset.report()


def test_nothing_wrong_raises_nothing(open_images):
    dataset = open_images()
    cases_of(dataset)
    dataset.report()


def test_folder_without_images_is_refused(tmp_path, make_card, checkpoint):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no file named <case>_0000\.nii\.gz"):
        InferenceDataset(tmp_path / "empty", make_card(), checkpoint, tmp_path / "out")
    with pytest.raises(UserError, match=r"images_dir: .*nowhere does not exist; name one: --images_dir"):
        InferenceDataset(tmp_path / "nowhere", make_card(), checkpoint, tmp_path / "out")


def test_folder_of_predictions_is_named_after_the_folder_above_the_images(tmp_path, monkeypatch):
    (tmp_path / "Dataset001_A" / "imagesTs").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert default_predictions_dir("p", "../Dataset001_A/imagesTs") == "p/Dataset001_A"
    assert default_predictions_dir("p", "../x") == f"p/{tmp_path.name}"
