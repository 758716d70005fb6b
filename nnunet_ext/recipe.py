"""From a few given options to the complete options of a training."""

from collections.abc import Mapping, Sequence
from typing import Any

from .crf_option import WITHOUT, complete_field_options
from .errors import OptionError
from .network_choice import (
    complete_options,
    has_deep_supervision,
    has_low_resolution,
    keys_for,
    network_choices,
    training_defaults,
)
from .options import OWN_SAMPLER, PLANS_KEYS, Options, accept, option_default, option_fields
from .training.optimizers import OPTIMIZERS, TIED_OPTIONS


def resolve(
    given: Mapping[str, Any],
    *,
    patch_size: Sequence[int],
    spacing_mm: Sequence[float] = (),
    preset: Mapping[str, Any] | None = None,
) -> Options:
    """Return complete options.

    What is given wins over the preset, the preset over what the network recommends, that over the defaults of the
    optimiser and of `Options`. Learning rate, weight decay and momentum belong to an optimiser: where a stronger
    source names another optimiser, a weaker source's values of these three are dropped.

    Args:
        given: Options as `Options` names them; `network_options` may be partial.
        patch_size: Patch size of the configuration, 2 or 3 numbers; a given `patch_size` replaces it.
        spacing_mm: Voxel size of the configuration in mm, in the array's axis order; empty: 1 along each axis.
        preset: Options of a named trainer.

    Raises:
        OptionError: If an option is unknown or not allowed, the network doesn't fit the number of dimensions, or
            `given` names another network than the preset.
    """
    preset = dict(preset or {})
    for name, value in [*preset.items(), *given.items()]:
        accept(name, value)
    patch_size = _checked_patch_size(given, preset, patch_size)
    key = _network(given, preset, len(patch_size))
    values: dict[str, Any] = {"network": key}
    for layer in (training_defaults(key), preset, given):
        _lay_over(values, layer)
    optimizer = OPTIMIZERS[values.get("optimizer", option_default("optimizer"))]
    network_options = {**preset.get("network_options", {}), **given.get("network_options", {})}
    values["network_options"] = complete_options(key, network_options, patch_size, spacing_mm)
    field = {**preset.get("crf_options", {}), **given.get("crf_options", {})}
    crf = values.get("crf", WITHOUT)
    values["crf_options"] = complete_field_options(crf, field, key, len(patch_size), spacing_mm)
    if values.get("deep_supervision") and not has_deep_supervision(key):
        raise OptionError(f"network {key} has no deep supervision; set deep_supervision=false")
    if values.get("loss_resolution") == "low" and not has_low_resolution(key):
        able = ", ".join(other for other in keys_for(len(patch_size)) if has_low_resolution(other))
        raise OptionError(
            f"network {key} has logits of full size only; set loss_resolution=full (low is for: {able or 'none'})"
        )
    _refuse_slices_of_volumes(values, len(patch_size))
    if (
        values.get("warmup_epochs", 0) >= values.get("epochs", option_default("epochs"))
        and "warmup_epochs" not in given
    ):
        values["warmup_epochs"] = 0  # a recommended warm-up is for trainings of more than a few epochs
    return Options(**{**optimizer.defaults(), **values})


def refuse_untrainable(options: Options) -> None:
    """Refuse what can be predicted with, but not trained.

    Args:
        options: Complete options of a training.

    Raises:
        OptionError: If a CRF would refine smaller logits than it predicts from, or has nothing that trains.
    """
    if options.crf == WITHOUT:
        return
    if options.loss_resolution == "low":
        raise OptionError(f"crf={options.crf} refines logits of full size; set loss_resolution=full, or crf={WITHOUT}")
    weights = ("smoothness_weight", "appearance_weight")
    if options.crf == "crf" and not any(options.crf_options[name] for name in weights):
        raise OptionError("crf=crf trains a CRF, which has no term; set crf.smoothness_weight or crf.appearance_weight")


def _refuse_slices_of_volumes(values: Mapping[str, Any], spatial_dims: int) -> None:
    """Refuse a sampler of slices for a configuration of volumes."""
    sampler = values.get("sampler", option_default("sampler"))
    if spatial_dims != 2 and sampler != OWN_SAMPLER:
        raise OptionError(
            f"option sampler works on slices, so {sampler} needs a 2D configuration, got a patch of {spatial_dims} "
            f"numbers; set sampler={OWN_SAMPLER}, or configure with -c 2d"
        )


def _lay_over(values: dict[str, Any], layer: Mapping[str, Any]) -> None:
    optimizer = values.get("optimizer", option_default("optimizer"))
    if layer.get("optimizer", optimizer) != optimizer:
        for name in TIED_OPTIONS:
            values.pop(name, None)
    values.update(layer)


def _checked_patch_size(given: Mapping[str, Any], preset: Mapping[str, Any], planned: Sequence[int]) -> Sequence[int]:
    asked = given.get("patch_size") or preset.get("patch_size")
    if asked is None:
        return planned
    sizes = accept("patch_size", asked)
    if len(sizes) != len(planned):
        raise OptionError(
            f"option patch_size must have {len(planned)} numbers for this configuration "
            f"(planned: {','.join(map(str, planned))}), got {len(sizes)}: {','.join(map(str, sizes))}"
        )
    return sizes


def _network(given: Mapping[str, Any], preset: Mapping[str, Any], spatial_dims: int) -> str:
    fitting = keys_for(spatial_dims)
    key = given.get("network") or preset.get("network")
    if key is None:
        key = option_default("network")
        if key not in fitting:
            raise OptionError(
                f"a {spatial_dims}D configuration has no default network; choose one of {', '.join(fitting)}: "
                f"python -m nnunet_ext configure -d DATASET -c CONFIGURATION --name NAME --set network={fitting[0]}"
            )
    if preset.get("network", key) != key:
        raise OptionError(
            f"this trainer is a preset for network {preset['network']}, the configuration says network {key}; "
            "train the configuration with -tr CustomTrainer"
        )
    if key not in fitting:
        dims = " and ".join(f"{d}D" for d in network_choices()[key].spatial_dims)
        raise OptionError(
            f"network {key} is for {dims}, the configuration is {spatial_dims}D; choose one of {', '.join(fitting)}"
        )
    return key


def from_section(section: Mapping[str, Any], patch_size: Sequence[int], spacing_mm: Sequence[float] = ()) -> Options:
    """Return the options of a section in the plans; what an older version didn't know gets its default.

    Args:
        section: The section.
        patch_size: See `resolve`, as for the following one.
        spacing_mm: Voxel size.

    Raises:
        OptionError: If the section has unknown keys or values.
    """
    misplaced = [name for name in PLANS_KEYS if name in section]
    if misplaced:
        raise OptionError(
            f"{', '.join(misplaced)} must stand in the configuration itself, not in its nnunet_ext section"
        )
    return resolve(section, patch_size=patch_size, spacing_mm=spacing_mm)


def differences(one: Options, other: Options) -> list[str]:
    """Return the options that differ, as `name: one -> other`."""
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in option_fields()}
    return [f"{name}: {a!r} -> {b!r}" for name, (a, b) in pairs.items() if a != b]
