"""`mixup=` under nnU-Net: its own training step on mixed batches, its validation on plain ones."""

import copy

import numpy as np
import pytest
import torch

from nnunet_ext.trainers.CustomTrainer import CustomTrainer
from nnunet_ext.training.mixup import Mix

SHORT = ("batch_size=3", "optimizer=sgd", "momentum=0", "weight_decay=0", "learning_rate=0.1")
NETWORKS = {
    "enet": ("network=enet", "network.input_scale=1", "network.dropout=0,0"),
    "planned": ("network=planned",),
}


def make_trainer(folders, network: str, *settings: str) -> CustomTrainer:
    folders.configure("2d_mix", *SHORT, *NETWORKS[network], *settings)
    trainer = folders.trainer(CustomTrainer, "2d_mix")
    torch.manual_seed(0)
    trainer.initialize()
    trainer.on_train_epoch_start()
    return trainer


def batch_of(trainer) -> dict:
    torch.manual_seed(1)
    size = trainer.configuration_manager.patch_size
    target = torch.randint(0, 3, (3, 1, *size)).float()
    scales = trainer._get_deep_supervision_scales()
    steps = [[round(1 / part) for part in scale] for scale in scales or []]
    return {
        "data": torch.randn(3, 2, *size),
        "target": [target[..., ::a, ::b] for a, b in steps] if scales else target,
    }


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("kind", "accumulate"), [("input", 1), ("manifold", 1), ("manifold", 2)])
def test_a_step_descends_the_loss_of_the_mixture(folders, network, kind, accumulate):
    settings = [f"mixup={kind}", "mixup_alpha=1", "iterations_per_epoch=1", f"accumulation_steps={accumulate}"]
    trainer = make_trainer(folders, network, *settings)
    before = copy.deepcopy(trainer.network.state_dict())
    batch = batch_of(trainer)
    moved, points = [], []
    for _ in range(6):  # other draws, the same weights
        trainer.network.load_state_dict(before)
        trainer._accumulation.restart()
        loss = trainer.train_step(batch)["loss"]
        mix = trainer._mixup.mix
        points.append(mix.point)
        moved.append(torch.cat([p.detach().flatten() for p in trainer.network.parameters()]))

        trainer.network.load_state_dict(before)
        trainer.network.zero_grad()
        trainer._mixup.mix = Mix(mix.weight, mix.order, mix.point)
        images = mix.of(batch["data"]) if mix.point == "input" else batch["data"]
        outputs, target = trainer.network(images), batch["target"]
        others = [t[mix.order] for t in target] if isinstance(target, list) else target[mix.order]
        expected = mix.weight * trainer.loss(outputs, target) + (1 - mix.weight) * trainer.loss(outputs, others)
        assert float(loss) == pytest.approx(expected.item(), rel=1e-4)
        (expected / accumulate).backward()
        parameters = list(trainer.network.parameters())
        torch.nn.utils.clip_grad_norm_(parameters, 12)
        wanted = torch.cat([(p.detach() - (0 if p.grad is None else 0.1 * p.grad)).flatten() for p in parameters])
        torch.testing.assert_close(moved[-1], wanted, atol=1e-5, rtol=1e-4)
    assert len(set(points)) > 1 if kind == "manifold" else set(points) == {"input"}
    assert not torch.equal(moved[0], moved[1])


def test_shares_come_from_the_beta_distribution_of_the_option(folders):
    trainer = make_trainer(folders, "enet", "mixup=input", "mixup_alpha=1.5", "seed=5")
    assert trainer._mixup.alpha == 1.5
    trainer._mixup.begin(torch.zeros(3, 2, 8, 8))
    assert trainer._mixup.mix.weight == np.random.default_rng((5, trainer.current_epoch)).beta(1.5, 1.5)


def test_online_validation_is_not_mixed(folders):
    trainer = make_trainer(folders, "planned", "mixup=manifold", "mixup_alpha=1")
    batch = batch_of(trainer)
    trainer.network.eval()
    with torch.no_grad():
        plain = trainer.validation_step(batch)
        for _ in range(5):
            trainer._mixup.begin(batch["data"])
            again = trainer.validation_step(batch)
            assert again["loss"] == plain["loss"]
            assert (again["tp_hard"] == plain["tp_hard"]).all()


def test_off_it_leaves_the_step_to_nnunet(folders, monkeypatch):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer = make_trainer(folders, "enet")
    monkeypatch.setattr(nnUNetTrainer, "train_step", lambda *_: "nnU-Net's own")
    assert trainer.train_step({}) == "nnU-Net's own"


def test_an_epoch_draws_the_same_after_a_resumption(folders):
    draws = []
    for _ in range(2):
        trainer = make_trainer(folders, "enet", "mixup=input", "seed=5")
        for epoch in (0, 3):
            trainer.current_epoch = epoch
            trainer.on_train_epoch_start()
            trainer._mixup.begin(torch.zeros(3, 2, 8, 8))
            draws.append((trainer._mixup.mix.weight, trainer._mixup.mix.order.tolist()))
    assert draws[:2] == draws[2:]
    assert draws[0] != draws[1]


def test_code_is_not_compiled_for_each_mixture(folders, monkeypatch):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda *_: True)
    for kind, compiles in (("none", True), ("input", True), ("manifold", False)):
        folders.configure(f"2d_{kind}", "network=enet", f"mixup={kind}")
        assert folders.trainer(CustomTrainer, f"2d_{kind}")._do_i_compile() == compiles
