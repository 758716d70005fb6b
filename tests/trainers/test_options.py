"""Options: one dataclass knows names, types, limits; `resolve` completes them."""

import json
from typing import ClassVar

import pytest
import torch

from nnunet_ext import network_choice
from nnunet_ext.errors import OptionError
from nnunet_ext.options import Options, accept, option_default, option_fields, parse_settings, parse_value
from nnunet_ext.recipe import differences, from_section, resolve
from nnunet_ext.training.early_stop import early_stops
from nnunet_ext.training.optimizers import OPTIMIZERS
from nnunet_ext.training.schedules import SCHEDULES, EpochSchedule, plateau_factor

SMALL_PATCH = (56, 40)


def test_plain_defaults_are_those_of_nnunet(planned):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(planned.results / "stock"))
        patch.setenv("nnUNet_preprocessed", str(planned.preprocessed))
        stock = planned.trainer(nnUNetTrainer)
    options = Options()
    assert options.learning_rate == stock.initial_lr
    assert options.weight_decay == stock.weight_decay
    assert options.epochs == stock.num_epochs
    assert options.iterations_per_epoch == stock.num_iterations_per_epoch
    assert options.val_iterations_per_epoch == stock.num_val_iterations_per_epoch
    assert options.oversample_foreground == stock.oversample_foreground_percent


def test_every_default_obeys_its_own_rule():
    for name in option_fields():
        accept(name, option_default(name))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5", 5),
        ("True", True),
        ("false", False),
        ("none", None),
        ("128,96", [128, 96]),
        ("[128, 96]", [128, 96]),
        ("adam", "adam"),
        ("nan", "nan"),
    ],
)
def test_values_are_read_as_typed(text, value):
    assert parse_value(text) == value


def test_settings_of_the_network_are_kept_apart():
    settings = parse_settings(["epochs=5", "network.input_scale=2", "patch_size=64,48"])
    assert settings == {"epochs": 5, "network_options": {"input_scale": 2}, "patch_size": (64, 48)}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "key=value, got 'epochs'"),
        ("=5", "key=value, got '=5'"),
        ("epohcs=5", "unknown option 'epohcs'; did you mean epochs\\? known: network, .*epochs"),
        ("epochs=0", "epochs must be an integer >= 1, got 0"),
        ("epochs=1.5", "epochs must be an integer >= 1, got 1.5"),
        ("epochs=true", "epochs must be an integer >= 1, got True"),
        ("learning_rate=-1", "learning_rate must be a number > 0, got -1"),
        ("learning_rate=NaN", "learning_rate must be a number > 0, got nan"),
        ("optimizer=sdg", "optimizer must be one of sgd, adam, adamw, rmsprop, got 'sdg'"),
        ("loss=5", "loss must be one of dice_ce, samed, ce, dice, .*, got 5"),
        ("network=unknown", "network must be one of .*enet.*planned.*, got 'unknown'"),
        ("oversample_foreground=1.5", "oversample_foreground must be a number >= 0 and <= 1, got 1.5"),
        ("gradient_clip=13", "gradient_clip must be a number > 0 and <= 12, got 13"),
        ("patch_size=64,0", r"patch_size must be comma-separated integers >= 1 or none, got \[64, 0\]"),
        ("mirror=1", "mirror must be true or false, got 1"),
    ],
)
def test_bad_settings_are_refused_by_name(setting, message):
    with pytest.raises(OptionError, match=message):
        parse_settings([setting])


def test_a_setting_given_twice_is_refused():
    with pytest.raises(OptionError, match="epochs is given twice"):
        parse_settings(["epochs=5", "epochs=6"])


def test_warmup_must_end_before_the_training():
    with pytest.raises(OptionError, match=r"warmup_epochs must be less than epochs \(3\), got 3"):
        resolve({"epochs": 3, "warmup_epochs": 3}, patch_size=SMALL_PATCH)


def test_a_section_survives_json():
    options = resolve({"epochs": 5, "network_options": {"dropout": [0.0, 0.2]}}, patch_size=SMALL_PATCH)
    assert from_section(json.loads(json.dumps(options.section())), SMALL_PATCH) == options


