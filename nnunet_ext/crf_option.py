"""The option `crf` of a training under nnU-Net: a mean-field CRF behind whatever network is trained."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from .errors import OptionError
from .networks.crf import TRAINABLE, RefinedNetwork, default_bandwidths, make_field
from .networks.mean_field import MeanFieldCRF

WITHOUT = "none"
CRF_CHOICES = {
    WITHOUT: "no CRF",
    "all": "behind the network, which trains with it",
    "crf": "behind the network, which stays as it was loaded; the parameters of the CRF train",
    "last": "as crf, and the layer of the network that makes the logits trains too",
}
"""What the option takes; all but the first are of `nnunet_ext.networks.crf.TRAINABLE`."""

assert set(CRF_CHOICES) == {WITHOUT, *TRAINABLE}


def field_defaults() -> dict[str, Any]:
    """Return the options of the CRF, `crf.<option>=`, with their defaults."""
    parameters = inspect.signature(MeanFieldCRF).parameters.values()
    return {"kind": "exact", **{p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}}


def complete_field_options(
    crf: str, given: Mapping[str, Any], network: str, spatial_dims: int, spacing_mm: Sequence[float] = ()
) -> dict[str, Any]:
    """Return all options of the CRF; none without one. Bandwidths that are not given follow the voxel size.

    Args:
        crf: What the option `crf` says.
        given: Some options.
        network: Key of the network before it.
        spatial_dims: 2 or 3.
        spacing_mm: Voxel size of the configuration in mm; empty: 1 along each axis.

    Raises:
        OptionError: If options are given without a CRF, one is unknown or refused, or the network has its own CRF.
    """
    if crf == WITHOUT:
        if given:
            raise OptionError(f"options crf.{', crf.'.join(given)} need a CRF; set crf=all, crf=crf or crf=last too")
        return {}
    if network == "crf":
        raise OptionError("network=crf has a CRF of its own; set network=<its base> and crf, or leave crf out")
    defaults = field_defaults()
    if unknown := sorted(set(given) - set(defaults)):
        allowed = ", ".join(f"crf.{name}" for name in defaults)
        raise OptionError(f"the CRF has no option {', '.join(unknown)}; its options: {allowed}")
    options = {**defaults, **default_bandwidths(spacing_mm), **given}
    try:
        _field(options, spatial_dims)
    except (ValueError, TypeError, ImportError) as error:
        raise OptionError(f"options crf.: {error}") from error
    return options


def refined(
    network: nn.Module,
    crf: str,
    options: Mapping[str, Any],
    spacing_mm: Sequence[float],
    last_layers: Sequence[str],
    key: str,
) -> nn.Module:
    """Return a network with the CRF of the options behind it, the network itself if they want none.

    Args:
        network: The network.
        crf: What the option `crf` says.
        options: Complete options of the CRF.
        spacing_mm: Voxel size of the configuration in mm, in the array's axis order.
        last_layers: Names of the modules of the network that make its logits.
        key: Key of the network.
    """
    if crf == WITHOUT:
        return network
    try:
        return RefinedNetwork(
            network,
            _field(options, len(spacing_mm)),
            spacing_mm=spacing_mm,
            trainable=crf,
            last_layers=last_layers,
            base_name=key,
        )
    except ValueError as error:
        raise OptionError(f"crf: {error}") from error


def _field(options: Mapping[str, Any], spatial_dims: int) -> nn.Module:
    return make_field(options["kind"], spatial_dims, {n: v for n, v in options.items() if n != "kind"})
