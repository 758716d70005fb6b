"""What every trainer must be; a new file in `nnunet_ext/trainers` is tested by being there."""

import inspect
import json
import pickle
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext import trainers
from nnunet_ext.network_choice import network_choices, network_class
from nnunet_ext.options import PLANS_KEYS, option_default, option_fields
from nnunet_ext.plans import SECTION

NAMES = sorted(path.stem for path in Path(trainers.__path__[0]).glob("[!_]*.py"))


@pytest.fixture(params=NAMES)
def trainer_class(request, folders):
    return recursive_find_trainer_class_by_name(request.param)


@pytest.fixture
def configuration(trainer_class, folders) -> str:
    """A planned configuration that the trainer's network can work on."""
    key = trainer_class.preset.get("network", option_default("network"))
    planned = "2d" if 2 in network_choices()[key].spatial_dims else "3d_fullres"
    small = getattr(network_class(key), "small_options", {})
    if not small:
        return planned
    settings = [f"network.{name}={value}" for name, value in small.items()]
    folders.configure("small", f"network={key}", *settings, configuration=planned)
    return "small"


@pytest.fixture
def trainer(trainer_class, configuration, folders):
    return folders.trainer(trainer_class, configuration)


def test_there_are_trainers():
    assert {"CustomTrainer", "nnUNetTrainerENet"} <= set(NAMES)


def test_nnunet_finds_the_class_in_the_file_of_its_name(trainer_class):
    assert trainer_class.__module__ == f"nnunet_ext.trainers.{trainer_class.__name__}"
    assert issubclass(trainer_class, nnUNetTrainer)


def test_the_class_survives_pickling(trainer_class):
    assert pickle.loads(pickle.dumps(trainer_class)) is trainer_class


def test_the_constructor_is_that_of_nnunet(trainer_class):
    parameters = list(inspect.signature(trainer_class.__init__).parameters.values())[1:]
    assert [p.name for p in parameters] == ["plans", "configuration", "fold", "dataset_json", "device"]
    assert parameters[-1].default == torch.device("cuda")


def test_the_network_is_built_by_a_static_method_of_the_current_signature(trainer_class):
    assert isinstance(inspect.getattr_static(trainer_class, "build_network_architecture"), staticmethod)
    stock = inspect.signature(nnUNetTrainer.build_network_architecture)
    assert list(inspect.signature(trainer_class.build_network_architecture).parameters) == list(stock.parameters)


def test_the_docstring_begins_with_one_line(trainer_class):
    first, *rest = trainer_class.__doc__.split("\n")
    assert first.endswith(".")
    assert not rest or not rest[0].strip()


def test_the_plans_carry_the_complete_section(trainer, configuration):
    for plans in (trainer.plans_manager.plans, trainer.my_init_kwargs["plans"]):
        section = plans["configurations"][configuration][SECTION]
        assert set(section) == set(option_fields()) - set(PLANS_KEYS)
        assert json.loads(json.dumps(section)) == section
    assert SECTION not in trainer.my_init_kwargs["plans"]["configurations"].get("unrelated", {})


def test_the_preset_reaches_the_options(trainer):
    values = {name: getattr(trainer.options, name) for name in trainer.preset}
    network_options = trainer.preset.get("network_options", {})
    assert values == {**trainer.preset, **({"network_options": values["network_options"]} if network_options else {})}
    assert network_options.items() <= trainer.options.network_options.items()


def test_prediction_builds_the_same_network_from_saved_plans(trainer, trainer_class, configuration):
    torch.manual_seed(0)
    trainer.initialize()
    saved = PlansManager(json.loads(json.dumps(trainer.plans_manager.plans)))
    torch.manual_seed(1)
    rebuilt = trainer_class.build_network_architecture(
        saved, saved.get_configuration(configuration), 2, 3, enable_deep_supervision=False
    )
    rebuilt.load_state_dict(trainer.network.state_dict(), strict=True)
    trainer.set_deep_supervision_enabled(False)
    images = torch.randn(2, 2, *trainer.configuration_manager.patch_size)
    with torch.no_grad():
        logits, again = trainer.network.eval()(images), rebuilt.eval()(images)
    assert logits.shape == (2, 3, *images.shape[2:])
    torch.testing.assert_close(again, logits)


def test_deep_supervision_is_switched_without_a_decoder(trainer):
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    trainer.set_deep_supervision_enabled(False)