def test_a_section_of_an_older_version_is_completed():
    section = resolve({"epochs": 5}, patch_size=SMALL_PATCH).section()
    del section["gradient_clip"]
    assert from_section(section, SMALL_PATCH).gradient_clip == option_default("gradient_clip")


def test_batch_size_in_a_section_is_refused():
    with pytest.raises(OptionError, match="batch_size must stand in the configuration itself"):
        from_section({"batch_size": 4}, SMALL_PATCH)


def test_auto_fits_the_network_to_the_patch_size():
    small = resolve({"network": "enet"}, patch_size=SMALL_PATCH)
    large = resolve({"network": "enet", "network_options": {"input_scale": "auto"}}, patch_size=(256, 256))
    assert small.network_options["input_scale"] * min(SMALL_PATCH) >= 64
    assert large.network_options["input_scale"] == 1


def test_auto_uses_a_given_patch_size():
    assert resolve({"patch_size": (256, 256)}, patch_size=SMALL_PATCH).network_options["input_scale"] == 1


def test_a_patch_size_of_another_dimension_is_refused():
    with pytest.raises(OptionError, match=r"patch_size must have 2 numbers .*planned: 56,40.*, got 3: 64,64,64"):
        resolve({"patch_size": (64, 64, 64)}, patch_size=SMALL_PATCH)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_scael": 2}, "network enet has no option input_scael; its options: .*network.input_scale"),
        ({"input_scale": "two"}, "network.input_scale of enet must be float, got 'two'"),
        ({"skip": 1}, "network.skip of enet must be true or false, got 1"),
    ],
)
def test_bad_options_of_the_network_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        resolve({"network": "enet", "network_options": options}, patch_size=SMALL_PATCH)


def test_the_network_judges_its_own_values():
    with pytest.raises(OptionError, match="network enet: input_scale must be"):
        network_choice.check_network("enet", {"input_scale": 0.5}, 2)


def test_deep_supervision_of_a_network_without_it_is_refused():
    with pytest.raises(OptionError, match="network enet has no deep supervision"):
        resolve({"network": "enet", "deep_supervision": True}, patch_size=SMALL_PATCH)


def test_a_3d_configuration_has_no_default_network():
    with pytest.raises(OptionError, match=r"3D configuration has no default network; choose one of .*configure -d"):
        resolve({}, patch_size=(32, 32, 32))


def test_a_2d_network_is_refused_in_3d():
    with pytest.raises(OptionError, match=r"network enet is for 2D, the configuration is 3D; choose one of .*planned"):
        resolve({"network": "enet"}, patch_size=(32, 32, 32))


def test_what_is_given_wins_over_the_preset():
    options = resolve({"epochs": 7}, patch_size=SMALL_PATCH, preset={"network": "enet", "epochs": 9, "mirror": False})
    assert (options.epochs, options.mirror) == (7, False)


def test_another_network_than_the_preset_is_refused():
    with pytest.raises(OptionError, match="preset for network enet, the configuration says network planned"):
        resolve({"network": "planned"}, patch_size=SMALL_PATCH, preset={"network": "enet"})


class _Recommending:
    """Stands for a network with recommendations."""

    training_defaults: ClassVar = {"optimizer": "adam", "learning_rate": 0.123, "epochs": 77}


@pytest.fixture
def recommending(monkeypatch):
    monkeypatch.setattr(network_choice.PlannedNetwork, "training_defaults", _Recommending.training_defaults)
    return "planned"


def test_a_network_recommends_its_training(recommending):
    options = resolve({"network": recommending}, patch_size=SMALL_PATCH)
    assert (options.optimizer, options.learning_rate, options.epochs) == ("adam", 0.123, 77)


def test_another_optimizer_brings_its_own_learning_rate(recommending):
    options = resolve({"network": recommending, "optimizer": "sgd"}, patch_size=SMALL_PATCH)
    assert options.learning_rate == OPTIMIZERS["sgd"].learning_rate
    assert options.epochs == 77  # not tied to the optimiser


