"""Networks that a pre-training without labels can train, each with as many outputs as inputs."""

from pathlib import Path

from torch import nn

from ..errors import OptionError, UserError
from ..network_choice import freeze_coarser_outputs
from ..networks.genesisunet3d import GenesisUNet3D

ARCHITECTURES = ("genesis", "segresnet", "planned")


def restoration_network(
    architecture: str,
    channels: int,
    base_channels: int = 32,
    plans_file: str | Path | None = None,
    configuration: str = "3d_fullres",
) -> nn.Module:
    """Build a network that restores images.

    Args:
        architecture: `genesis`: the U-Net of Models Genesis; `segresnet`: MONAI's SegResNet; `planned`: the U-Net that
            nnU-Net planned.
        channels: Channels of the images.
        base_channels: Channels of the first convolution, not for `planned`.
        plans_file: nnU-Net's plans, for `planned`.
        configuration: A 3D configuration of the plans, for `planned`.

    Returns:
        The network, (B, channels, D, H, W) to the same shape. `segresnet` takes multiples of 8, `planned` multiples of
        the product of its strides.

    Raises:
        UserError: If the architecture is unknown or does not come in this width, or the plans are missing or lack the
            configuration.
    """
    if architecture == "genesis":
        try:
            return GenesisUNet3D(channels, channels, base_channels=base_channels)
        except ValueError as error:
            raise OptionError(str(error)) from error
    if architecture == "segresnet":
        from monai.networks.nets import SegResNet

        if base_channels < 8 or base_channels % 8:  # it normalises groups of channels, 8 of them
            raise OptionError(f"base_channels: segresnet needs a multiple of 8, got {base_channels}")
        return SegResNet(spatial_dims=3, init_filters=base_channels, in_channels=channels, out_channels=channels)
    if architecture == "planned":
        return _planned(channels, plans_file, configuration)
    raise OptionError(f"architecture: need one of {', '.join(ARCHITECTURES)}, got {architecture!r}")


def _planned(channels: int, plans_file: str | Path | None, configuration: str) -> nn.Module:
    try:
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    except ImportError as error:
        raise UserError("architecture: planned needs nnU-Net; install nnunetv2, or take genesis") from error
    if plans_file is None or not Path(plans_file).is_file():
        raise UserError(
            f"plans_file: architecture planned needs nnU-Net's plans, got {plans_file}; give --plans_file "
            "$nnUNet_preprocessed/DATASET/nnUNetPlans.json (nnUNetv2_plan_and_preprocess writes it)"
        )
    plans = PlansManager(str(plans_file))
    if configuration not in plans.available_configurations:
        known = ", ".join(plans.available_configurations)
        raise UserError(f"configuration: {plans_file} has {known}, got {configuration}")
    planned = plans.get_configuration(configuration)
    if len(planned.patch_size) != 3:
        raise UserError(f"configuration: need a 3D one, {configuration} has patches of {planned.patch_size}")
    network = get_network_from_plans(
        planned.network_arch_class_name,
        planned.network_arch_init_kwargs,
        planned.network_arch_init_kwargs_req_import,
        channels,
        channels,
        allow_init=True,
        deep_supervision=False,
    )
    freeze_coarser_outputs(network)
    return network
