"""CustomTrainer: the section of the plans rules the training."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_ext import trainers
from nnunet_ext.errors import OptionError
from nnunet_ext.networks import ENet
from nnunet_ext.trainers.CustomTrainer import CustomTrainer
from nnunet_ext.trainers.nnUNetTrainerENet import nnUNetTrainerENet
from nnunet_ext.training.structure_loss import StructureLoss


def test_a_planned_2d_configuration_trains_enet(folders):
    trainer = folders.trainer(CustomTrainer)
    trainer.initialize()
    assert isinstance(trainer.network, ENet)


def test_a_planned_3d_configuration_names_configure(folders):
    with pytest.raises(OptionError, match=r"configuration 3d_fullres: .*python -m nnunet_ext configure"):
        folders.trainer(CustomTrainer, "3d_fullres")


def test_a_planned_3d_configuration_trains_the_planned_network(folders):
    folders.configure("3d_short", "network=planned", "epochs=2", configuration="3d_fullres")
    trainer = folders.trainer(CustomTrainer, "3d_short")
    trainer.initialize()
    logits = trainer.network(torch.zeros(1, 2, *trainer.configuration_manager.patch_size))
    assert logits[0].shape[1:] == (3, *trainer.configuration_manager.patch_size)


def test_configured_values_reach_the_trainer(folders):
    settings = (
        "epochs=7 iterations_per_epoch=5 val_iterations_per_epoch=4 optimizer=adamw learning_rate=0.002 "
        "weight_decay=0.03 momentum=0.8 oversample_foreground=0.5 save_every=3 batch_size=4 patch_size=32,24 "
        "network.input_scale=2"
    )
    folders.configure("2d_all", *settings.split())
    trainer = folders.trainer(CustomTrainer, "2d_all")
    trainer.initialize()
    group = trainer.optimizer.param_groups[0]
    assert type(trainer.optimizer) is torch.optim.AdamW
    assert (group["lr"], group["weight_decay"], group["betas"][0]) == (0.002, 0.03, 0.8)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (7, 5, 4)
    assert (trainer.oversample_foreground_percent, trainer.save_every, trainer.batch_size) == (0.5, 3, 4)
    assert trainer.configuration_manager.patch_size == [32, 24]
    assert trainer.network.input_scale == 2


def test_the_callers_plans_are_left_alone(folders):
    plans = folders.plans()
    folders.trainer(CustomTrainer, plans=plans)
    assert "nnunet_ext" not in plans["configurations"]["2d"]


def test_a_preset_trains_a_configured_configuration_with_its_values(folders):
    folders.configure("2d_enet", "network=enet", "epochs=7")
    assert folders.trainer(nnUNetTrainerENet, "2d_enet").num_epochs == 7


def test_a_preset_refuses_a_configuration_of_another_network(folders):
    folders.configure("2d_unet", "network=planned")
    with pytest.raises(OptionError, match="preset for network enet, the configuration says network planned"):
        folders.trainer(nnUNetTrainerENet, "2d_unet")


def test_an_unknown_key_in_the_plans_is_refused_with_the_configuration(folders):
    plans = folders.plans()
    plans["configurations"]["2d"]["nnunet_ext"] = {"epohcs": 5}
    with pytest.raises(OptionError, match="configuration 2d: unknown option 'epohcs'"):
        folders.trainer(CustomTrainer, plans=plans)


def test_the_planned_network_and_its_loss_match_nnunet(folders):
    folders.configure("2d_unet", "network=planned")
    ours, stock = folders.trainer(CustomTrainer, "2d_unet"), folders.trainer(nnUNetTrainer, "2d")
    ours.initialize()
    stock.initialize()
    ours.network.load_state_dict(stock.network.state_dict(), strict=True)
    assert ours._get_deep_supervision_scales() == stock._get_deep_supervision_scales()
    assert type(ours.optimizer) is type(stock.optimizer)
    ours_group, stock_group = (dict(trainer.optimizer.param_groups[0], params=None) for trainer in (ours, stock))
    assert ours_group == {name: value for name, value in stock_group.items() if name != "initial_lr"}
    images = torch.randn(2, 2, *stock.configuration_manager.patch_size)
    logits = stock.network(images)
    targets = [torch.randint(0, 3, (2, 1, *output.shape[2:])) for output in logits]
    torch.testing.assert_close(ours.loss(logits, targets), stock.loss(logits, targets))


@pytest.mark.parametrize("weights", [("ce", 0, 1), ("dice", 1, 0)])
def test_single_losses_are_the_parts_of_the_compound(folders, weights):
    name, dice_weight, entropy_weight = weights
    folders.configure("2d_loss", f"loss={name}", "network=enet")
    trainer = folders.trainer(CustomTrainer, "2d_loss")
    trainer.initialize()
    compound = folders.trainer(CustomTrainer, "2d")
    compound.initialize()
    logits, target = torch.randn(2, 3, 16, 16), torch.randint(0, 3, (2, 1, 16, 16))
    parts = dice_weight * compound.loss.dc(logits, target) + entropy_weight * compound.loss.ce(logits, target[:, 0])
    torch.testing.assert_close(trainer.loss(logits, target), parts)


def test_structure_loss_is_summed_over_the_outputs_of_sam2unet(folders):
    folders.configure("2d_sam2", "network=sam2unet", "network.variant=mini", "network.image_size=64", "loss=structure")
    trainer = folders.trainer(CustomTrainer, "2d_sam2")
    trainer.initialize()
    logits, target = torch.randn(2, 3, 40, 36), torch.randint(0, 3, (2, 1, 40, 36)).float()
    masks = torch.nn.functional.one_hot(target[:, 0].long(), 3).movedim(-1, 1)
    expected = StructureLoss(background=True)(logits, masks)
    torch.testing.assert_close(trainer.loss([logits] * 3, [target] * 3), expected)  # three times a third
    patch_size = trainer.configuration_manager.patch_size
    targets = [torch.randint(0, 3, (2, 1, *patch_size)).float() for _ in range(3)]
    batch = {"data": torch.randn(2, 2, *patch_size), "target": targets}
    assert 0 < trainer.train_step(batch)["loss"] < 10
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        assert 0 < trainer.validation_step(batch)["loss"] < 10


def length_of_one_step(trainer, value: float = 1.0) -> float:
    """Return how far one training step on noise, times a value, moves the weights."""
    before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
    patch_size = trainer.configuration_manager.patch_size
    batch = {"data": torch.randn(2, 2, *patch_size) * value, "target": torch.randint(0, 3, (2, 1, *patch_size))}
    trainer.train_step(batch)
    moved = [after - start for after, start in zip(trainer.network.parameters(), before, strict=True)]
    return torch.linalg.vector_norm(torch.cat([step.detach().flatten() for step in moved])).item()


@pytest.fixture
def clipped(folders):
    """A trainer whose plain SGD steps at learning rate 1 are as long as the gradient, at most 0.01."""
    plain = ("optimizer=sgd", "learning_rate=1", "momentum=0", "weight_decay=0")
    folders.configure("2d_clip", *plain, "gradient_clip=0.01")
    trainer = folders.trainer(CustomTrainer, "2d_clip")
    trainer.initialize()
    return trainer


def test_gradient_clip_bounds_the_step(clipped):
    assert length_of_one_step(clipped) == pytest.approx(0.01, rel=1e-3)


def test_a_batch_without_finite_gradients_leaves_the_weights_alone(clipped):
    assert length_of_one_step(clipped, value=float("nan")) == 0


def test_mirroring_can_be_switched_off(folders):
    folders.configure("2d_still", "mirror=false")
    still, usual = folders.trainer(CustomTrainer, "2d_still"), folders.trainer(CustomTrainer)
    assert still.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] is None
    assert still.inference_allowed_mirroring_axes is None
    assert usual.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] == (0, 1)


@pytest.mark.parametrize(
    "settings", [("augmentation=none",), ("augmentation=basic",), ("augment_from_epoch=8",)], ids=str
)
def test_a_network_that_saw_no_mirrored_image_predicts_none(folders, settings):
    folders.configure("2d_upright", "epochs=7", *settings)
    trainer = folders.trainer(CustomTrainer, "2d_upright")
    assert trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] is None
    assert trainer.inference_allowed_mirroring_axes is None


def test_a_seed_fixes_the_initial_weights(folders):
    folders.configure("2d_seed", "seed=3")
    first, second = (folders.trainer(CustomTrainer, "2d_seed") for _ in range(2))
    first.initialize()
    torch.rand(1)
    second.initialize()
    for one, other in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_write_that_breaks_leaves_the_previous_checkpoint(folders, monkeypatch):
    trainer = folders.trainer(CustomTrainer)
    trainer.initialize()
    path = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()

    def break_off(content, file):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before


def test_disabled_checkpointing_writes_nothing(folders):
    trainer = folders.trainer(CustomTrainer)
    trainer.initialize()
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert not list(Path(trainer.output_folder).glob("*.pth*"))


@pytest.fixture
def saved_fold_0(folders):
    """A checkpoint of fold 0, as training leaves it, and the plans beside it; then other options in the plans."""
    folders.configure("2d_a", "epochs=5")
    trainer = folders.trainer(CustomTrainer, "2d_a")
    trainer.initialize()
    path = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.current_epoch = -1
    for key in ("train_losses", "val_losses"):
        trainer.logger.log(key, 1.0, 0)
    trainer.save_checkpoint(str(path))
    (Path(trainer.output_folder_base) / "plans.json").write_text(json.dumps(trainer.plans_manager.plans))
    plans = folders.plans()
    plans["configurations"]["2d_a"]["nnunet_ext"]["epochs"] = 6
    folders.plans_path.write_text(json.dumps(plans))
    return path


def test_a_checkpoint_of_other_options_is_not_loaded(folders, saved_fold_0):
    with pytest.raises(OptionError, match=r"models trained with other options \(epochs: 5 -> 6\); delete the folder"):
        folders.trainer(CustomTrainer, "2d_a").load_checkpoint(str(saved_fold_0))


def test_a_fold_of_other_options_is_not_added(folders, saved_fold_0):
    with pytest.raises(OptionError, match=r"models trained with other options \(epochs: 5 -> 6\)"):
        folders.trainer(CustomTrainer, "2d_a", fold=1).run_training()


def test_the_only_fold_may_start_anew_with_other_options(folders, saved_fold_0):
    trainer = folders.trainer(CustomTrainer, "2d_a")
    trainer.on_train_start()
    saved = json.loads((Path(trainer.output_folder_base) / "plans.json").read_text())
    assert saved["configurations"]["2d_a"]["nnunet_ext"]["epochs"] == 6


@pytest.fixture
def trainer_files(tmp_path, monkeypatch):
    """A folder whose files count as trainers of the project."""
    folder = tmp_path / "more_trainers"
    folder.mkdir()
    monkeypatch.setattr(trainers, "__path__", [*trainers.__path__, str(folder)])
    importlib.invalidate_caches()
    yield folder
    for path in folder.glob("*.py"):
        sys.modules.pop(f"nnunet_ext.trainers.{path.stem}", None)


@pytest.mark.parametrize("fault", ["import no_such_module", "import torch\ntorch.no_such_name", "x = 1"])
def test_a_broken_trainer_shows_its_error_and_hides_no_other(folders, trainer_files, fault):
    (trainer_files / "BrokenTrainer.py").write_text(fault)
    assert recursive_find_trainer_class_by_name("nnUNetTrainerENet") is nnUNetTrainerENet
    with pytest.raises(ImportError, match=r"no_such_module|no_such_name|BrokenTrainer"):
        recursive_find_trainer_class_by_name("BrokenTrainer")


def test_a_name_that_is_nobodys_is_left_to_nnunet(folders):
    with pytest.raises(RuntimeError, match="Could not find requested nnunet trainer nnUNetTrainerNobody"):
        recursive_find_trainer_class_by_name("nnUNetTrainerNobody")
