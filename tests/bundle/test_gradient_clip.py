"""Gradients are clipped when, and only when, the optimiser steps."""

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer

from nnunet_ext.bundle import GradientClip
from nnunet_ext.errors import OptionError


class Recorder(torch.optim.SGD):
    """Plain descent that keeps the norm of the gradient of each step."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, lr=1e-3)
        self.norms: list[float] = []

    def step(self, closure=None):
        self.norms.append(float(self.param_groups[0]["params"][0].grad.norm()))
        return super().step(closure)


def gradients_of_steps(max_norm: float, accumulation_steps: int = 1, num_batches: int = 5, slope: float = 100.0):
    network = torch.nn.Linear(1, 1, bias=False)
    optimizer = Recorder(network.parameters())
    data = [{"image": torch.full((1, 1), slope), "label": torch.zeros(1, 1)}] * num_batches
    SupervisedTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=data,
        network=network,
        optimizer=optimizer,
        loss_function=lambda prediction, _: prediction.sum(),
        train_handlers=[GradientClip(max_norm)],
        accumulation_steps=accumulation_steps,
        decollate=False,
    ).run()
    return optimizer.norms


def test_large_gradients_are_cut_to_the_norm():
    assert gradients_of_steps(1.5) == pytest.approx([1.5] * 10)


def test_small_gradients_are_left_alone():
    assert gradients_of_steps(1.5, slope=0.5) == pytest.approx([0.5] * 10)


def test_zero_switches_clipping_off():
    assert gradients_of_steps(0) == pytest.approx([100] * 10)


@pytest.mark.parametrize("norm", [-1.0, float("nan")])
def test_a_norm_that_would_turn_gradients_round_is_refused(norm):
    with pytest.raises(OptionError, match=rf"gradient_clip must be a number >= 0 \(0: off\), got {norm}"):
        GradientClip(norm)


def test_accumulated_gradients_are_clipped_once_before_their_step():
    # batches of gradient 2, each counted half, steps after 2, 2 and the last one: 2, 2, 1
    assert gradients_of_steps(0, accumulation_steps=2, slope=2.0) == pytest.approx([2, 2, 1] * 2)
    assert gradients_of_steps(1.5, accumulation_steps=2, slope=2.0) == pytest.approx([1.5, 1.5, 1] * 2)
    assert gradients_of_steps(0.6, accumulation_steps=2, slope=2.0) == pytest.approx([0.6] * 6)


def test_parts_of_an_accumulated_gradient_are_not_clipped():
    called = []

    class Spy(GradientClip):
        def attach(self, engine):
            super().attach(engine)
            engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: called.append(float(grad_of(e))))

    def grad_of(engine):
        return engine.network.weight.grad.norm()

    network = torch.nn.Linear(1, 1, bias=False)
    SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": torch.full((1, 1), 10.0), "label": torch.zeros(1, 1)}] * 2,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=lambda prediction, _: prediction.sum(),
        train_handlers=[Spy(1.0)],
        accumulation_steps=2,
        decollate=False,
    ).run()
    assert called == pytest.approx([5.0, 1.0])  # the first half of 10 as it is; the sum, clipped


def test_gradients_that_are_not_finite_become_zero():
    assert gradients_of_steps(max_norm=12.0, slope=float("inf"), num_batches=1) == [0.0, 0.0]
