"""A CRF under nnU-Net: starts from a trained base, trains what is asked for, and fits the kind of labels."""

import pytest
import torch

from nnunet_ext.errors import OptionError
from nnunet_ext.networks import ENet
from nnunet_ext.recipe import resolve
from nnunet_ext.trainers.CustomTrainer import CustomTrainer
from nnunet_ext.trainers.nnUNetTrainerCRF import nnUNetTrainerCRF


@pytest.fixture
def weights(tmp_path):
    """An ENet for the images of `folders`: 2 channels, background and 2 labels."""
    torch.manual_seed(7)
    file = tmp_path / "model_best.pt"
    torch.save(ENet(2, 3).state_dict(), file)
    return file


@pytest.fixture
def start(folders):
    """A function that brings a trainer of some settings to where its training starts."""

    def make(*settings: str, trainer_class: type = CustomTrainer) -> CustomTrainer:
        folders.configure("2d_crf", "network=crf", *settings)
        trainer = folders.trainer(trainer_class, "2d_crf")
        trainer.initialize()
        trainer._load_pretrained()
        return trainer

    return make


def step(trainer: CustomTrainer) -> None:
    size = trainer.configuration_manager.patch_size
    images, labels = torch.randn(2, 2, *size), torch.randint(0, 3, (2, 1, *size)).float()
    trainer.network.train()
    trainer.train_step({"data": images, "target": labels})


@pytest.mark.parametrize(("trainable", "trained"), [("crf", ("crf.",)), ("last", ("crf.", "base.classifier."))])
def test_step_of_the_training_changes_exactly_what_is_to_train(start, weights, trainable, trained):
    trainer = start(f"network.trainable={trainable}", f"pretrained={weights}", trainer_class=nnUNetTrainerCRF)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    loaded = torch.load(weights, weights_only=True)
    assert all(torch.equal(before[f"base.{name}"], value) for name, value in loaded.items())
    step(trainer)
    after = trainer.network.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.startswith(trained)}


def test_options_of_the_field_reach_the_network(start):
    trainer = start("network.appearance_weight=2.5", "network.spacing_mm=0.5,2.0", "network.iterations=2")
    assert trainer.network.crf.appearance.weight().item() == pytest.approx(2.5)
    assert trainer.network.crf.iterations == 2
    assert trainer.network.spacing_mm == (0.5, 2.0)


def test_frozen_base_without_weights_is_an_error(start):
    with pytest.raises(OptionError, match="keeps part of its weights as they are; set pretrained=FILE"):
        start("network.trainable=crf")


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_bytes(b"PK")])
def test_missing_or_damaged_weights_are_named(start, weights, spoil):
    spoil(weights)
    with pytest.raises(OptionError, match=r"pretrained: .*model_best\.pt: must be a plain state dict"):
        start(f"pretrained={weights}")


def test_weights_of_another_network_are_refused(start, weights):
    torch.save(ENet(2, 4).state_dict(), weights)
    with pytest.raises(OptionError, match="don't fit the base network"):
        start(f"pretrained={weights}")


def test_regions_for_a_data_set_of_classes_are_refused(start):
    with pytest.raises(OptionError, match=r"labels of this data set are classes; set network.regions=false"):
        start("network.regions=true")


def test_voxel_size_of_the_plans_is_that_of_the_network(folders):
    plans = folders.plans()
    plans["configurations"]["2d"]["spacing"] = [4.0, 3.0]
    network = folders.trainer(nnUNetTrainerCRF, "2d", plans)
    network.initialize()
    network = network.network
    assert network.spacing_mm == (4.0, 3.0)
    assert network.crf.smoothness.bandwidths_mm().tolist() == pytest.approx([3.0, 3.0])


def test_bandwidths_follow_the_voxel_size_of_the_options_or_else_of_the_plans():
    plain = resolve({"network": "crf"}, patch_size=(64, 64)).network_options
    assert (plain["spacing_mm"], plain["smoothness_mm"], plain["appearance_mm"]) == ([], 1.0, 2.0)
    coarse = resolve({"network": "crf"}, patch_size=(64, 64), spacing_mm=(4, 3)).network_options
    assert (coarse["spacing_mm"], coarse["smoothness_mm"], coarse["appearance_mm"]) == ([4.0, 3.0], 3.0, 6.0)
    given = {"network": "crf", "network_options": {"spacing_mm": [1, 2]}}
    assert resolve(given, patch_size=(64, 64), spacing_mm=(4, 3)).network_options["smoothness_mm"] == 1.0


@pytest.mark.parametrize(("patch_size", "base"), [((64, 64), "enet"), ((16, 16, 16), "genesisunet3d")])
def test_plans_name_the_base_that_nobody_named(patch_size, base):
    options = resolve({}, preset=nnUNetTrainerCRF.preset, patch_size=patch_size)
    assert options.network_options["base"] == base
