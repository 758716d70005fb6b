"""Traced copies of the networks equal them at the size they were traced at."""

import pytest
import torch

from sam_lora import SAM2UNet, SAMed


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(lambda: SAMed(1, 3, variant="small", image_size=64), id="samed"),
        pytest.param(lambda: SAMed(2, 3, variant="small", image_size=64, decoder="lora"), id="samed-decoder-lora"),
        pytest.param(lambda: SAM2UNet(1, 3, variant="mini", image_size=64), id="sam2unet"),
        pytest.param(lambda: SAM2UNet(1, 3, variant="mini", image_size=64, tuning="lora"), id="sam2unet-lora"),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (50, 40)])
def test_traced_network_equals_the_eager_one(network, size, tmp_path):
    eager = network().eval()
    x = torch.randn(2, eager.input_channels.in_channels, *size)
    with torch.no_grad():
        torch.jit.trace(eager, x).save(tmp_path / "model.ts")
        traced = torch.jit.load(tmp_path / "model.ts")
        other = torch.randn_like(x)
        torch.testing.assert_close(traced(other), eager(other), rtol=1e-4, atol=1e-5)
