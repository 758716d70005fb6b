"""Pre-training takes the optimiser, the schedule and the accumulation that it is told, as the training does."""

import itertools

import pytest
import torch
from ignite.engine import Events

from nnunet_ext.bundle import GradientClip, ObserveScore
from nnunet_ext.errors import UserError

TINY = {
    **{"base_channels": 4, "image_size": [16, 16], "patch_depth": 8, "batch_size": 2, "val_patches": 2},
    **{"max_epochs": 1, "iterations_per_epoch": 6, "val_interval": 1, "num_workers": 0, "amp": False},
    **{"cache_dir": "cache", "output_dir": "pre"},
}
OTHERS = {
    "optimizer_name": "sgd",
    "momentum": 0.5,
    "schedule": "poly",
    "warmup_iterations": 2,
    "plateau_patience": 2,
    "accumulation_steps": 3,
}
"""A value of each option that is not its default."""


@pytest.fixture
def pretraining(genesis, tiny_phantom, workspace):
    """Return the workflow of a pre-training with some options."""

    def workflow(**options):
        return genesis.workflow("pretrain", **{**TINY, "dataset_dir": str(tiny_phantom), **options})

    return workflow


def test_optimizer_and_schedule_by_their_names(pretraining):
    options = {"optimizer_name": "rmsprop", "momentum": 0.7, "learning_rate": 0.5, "weight_decay": 0.125}
    parser = pretraining(**options, schedule="step", warmup_iterations=0, iterations_per_epoch=4).parser
    optimizer, schedule = parser.get_parsed_content("optimizer"), parser.get_parsed_content("lr_scheduler")
    group = optimizer.param_groups[0]
    assert type(optimizer) is torch.optim.RMSprop
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.7, 0.125)
    assert [0.5 * schedule.lr_lambdas[0](i) for i in range(4)] == pytest.approx([0.5, 0.5, 0.05, 0.005])


def test_adamw_and_a_cosine_after_a_warmup_are_the_default(pretraining):
    parser = pretraining(iterations_per_epoch=40).parser
    optimizer, schedule = parser.get_parsed_content("optimizer"), parser.get_parsed_content("lr_scheduler")
    group = optimizer.param_groups[0]
    assert type(optimizer) is torch.optim.AdamW
    assert (group["initial_lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.9, 0.999), 1e-4)
    # a tenth of so short a training warms up, then half a cosine over 36 iterations
    assert [schedule.lr_lambdas[0](i) for i in (0, 3, 4, 22, 40)] == pytest.approx([0.2, 0.8, 1, 0.5, 0])
    assert parser.get_parsed_content("train::trainer").accumulation_steps == 1


def test_plateau_is_one_of_the_restoration_error_which_is_to_fall(pretraining):
    parser = pretraining(schedule="plateau", warmup_iterations=0, plateau_patience=2).parser
    schedule, evaluator = (parser.get_parsed_content(name) for name in ("lr_scheduler", "validate::evaluator"))
    observer = next(h for h in parser.get_parsed_content("validate::handlers") if isinstance(h, ObserveScore))
    assert observer.scheduler is schedule
    found = []
    for error in (0.5, 0.4, 0.3, 0.3, 0.35):  # falls twice, then two more without gain
        evaluator.state.metrics = {"val_restoration_error": error}
        observer(evaluator)
        found.append(schedule.lr_lambdas[0](0))
    assert found == pytest.approx([1, 1, 1, 1, 0.2])


def test_optimizer_steps_once_for_the_accumulated_batches(pretraining):
    workflow = pretraining(accumulation_steps=3)
    trainer, network = (workflow.parser.get_parsed_content(name) for name in ("train::trainer", "network"))
    clip = next(h for h in workflow.parser.get_parsed_content("train::handlers") if isinstance(h, GradientClip))
    assert clip.max_norm == 12
    weights = [next(network.parameters()).clone()]
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: weights.append(next(network.parameters()).clone()))
    workflow.run()
    changed = [not torch.equal(before, after) for before, after in itertools.pairwise(weights)]
    assert changed == [False, False, True, False, False, True]


def test_whole_pre_training_with_a_plateau_runs(pretraining):
    workflow = pretraining(schedule="plateau", max_epochs=3, iterations_per_epoch=1)
    workflow.run()
    scores = workflow.parser.get_parsed_content("lr_scheduler").lr_lambdas[0].scores
    assert len(scores) == 3
    assert max(scores) < 0  # errors, of which the smaller is the better


def test_run_does_not_continue_with_another_option(genesis, pretraining):
    pretraining().run()
    for name, value in OTHERS.items():
        with pytest.raises(UserError, match=f"other settings.*{name}: "), genesis.readable_errors():
            pretraining(max_epochs=2, **{name: value}).run()


@pytest.mark.parametrize(("name", "value"), [("optimizer_name", "sdg"), ("schedule", "cosin")])
def test_a_mistyped_name_is_refused(genesis, pretraining, name, value):
    with pytest.raises(UserError, match=rf"{name} must be one of .*, got '{value}'"), genesis.readable_errors():
        pretraining(**{name: value}).parser.get_parsed_content("lr_scheduler")
