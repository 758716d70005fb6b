"""A training that was killed continues to the same weights, bit for bit."""

import pytest
import torch
from ignite.engine import Events
from monai.handlers import MeanDice

from nnunet_ext.errors import UserError

EPOCHS = 3


def options(tiny_phantom, folder, **changes):
    return {
        "dataset_dir": str(tiny_phantom),
        "cache_dir": "cache",
        "output_dir": folder,
        "max_epochs": EPOCHS,
        "iterations_per_epoch": 3,
        "warmup_iterations": 2,
        **changes,
    }


def train(bundle, tiny_phantom, folder, interrupt_at=None, **changes):
    """Train; if asked, be interrupted at an iteration, as by Ctrl-C."""
    workflow = bundle.workflow("train", **{**bundle.tiny, **options(tiny_phantom, folder, **changes)})
    torch.manual_seed(0)  # the trainer is made here, before "run" has seeded
    trainer = workflow.parser.get_parsed_content("train::trainer")

    def interrupt(engine):
        if engine.state.iteration == interrupt_at:
            raise KeyboardInterrupt

    trainer.add_event_handler(Events.ITERATION_COMPLETED, interrupt)
    if interrupt_at is None:
        with bundle.readable_errors():
            workflow.run()
    else:
        with pytest.raises(KeyboardInterrupt):
            workflow.run()


def state(folder):
    return torch.load(f"{folder}/checkpoint_last.pt", weights_only=True)


def flat(content, where=""):
    """Yield (key, value) of all leaves of nested dictionaries and lists."""
    if isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from flat(value, f"{where}/{key}")
    else:
        yield where, content


def assert_equal_states(a, b):
    left, right = dict(flat(a)), dict(flat(b))
    assert left.keys() == right.keys()
    for key, value in left.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, right[key]), key
        elif not key.startswith("/settings"):
            assert value == right[key], key


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mixup": "manifold"},
        pytest.param({"accumulation_steps": 2, "sampler": "uniform", "val_interval": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_interrupted_run_continues_to_the_same_state_bit_for_bit(bundle, workspace, tiny_phantom, changes):
    train(bundle, tiny_phantom, "whole", **changes)
    train(bundle, tiny_phantom, "parts", interrupt_at=5, **changes)
    assert state("parts")["epoch"] == 1
    train(bundle, tiny_phantom, "parts", **changes)
    assert state("parts")["epoch"] == EPOCHS
    assert_equal_states(state("whole"), state("parts"))
    for name in ("whole", "parts"):
        assert state(name)["best_metric_epoch"] > 0
    best = [torch.load(f"{name}/model_best.pt", weights_only=True) for name in ("whole", "parts")]
    assert_equal_states(*best)


def test_workers_do_not_change_the_weights(bundle, workspace, tiny_phantom):
    for name, num_workers in (("alone", 0), ("helped", 2)):
        train(bundle, tiny_phantom, name, max_epochs=1, iterations_per_epoch=2, num_workers=num_workers)
    assert_equal_states(state("alone"), state("helped"))


def test_seed_changes_the_weights(bundle, workspace, tiny_phantom):
    for name, seed in (("a", 0), ("b", 1)):
        train(bundle, tiny_phantom, name, max_epochs=1, iterations_per_epoch=1, seed=seed)
    a, b = (dict(flat(state(name)["network"])) for name in ("a", "b"))
    assert any(not torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_early_stopping_counts_on_after_an_interruption(bundle, workspace, tiny_phantom, monkeypatch):
    """The metric stands still: patience 2 ends the run after epoch 3, interrupted in epoch 3 or not."""
    original = MeanDice.compute
    monkeypatch.setattr(MeanDice, "compute", lambda self: original(self) * 0 + 0.5)
    options = {"early_stop_patience": 2, "max_epochs": 6, "iterations_per_epoch": 2}
    train(bundle, tiny_phantom, "whole", **options)
    train(bundle, tiny_phantom, "parts", interrupt_at=5, **options)
    train(bundle, tiny_phantom, "parts", **options)
    assert state("whole")["epoch"] == state("parts")["epoch"] == 3
    assert state("whole")["stopped_early"] is state("parts")["stopped_early"] is True
    assert state("whole")["best_metric_epoch"] == state("parts")["best_metric_epoch"] == 1


@pytest.mark.slow
def test_finished_run_is_left_as_it_is(bundle, workspace, tiny_phantom):
    train(bundle, tiny_phantom, "run", max_epochs=1)
    before = state("run")
    train(bundle, tiny_phantom, "run", max_epochs=1)
    assert_equal_states(before, state("run"))


def test_other_settings_do_not_continue_a_run(bundle, workspace, tiny_phantom):
    train(bundle, tiny_phantom, "run", max_epochs=1)
    with pytest.raises(UserError, match="other settings") as error:
        train(bundle, tiny_phantom, "run", max_epochs=2, image_size=[64, 64])
    assert "image_size: [32, 32] -> [64, 64]" in str(error.value)
