"""The loss depends on every trainable parameter, whatever is tuned: several processes wait for each gradient."""

import pytest
import torch
from torch import nn

from sam_lora import SAM2UNet, SAMed

VARIETIES = ({"dora": True}, {"init": "pissa"}, {"checkpointing": True})


def without_gradient(network: nn.Module) -> list[str]:
    """Return the trainable parameters that a step on two-channel images leaves without gradient, or with zeros."""
    with torch.no_grad():
        for parameter in network.parameters():  # what starts as zero, such as half of a LoRA, blocks its other half
            parameter += 0.01 * torch.randn_like(parameter)
    outputs = network.train()(torch.randn(2, 2, 64, 64))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    sum(part.square().mean() for part in outputs).backward()
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert trainable
    return [name for name, p in trainable.items() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("low_resolution", [False, True], ids=["full", "low"])
@pytest.mark.parametrize("decoder", ["full", "lora"])
@pytest.mark.parametrize("tuning", ["lora", "decoder", "all"])
def test_samed_trains_nothing_in_vain(tuning, decoder, low_resolution):
    options = {"tuning": tuning, "decoder": decoder, "low_resolution": low_resolution}
    assert without_gradient(SAMed(2, 3, variant="small", image_size=64, **options)) == []


@pytest.mark.parametrize("deep_supervision", [False, True], ids=["single", "deep"])
@pytest.mark.parametrize("tuning", ["adapter", "lora", "decoder", "all"])
def test_sam2unet_trains_nothing_in_vain(tuning, deep_supervision):
    options = {"tuning": tuning, "deep_supervision": deep_supervision}
    assert without_gradient(SAM2UNet(2, 3, variant="mini", image_size=64, **options)) == []


@pytest.mark.parametrize("variety", VARIETIES, ids=str)
@pytest.mark.parametrize(
    "network",
    [
        lambda **options: SAMed(2, 3, variant="small", image_size=64, **options),
        lambda **options: SAMed(2, 3, variant="small", image_size=64, decoder="lora", **options),
        lambda **options: SAM2UNet(2, 3, variant="mini", image_size=64, tuning="lora", **options),
    ],
    ids=["samed", "samed-fast", "sam2unet"],
)
def test_varieties_of_updates_train_nothing_in_vain(network, variety):
    assert without_gradient(network(**variety)) == []


def test_blocks_without_updates_train_nothing_in_vain():
    assert without_gradient(SAMed(2, 3, variant="small", image_size=64, block_ranks=(0, 2, 0, 4))) == []
    mini = SAM2UNet(2, 3, variant="mini", image_size=64, tuning="lora", block_ranks=(0, 2, 0, 4, 0))
    assert without_gradient(mini) == []
