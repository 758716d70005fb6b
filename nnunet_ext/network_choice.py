"""Which networks an option can name, and what each says of itself.

A network class may say, beside what `nnunet_ext.networks` asks of it:

* `training_defaults`: dictionary of options that train it well under nnU-Net, such as its learning rate;
* `default_options(patch_size)`: static method, options of the network that fit a patch size;
* `options_for_spacing(spacing_mm)`: static method, those that fit a voxel size, its own or that of the plans;
* `deep_supervision_scales`: for a network with the option `deep_supervision`, the size of each of its outputs
  relative to its input, finest first, such as `[[1, 1], [0.5, 0.5]]`;
* `deep_supervision_weights`: weights of their losses; nnU-Net's own (halved from one to the next) if not said;
* the constructor option `low_resolution`: in training, and never in evaluation mode, logits as large as the network
  makes them, for the training option `loss_resolution=low`;
* `load_pretrained(file)`: method, loads what `pretrained=` names, and returns a report of what was loaded;
* `needs_pretrained`: whether training without such a file is an error, not a warning;
* `encoder_names` and `head_names`: prefixes of the names of its encoder's and its last layer's weights, for `init=`;
* `has_adapter` and `save_adapter(folder)`: whether what was trained can be saved alone, and how;
* `find_base(folder, places)` and `restore(folder, base)`: find the frozen weights of such a folder, and load both;
* `last_layers`: names of the modules that make the logits, which can train alone behind a CRF;
* `mixing_points`: where it can be mixed inside, see `nnunet_ext.training.mixup`; may be set by the constructor;
* `small_options`: options of a small variant, for tests.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from .errors import OptionError
from .networks import NetworkInfo, available, build_network

PLANNED = "planned"
_SET_BY_TRAINING = {"deep_supervision": "deep_supervision=true", "low_resolution": "loss_resolution=low"}
"""Options of networks that an option of the training sets."""


class PlannedNetwork:
    """The U-Net that nnU-Net planned for the configuration."""

    training_defaults: ClassVar[dict[str, Any]] = {"deep_supervision": True, "save_every": 10}
    last_layers = ("decoder.seg_layers",)
    deep_supervision_scales = None  # nnU-Net computes them from the plans
    encoder_names = ("encoder.", "decoder.encoder.")  # the decoder holds the encoder too
    head_names = ("decoder.seg_layers.",)


def freeze_coarser_outputs(network: Any) -> None:
    """Freeze the layers of coarser outputs, which are there without deep supervision too, but get no gradient.

    Several processes wait for the gradient of every parameter that trains. The layers keep their place in the weights.

    Args:
        network: The U-Net that nnU-Net planned, built without deep supervision, or a network around it.
    """
    for module in network.modules():
        if hasattr(module, "seg_layers"):
            module.seg_layers[:-1].requires_grad_(False)


def network_choices() -> dict[str, NetworkInfo]:
    """Return what the option `network` takes, by key: the project's networks and nnU-Net's own."""
    own = NetworkInfo(PLANNED, PlannedNetwork.__name__, __name__, (2, 3), PlannedNetwork.__doc__ or "")
    return {**available(), PLANNED: own}


def network_class(key: str) -> type:
    """Return the class of a network.

    Raises:
        OptionError: If there is no such network, or its module is broken.
    """
    choices = network_choices()
    if key not in choices:
        raise OptionError(f"option network must be one of {', '.join(choices)}, got {key!r}")
    try:
        return choices[key].load()
    except ImportError as error:
        raise OptionError(str(error)) from error


def keys_for(spatial_dims: int) -> list[str]:
    """Return the networks for 2D or 3D configurations."""
    return [key for key, info in network_choices().items() if spatial_dims in info.spatial_dims]


def training_defaults(key: str) -> Mapping[str, Any]:
    """Return the training options that suit a network, where they differ from nnU-Net's own."""
    return getattr(network_class(key), "training_defaults", {})


def has_deep_supervision(key: str) -> bool:
    """Return whether a network can return coarser outputs too."""
    return hasattr(network_class(key), "deep_supervision_scales")


