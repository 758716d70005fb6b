"""Optimisers and learning rates of the bundles, by name; the plateau knows the validations."""

from types import SimpleNamespace

import pytest
import torch

from nnunet_ext.bundle import ObserveScore, make_optimizer, make_schedule
from nnunet_ext.errors import OptionError
from nnunet_ext.training.schedules import SCHEDULES


def optimizer(name="sgd", network=None) -> torch.optim.Optimizer:
    return make_optimizer(name, network or torch.nn.Linear(2, 2), 1.0, 0.25, 0.5)


def rates(schedule, count: int) -> list[float]:
    """Return the learning rate of each iteration."""
    found = []
    for _ in range(count):
        found.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return found


def test_network_without_anything_to_train_is_an_error_that_says_so():
    network = torch.nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(OptionError, match="Linear has no parameter that trains"):
        make_optimizer("adamw", network, 0.1, 0.0, 0.9)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", torch.optim.SGD),
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_optimizer_has_its_options(name, kind):
    group = optimizer(name).param_groups[0]
    assert type(optimizer(name)) is kind
    assert (group["lr"], group["weight_decay"]) == (1.0, 0.25)
    assert group.get("momentum", group.get("betas", (None,))[0]) == 0.5


def test_frozen_parameters_are_left_out():
    network = torch.nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    assert [id(p) for p in optimizer(network=network).param_groups[0]["params"]] == [id(network.weight)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_leads_to_the_course_of_its_name(name):
    found = rates(make_schedule(name, optimizer(), warmup=3, total=11), 11)
    assert found[:3] == pytest.approx([0.25, 0.5, 0.75])
    assert found[3:] == pytest.approx([SCHEDULES[name].factor(i / 8) for i in range(8)])


def validate(schedule, *scores: float) -> None:
    for score in scores:
        ObserveScore(schedule)(SimpleNamespace(state=SimpleNamespace(metrics={"val_mean_dice": score})))


def test_plateau_falls_after_its_patience():
    schedule = make_schedule("plateau", optimizer(), warmup=0, total=100, patience=2)
    validate(schedule, 0.5, 0.4)
    assert rates(schedule, 2)[-1] == 1
    validate(schedule, 0.5)
    assert rates(schedule, 2)[-1] == pytest.approx(0.2)


def test_other_courses_do_not_look_at_validations():
    schedule = make_schedule("constant", optimizer(), warmup=0, total=100)
    validate(schedule, *[0.5] * 50)
    assert rates(schedule, 2)[-1] == 1


def test_plateau_survives_a_checkpoint_but_not_its_configuration(tmp_path):
    first = make_schedule("plateau", optimizer(), warmup=0, total=100, patience=2)
    validate(first, 0.5, 0.4)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    for patience, expected in ((2, 0.2), (3, 1.0)):
        resumed = make_schedule("plateau", optimizer(), warmup=0, total=100, patience=patience)
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        validate(resumed, 0.3)
        assert rates(resumed, 2)[-1] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizer("sdg"), "optimizer_name must be one of sgd, adam, adamw, rmsprop, got 'sdg'"),
        (lambda: make_schedule("cosin", optimizer(), 0, 9), "schedule must be one of poly, .*got 'cosin'"),
        (lambda: make_schedule("plateau", optimizer(), 0, 9, 0), "plateau_patience must be an integer >= 1, got 0"),
    ],
)
def test_bad_names_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()