def test_the_learning_rate_of_a_preset_belongs_to_its_optimizer(recommending):
    preset = {"network": recommending, "optimizer": "adamw", "learning_rate": 0.456}
    assert resolve({}, patch_size=SMALL_PATCH, preset=preset).learning_rate == 0.456
    other = resolve({"optimizer": "sgd"}, patch_size=SMALL_PATCH, preset=preset)
    assert other.learning_rate == OPTIMIZERS["sgd"].learning_rate


def test_differences_name_old_and_new():
    one, other = (resolve({"epochs": epochs}, patch_size=SMALL_PATCH) for epochs in (5, 6))
    assert differences(one, other) == ["epochs: 5 -> 6"]


@pytest.mark.parametrize("name", sorted(SCHEDULES.keys() - {"cyclic"}))
def test_a_schedule_starts_at_one_and_never_rises(name):
    factors = [SCHEDULES[name].factor(progress) for progress in (0, 0.25, 0.5, 0.75, 0.99)]
    assert factors[0] == 1
    assert factors == sorted(factors, reverse=True)


def test_steps_are_a_tenth_at_half_and_at_three_quarters():
    factors = [SCHEDULES["step"].factor(progress) for progress in (0.49, 0.5, 0.74, 0.75)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01])


def test_four_cycles_fall_to_a_tenth_and_rise_again():
    factors = [SCHEDULES["cyclic"].factor(eighth / 8) for eighth in range(8)]
    assert factors == pytest.approx([1, 0.1] * 4)
    assert SCHEDULES["cyclic"].factor(1 / 16) == pytest.approx(0.55)  # halfway down


def test_a_plateau_lowers_the_learning_rate_after_each_patience():
    scores = [0.1, 0.2, 0.2, 0.1, 0.1, 0.2, 0.3, float("nan"), 0.3]  # better at 1 and 6
    factors = [plateau_factor(scores[:count], patience=2) for count in range(len(scores) + 1)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.2, 0.2, 0.04, 0.04, 0.04, 0.008])


def test_training_stops_after_as_many_scores_without_gain_as_its_patience():
    scores = [0.1, 0.3, float("nan"), 0.2, 0.3, 0.4]
    assert [early_stops(scores[:count], 3) for count in range(7)] == [False] * 5 + [True, True]
    assert not early_stops(scores, 4)
    assert not early_stops([0.5] * 1000, None)


def test_poly_matches_nnunet():
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

    ours, theirs = (torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01) for _ in range(2))
    schedules = EpochSchedule(ours, SCHEDULES["poly"].factor, epochs=10), PolyLRScheduler(theirs, 0.01, 10)
    for epoch in range(10):
        for schedule in schedules:
            schedule.step(epoch)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])


def test_warmup_is_linear_and_keeps_the_ratio_of_groups():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    schedule = EpochSchedule(optimizer, SCHEDULES["constant"].factor, epochs=10, warmup_epochs=3)
    rates = []
    for epoch in (0, 1, 2, 3, 9):
        schedule.step(epoch)
        rates.append([group["lr"] for group in optimizer.param_groups])
    assert [first for first, _ in rates] == pytest.approx([0.25, 0.5, 0.75, 1, 1])  # (epoch + 1) / (3 + 1)
    assert [second for _, second in rates] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_takes_its_options_and_reduces_a_square(name):
    choice = OPTIMIZERS[name]
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = choice.build([parameter], 0.01, 0.0, choice.momentum)
    for _ in range(10):
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()
    assert 0 <= optimizer.param_groups[0]["lr"] == 0.01
    assert abs(parameter.item()) < 1


def test_enet_trains_with_adamw_unless_another_optimizer_is_asked_for():
    assert resolve({"network": "enet"}, patch_size=SMALL_PATCH).optimizer == "adamw"
    other = resolve({"network": "enet", "optimizer": "sgd"}, patch_size=SMALL_PATCH)
    assert other.learning_rate == option_default("learning_rate")
