"""Every network says where it can be mixed inside, and nothing passes a point unmixed."""

import pytest
import torch
from torch import nn

from nnunet_ext.errors import OptionError
from nnunet_ext.networks import available, build_network, network_class
from nnunet_ext.training.mixup import INPUT, Mix, Mixup, mixing_points

SIZES = {2: (32, 48), 3: (16, 32, 24)}
OPTIONS = {
    "enet": [{}, {"skip": True}],
    "crf": [{"appearance_weight": 1.0}, {"trainable": "last", "appearance_weight": 1.0}],
    "sam2unet": [{"variant": "mini", "image_size": 64, "deep_supervision": True, "checkpointing": True}],
}
ORDER = torch.tensor([2, 0, 1])


def small_networks() -> list:
    cases = []
    for key, info in available().items():
        for options in OPTIONS.get(key, [getattr(network_class(key), "small_options", {})]):
            cases += [pytest.param(key, dims, options, id=f"{key}-{dims}d-{options}") for dims in info.spatial_dims]
    return cases


def build(key: str, dims: int, options: dict) -> nn.Module:
    """Build a network without dropout, with weights that don't start as zero."""
    torch.manual_seed(0)
    network = build_network(key, 1, 3, spatial_dims=dims, **options).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d | nn.Dropout3d):
            module.p = 0.0
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    return network


def outputs(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    result = network(x)
    return torch.stack(result) if isinstance(result, list) else result[None]


def at(mixup: Mixup, point: str, weight: float) -> None:
    mixup.mix = Mix(weight, ORDER, point)


@pytest.mark.parametrize(("key", "dims", "options"), small_networks())
def test_a_weight_of_0_makes_each_image_its_partner(key, dims, options):
    """Were anything of the image itself to pass the point, the logits would not be those of the partner."""
    network = build(key, dims, options)
    x = torch.randn(3, 1, *SIZES[dims])
    mixup = Mixup(network, "manifold")
    assert len(mixup.points) > 2
    with torch.no_grad():
        plain = outputs(network, x)
        for point in set(mixup.points) - {INPUT}:
            at(mixup, point, 0.0)
            torch.testing.assert_close(outputs(network, x), plain[:, ORDER], atol=1e-4, rtol=1e-4, msg=point)


@pytest.mark.parametrize(("key", "dims", "options"), small_networks())
def test_each_point_mixes_otherwise_and_only_in_training(key, dims, options):
    network = build(key, dims, options)
    x = torch.randn(3, 1, *SIZES[dims])
    with torch.no_grad():
        plain = [outputs(network, x)]
        mixup = Mixup(network, "manifold")
        for point in set(mixup.points) - {INPUT}:
            at(mixup, point, 0.6)
            plain.append(outputs(network, x))
        for number, one in enumerate(plain):
            assert all((one - other).abs().max() > 1e-6 for other in plain[:number])
        mixed = outputs(network.eval(), x)
        mixup.mix = None
        assert torch.equal(mixed, outputs(network, x))


def test_what_is_computed_again_for_the_gradient_is_mixed_again():
    x, gradients = torch.randn(3, 1, 32, 48), []
    for checkpointing in (False, True):
        network = build("sam2unet", 2, {"variant": "mini", "image_size": 64, "checkpointing": checkpointing})
        at(Mixup(network, "manifold"), "stage1", 0.3)
        network(x).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.requires_grad]))
    torch.testing.assert_close(*gradients)


def test_a_network_without_points_is_refused_by_name():
    with pytest.raises(OptionError, match="Conv2d names no mixing_points for mixup=manifold; set mixup=input"):
        Mixup(nn.Conv2d(1, 1, 1), "manifold")
    assert Mixup(nn.Conv2d(1, 1, 1), "input").points == {INPUT: ()}


def test_the_networks_that_nnunet_plans_are_mixed_at_each_stage():
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    shared = {"conv_op": nn.Conv2d, "kernel_sizes": 3, "strides": [1, 2, 2], "num_classes": 3, "deep_supervision": True}
    torch.manual_seed(0)
    x = torch.randn(3, 1, 16, 16)
    for kind, blocks in ((PlainConvUNet, "n_conv_per_stage"), (ResidualEncoderUNet, "n_blocks_per_stage")):
        counts = {blocks: 2, "n_conv_per_stage_decoder": 1, "norm_op": nn.InstanceNorm2d, "nonlin": nn.LeakyReLU}
        nonlin = {"nonlin_kwargs": {"inplace": True}}
        network = kind(1, 3, [4, 8, 8], **shared, **counts, **nonlin).train()
        assert list(mixing_points(network)) == ["stage0", "stage1", "stage2"]
        plain = network(x)
        mixup = Mixup(network, "manifold")
        for point in mixing_points(network):
            at(mixup, point, 0.0)
            for one, other in zip(network(x), plain, strict=True):
                torch.testing.assert_close(one, other[ORDER])
            at(mixup, point, 0.5)
            sum(one.square().mean() for one in network(x)).backward()
