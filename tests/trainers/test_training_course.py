"""Gradient accumulation, plateau and early stopping under nnU-Net's own training loop."""

import copy

import numpy as np
import pytest
import torch

from nnunet_ext.trainers.CustomTrainer import CustomTrainer

PLAIN = ("network=enet", "network.input_scale=1", "optimizer=sgd", "momentum=0", "weight_decay=0", "learning_rate=0.1")
SHORT = ("iterations_per_epoch=2", "val_iterations_per_epoch=1", "batch_size=2")


def weights(trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.network.parameters()])


def batches(trainer, count: int) -> list[dict]:
    torch.manual_seed(1)
    size = trainer.configuration_manager.patch_size
    return [{"data": torch.randn(2, 2, *size), "target": torch.randint(0, 3, (2, 1, *size))} for _ in range(count)]


def test_accumulated_batches_make_one_step_and_the_last_ones_too(folders):
    """Five batches in groups of two: steps after the second, the fourth and the fifth."""
    folders.configure("2d_sum", *PLAIN, "iterations_per_epoch=5", "accumulation_steps=2")
    trainer = folders.trainer(CustomTrainer, "2d_sum")
    trainer.initialize()
    for epoch in range(2):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        moved = []
        for batch in batches(trainer, 5):
            before = weights(trainer)
            trainer.train_step(batch)
            moved.append(not torch.equal(before, weights(trainer)))
        assert moved == [False, True, False, True, True]


def test_an_accumulated_step_is_that_of_the_mean_gradient(folders):
    folders.configure("2d_sum", *PLAIN, "iterations_per_epoch=4", "accumulation_steps=2", "network.dropout=0,0")
    trainer = folders.trainer(CustomTrainer, "2d_sum")
    trainer.initialize()
    trainer.on_train_epoch_start()
    network = copy.deepcopy(trainer.network)
    pair = batches(trainer, 2)
    losses = [trainer.loss(network(batch["data"]), batch["target"]) for batch in pair]
    (sum(losses) / 2).backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
    expected = torch.cat([(p.detach() - 0.1 * p.grad).flatten() for p in network.parameters()])
    for batch in pair:
        trainer.train_step(batch)
    torch.testing.assert_close(weights(trainer), expected, atol=1e-5, rtol=1e-4)


@pytest.fixture
def standing_still(monkeypatch):
    """Train nothing; each epoch's Dice is 0.5."""
    monkeypatch.setattr(CustomTrainer, "train_step", lambda *_: {"loss": np.array(0.0)})

    def validate(trainer, outputs):
        for key in ("mean_fg_dice", "val_losses"):
            trainer.logger.log(key, 0.5, trainer.current_epoch)
        trainer.logger.log("dice_per_class_or_region", [0.5], trainer.current_epoch)

    monkeypatch.setattr(CustomTrainer, "on_validation_epoch_end", validate)


def test_training_stops_early_and_stays_so_when_it_is_resumed(folders, standing_still):
    """The moving average is best in the first epoch: a patience of 3 ends the training after the fourth."""
    folders.configure("2d_stop", *PLAIN, *SHORT, "epochs=20", "early_stop_patience=3")
    trainer = folders.trainer(CustomTrainer, "2d_stop")
    trainer.run_training()
    assert trainer.current_epoch == 4
    final = f"{trainer.output_folder}/checkpoint_final.pth"
    again = folders.trainer(CustomTrainer, "2d_stop")
    again.load_checkpoint(final)
    again.run_training()
    assert again.current_epoch == 4
    assert torch.load(final, weights_only=False)["current_epoch"] == 4


def test_training_does_not_stop_without_a_patience(folders, standing_still):
    folders.configure("2d_stop", *PLAIN, *SHORT, "epochs=6")
    trainer = folders.trainer(CustomTrainer, "2d_stop")
    trainer.run_training()
    assert trainer.current_epoch == 6


def test_a_plateau_lowers_the_learning_rate_also_after_a_resumption(folders, standing_still):
    folders.configure("2d_flat", *PLAIN, *SHORT, "epochs=6", "schedule=plateau", "plateau_patience=2")
    trainer = folders.trainer(CustomTrainer, "2d_flat")
    trainer.run_training()
    # best in epoch 0; two epochs without gain end with epoch 2, four with epoch 4
    expected = [0.1, 0.1, 0.1, 0.02, 0.02, 0.004]
    assert trainer.logger.get_value("lrs", step=None) == pytest.approx(expected)
    again = folders.trainer(CustomTrainer, "2d_flat")
    again.initialize()
    again.logger.load_checkpoint(trainer.logger.get_checkpoint())
    again.lr_scheduler.step(5)
    assert again.optimizer.param_groups[0]["lr"] == pytest.approx(0.004)


def test_an_epoch_without_any_label_does_not_end_the_training(folders, standing_still):
    """nnU-Net's own average of the Dice is nan from then on, which is never better."""
    patience = ("early_stop_patience=3", "schedule=plateau", "plateau_patience=3")
    folders.configure("2d_stop", *PLAIN, *SHORT, "epochs=20", *patience)
    trainer = folders.trainer(CustomTrainer, "2d_stop")
    trainer.initialize()
    for epoch, dice in enumerate([float("nan"), 0.2, 0.4, float("nan"), 0.5, 0.6]):
        trainer.logger.log("mean_fg_dice", dice, epoch)
        trainer.on_epoch_start()
    assert np.isnan(trainer.logger.get_value("ema_fg_dice", step=-1))
    # 0.2, 0.9 * 0.2 + 0.1 * 0.4 = 0.22, unchanged, 0.9 * 0.22 + 0.1 * 0.5 = 0.248, 0.9 * 0.248 + 0.1 * 0.6 = 0.2832
    assert trainer._scores()[1:] == pytest.approx([0.2, 0.22, 0.22, 0.248, 0.2832])
    assert trainer._plateau() == 1
