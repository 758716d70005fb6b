"""Without deep supervision nnU-Net's planned network trains what its one output needs, so several processes can."""

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.bundle.restoration_networks import ARCHITECTURES, restoration_network
from nnunet_ext.trainers.CustomTrainer import CustomTrainer


@pytest.fixture(params=["none", "all", "last"])
def trainer(request, folders, tmp_path) -> CustomTrainer:
    """A trainer of the planned network with one output, alone and before a CRF."""
    settings = ["network=planned", "deep_supervision=false", "batch_size=2", f"crf={request.param}"]
    if request.param == "last":
        settings.append(f"init=nnunet:{tmp_path / 'any.pth'}")  # it keeps the rest as it was loaded
    folders.configure("one_output", *settings)
    trainer = folders.trainer(CustomTrainer, "one_output")
    trainer.initialize()
    return trainer


@pytest.fixture
def process_group(tmp_path):
    """This process alone, where others could join."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def step(network: nn.Module, images: torch.Tensor) -> None:
    network.zero_grad()
    network(images).square().mean().backward()


def without_gradient(network: nn.Module) -> list[str]:
    return [name for name, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_reaches_every_trainable_parameter_of_a_restoration(folders, architecture):
    network = restoration_network(architecture, 1, base_channels=8, plans_file=folders.plans_path).train()
    step(network, torch.randn(2, 1, 8, 16, 16))
    assert without_gradient(network) == []


def test_gradient_reaches_every_trainable_parameter_of_a_trainer(trainer):
    step(trainer.network.train(), torch.randn(2, 2, 16, 16))
    assert without_gradient(trainer.network) == []


def test_wrapped_for_several_processes_a_trainer_makes_a_second_step(trainer, process_group):
    network = DistributedDataParallel(trainer.network.train())
    for _ in range(2):
        step(network, torch.randn(2, 2, 16, 16))


def test_the_one_output_trains_and_the_layers_of_the_others_keep_their_names(trainer):
    base = trainer._base_network()
    *coarser, finest = base.decoder.seg_layers
    assert coarser
    assert all(p.requires_grad for p in finest.parameters())
    assert not any(p.requires_grad for layer in coarser for p in layer.parameters())
    names = {name.split(".")[2] for name in base.state_dict() if name.startswith("decoder.seg_layers.")}
    assert len(names) == len(coarser) + 1


def test_with_deep_supervision_every_output_trains(folders):
    folders.configure("outputs", "network=planned", "batch_size=2")
    trainer = folders.trainer(CustomTrainer, "outputs")
    trainer.initialize()
    assert all(p.requires_grad for p in trainer.network.parameters())
