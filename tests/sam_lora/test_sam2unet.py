"""SAM2-UNet has the published parts, no dead parameters, and trains what it says."""

import pytest
import torch

from sam_lora import SAM2UNet
from sam_lora.lora import adapted_layers


def trainable(network) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("variant", "trunk", "trained"),
    [
        ("tiny", 26_849_472, 2_587_395),
        ("small", 33_947_328, 2_687_363),
        ("base_plus", 68_675_712, 3_050_419),
        ("large", 212_149_296, 4_269_747),
    ],
)
def test_parameters_are_as_many_as_published(variant, trunk, trained):
    with torch.device("meta"):
        network = SAM2UNet(3, 1, variant=variant, deep_supervision=True)
    assert sum(p.numel() for p in network.encoder.trunk.parameters()) == trunk
    assert trainable(network) == trained  # without the fourth upsampling block, which is never used


def test_side_outputs_have_the_size_of_the_image_finest_first():
    network = SAM2UNet(1, 3, variant="mini", image_size=64, deep_supervision=True).eval()
    x = torch.randn(1, 1, 50, 40)
    with torch.no_grad():
        outputs = network(x)
        network.deep_supervision = False
        assert torch.equal(outputs[0], network(x))
    assert [tuple(part.shape) for part in outputs] == [(1, 3, 50, 40)] * 3


@pytest.mark.parametrize("tuning", ["adapter", "lora", "decoder", "all"])
def test_tuning_says_what_of_the_encoder_trains(tuning):
    network = SAM2UNet(1, 2, variant="mini", image_size=64, tuning=tuning)
    trained = {name for name, p in network.encoder.named_parameters() if p.requires_grad}
    expected = {
        "adapter": [n for n, _ in network.encoder.named_parameters() if n.startswith("adapters.")],
        "lora": [n for n, _ in network.encoder.named_parameters() if ".lora_" in n],
        "decoder": [],
        "all": [n for n, _ in network.encoder.named_parameters()],
    }
    assert trained == set(expected[tuning])
    assert bool(adapted_layers(network)) == (tuning == "lora")


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"image_size \(H, W\) must be multiples of 32, got \(48, 48\)"):
        SAM2UNet(1, 2, image_size=48)
    with pytest.raises(ValueError, match="variant must be one of mini, tiny, small, base_plus, large, got 'huge'"):
        SAM2UNet(1, 2, variant="huge")
