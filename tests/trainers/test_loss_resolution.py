"""`loss_resolution=low`: a training on logits as the network makes them; all else sees full size."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from torch import nn

from nnunet_ext import network_choice
from nnunet_ext.errors import OptionError
from nnunet_ext.recipe import from_section, resolve
from nnunet_ext.trainers.CustomTrainer import CustomTrainer
from nnunet_ext.trainers.nnUNetTrainerSAMed import nnUNetTrainerSAMed
from nnunet_ext.training.losses import LOSSES, LossSetting, ResizedTarget

LOW = ("network=samed", "network.variant=small", "network.image_size=64", "loss_resolution=low")
SHORT = ("epochs=1", "iterations_per_epoch=2", "val_iterations_per_epoch=1", "batch_size=2", "warmup_epochs=0")
PATCH_SIZE = (64, 64)


@pytest.fixture(params=[CustomTrainer, nnUNetTrainerSAMed])
def trainer(request, folders):
    folders.configure("2d_low", *LOW)
    trainer = folders.trainer(request.param, "2d_low")
    trainer.initialize()
    return trainer


def batch_of(trainer) -> dict:
    size = trainer.configuration_manager.patch_size
    return {"data": torch.randn(2, 2, *size), "target": torch.randint(0, 3, (2, 1, *size)).float()}


def test_training_steps_on_logits_of_a_quarter_of_the_canvas(trainer):
    seen = []
    trainer.loss.loss.register_forward_pre_hook(lambda _, inputs: seen.append([tuple(x.shape) for x in inputs]))
    loss = trainer.train_step(batch_of(trainer))["loss"]
    assert np.isfinite(loss)
    assert seen == [[(2, 3, 16, 16), (2, 1, 16, 16)]]  # 64 / 4


def test_online_validation_sees_full_size(trainer):
    trainer.on_validation_epoch_start()
    batch = batch_of(trainer)
    height, width = batch["data"].shape[2:]
    with torch.no_grad():
        assert trainer.network(batch["data"]).shape == (2, 3, height, width)
        step = trainer.validation_step(batch)
    labelled = [int((batch["target"] == value).sum()) for value in (1, 2)]
    assert np.isfinite(step["loss"])
    assert (step["tp_hard"] + step["fn_hard"]).tolist() == labelled  # every pixel of the full patch is counted


def test_a_training_reports_dice_validates_and_predicts_at_full_size(folders, tmp_path):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folders.configure("2d_low", *LOW, *SHORT)
    folders.train("nnUNetTrainerSAMed", "2d_low", export_validation_probabilities=True)
    model = folders.model("nnUNetTrainerSAMed", "2d_low")
    log = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)["logging"]
    assert np.isfinite(log["mean_fg_dice"]).all()
    assert (model / "fold_0" / "validation" / "summary.json").is_file()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    images, reference = (folders.raw / "Dataset990_Cubes" / name for name in ("imagesTs", "labelsTs/cube_05.nii.gz"))
    predictor.predict_from_files_sequential(str(images), str(tmp_path), save_probabilities=True)
    size = sitk.ReadImage(str(reference)).GetSize()
    assert sitk.ReadImage(str(tmp_path / "cube_05.nii.gz")).GetSize() == size
    assert np.load(tmp_path / "cube_05.npz")["probabilities"].shape == (3, *size[::-1])


class Corner(nn.Module):
    """A loss that gives back its target."""

    def forward(self, logits, target):
        return target


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int16])
def test_targets_take_the_nearest_value_in_their_own_type(dtype):
    target = torch.zeros(1, 2, 4, 4, dtype=dtype)
    target[0, 1, :2, :2] = 1
    small = ResizedTarget(Corner())(torch.zeros(1, 5, 2, 2), target)
    assert small.dtype == dtype
    assert small[0].tolist() == [[[0, 0], [0, 0]], [[1, 0], [0, 0]]]


def test_targets_of_volumes_are_resized_too():
    target = torch.arange(2).repeat_interleave(4).view(1, 1, 8, 1, 1).expand(1, 1, 8, 4, 4)
    small = ResizedTarget(Corner())(torch.zeros(1, 2, 2, 2, 2), target)
    assert small[0, 0, :, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("ignore_label", [None, 3])
def test_every_loss_takes_regions_and_ignored_pixels_at_low_resolution(name, ignore_label):
    setting = LossSetting(has_regions=True, ignore_label=ignore_label, batch_dice=True, ddp=False)
    masks = torch.rand(2, 2 + (ignore_label is not None), 32, 32) > 0.5
    logits = torch.randn(2, 2, 8, 8, requires_grad=True)
    ResizedTarget(LOSSES[name].build(setting))(logits, masks).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("network", ["enet", "planned", "sam2unet"])
def test_networks_without_it_refuse_it(network):
    message = rf"network {network} has logits of full size only; set loss_resolution=full \(low is for: .*samed"
    with pytest.raises(OptionError, match=message):
        resolve({"network": network, "loss_resolution": "low"}, patch_size=PATCH_SIZE)


def test_other_values_are_refused():
    with pytest.raises(OptionError, match="loss_resolution must be one of full, low, got 'half'"):
        resolve({"network": "samed", "loss_resolution": "half"}, patch_size=PATCH_SIZE)


def test_the_option_of_the_network_is_left_to_the_training():
    with pytest.raises(OptionError, match=r"network\.low_resolution of samed is set by the training; set loss_reso"):
        resolve({"network": "samed", "network_options": {"low_resolution": True}}, patch_size=PATCH_SIZE)


def test_plans_of_an_older_version_with_the_networks_option_are_read():
    section = resolve({"network": "samed"}, patch_size=PATCH_SIZE).section()
    del section["loss_resolution"]
    section["network_options"]["low_resolution"] = False
    options = from_section(section, PATCH_SIZE)
    assert options.loss_resolution == "full"
    assert "low_resolution" not in options.network_options


ABLE = sorted(filter(network_choice.has_low_resolution, network_choice.network_choices()))


def test_samed_is_able():
    assert "samed" in ABLE


@pytest.mark.parametrize("key", ABLE)
def test_whoever_can_give_smaller_logits_gives_full_ones_in_evaluation_mode(key):
    network = network_choice.network_class(key)
    built = network_choice.build(key, 1, 3, 2, getattr(network, "small_options", {}), low_resolution=True)
    x = torch.randn(2, 1, 40, 56)
    assert built.train()(x).shape[:2] == (2, 3)
    assert built.train()(x).shape[2:] != x.shape[2:]
    assert built.eval()(x).shape == (2, 3, 40, 56)