def has_low_resolution(key: str) -> bool:
    """Return whether a network can return smaller logits in training."""
    return "low_resolution" in _declared_options(key)


def option_defaults(key: str) -> dict[str, Any]:
    """Return the options of a network with their defaults, as its constructor declares them."""
    options = {name: value for name, value in _declared_options(key).items() if name not in _SET_BY_TRAINING}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _declared_options(key: str) -> dict[str, Any]:
    network_class(key)
    return network_choices()[key].options()


def complete_options(
    key: str, given: Mapping[str, Any], patch_size: Sequence[int], spacing_mm: Sequence[float] = ()
) -> dict[str, Any]:
    """Return all options of a network: given ones, else those that fit the patches, else the defaults.

    Args:
        key: Key of the network.
        given: Some options; the value `auto` stands for one not given.
        patch_size: Size of the patches, in pixels.
        spacing_mm: Size of their voxels in mm, in the same order; empty if not known.

    Raises:
        OptionError: If an option is unknown or of the wrong type.
    """
    defaults = option_defaults(key)
    given = _without_training_options(key, given)
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        allowed = ", ".join(f"network.{name}" for name in defaults) or "none"
        raise OptionError(f"network {key} has no option {', '.join(unknown)}; its options: {allowed}")
    kind, chosen = network_class(key), {name: value for name, value in given.items() if value != "auto"}
    fitting = kind.default_options(tuple(patch_size)) if hasattr(kind, "default_options") else {}
    spacing_mm = [float(length) for length in chosen.get("spacing_mm", spacing_mm)]
    if spacing_mm and hasattr(kind, "options_for_spacing"):
        fitting |= kind.options_for_spacing(spacing_mm)
    return {name: _typed(key, name, value, defaults[name]) for name, value in {**defaults, **fitting, **chosen}.items()}


def _without_training_options(key: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without those that the training sets; plans of older versions hold such, at their default."""
    for name, setting in _SET_BY_TRAINING.items():
        if given.get(name, False) is not False:
            raise OptionError(f"option network.{name} of {key} is set by the training; set {setting} instead")
    return {name: value for name, value in given.items() if name not in _SET_BY_TRAINING}


def _typed(key: str, name: str, value: Any, default: Any) -> Any:
    """Return a value in the type of the default; only the kinds of JSON are told apart, the network checks the rest."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is not None and type(value) is not type(default):
        kind = {bool: "true or false", list: "a comma-separated list"}.get(type(default), type(default).__name__)
        raise OptionError(f"option network.{name} of {key} must be {kind}, got {value!r}")
    return value


def check_network(key: str, options: Mapping[str, Any], spatial_dims: int) -> None:
    """Build the network without memory for its weights, so that it judges its options.

    Raises:
        OptionError: If the network refuses its options.
    """
    if key == PLANNED:
        return
    try:
        with torch.device("meta"):
            build(key, 1, 2, spatial_dims, options)
    except (ValueError, TypeError) as error:
        raise OptionError(f"network {key}: {error}") from error
    except (RuntimeError, NotImplementedError):
        return  # some constructors compute with their weights, which meta tensors can't; the training will tell


def build(
    key: str,
    in_channels: int,
    num_classes: int,
    spatial_dims: int,
    options: Mapping[str, Any],
    deep_supervision: bool = False,
    low_resolution: bool = False,
) -> torch.nn.Module:
    """Build one of the project's own networks from options in the form of JSON.

    Args:
        key: Key of the network, other than `planned`.
        in_channels: Channels of the input.
        num_classes: Channels of the output.
        spatial_dims: 2 or 3.
        options: Complete options of the network.
        deep_supervision: Whether the network shall return its coarser outputs too.
        low_resolution: Whether the network, where it can, shall return smaller logits in training.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    if deep_supervision:
        values["deep_supervision"] = True
    if low_resolution:
        values["low_resolution"] = True
    return build_network(key, in_channels, num_classes, spatial_dims=spatial_dims, **values)
