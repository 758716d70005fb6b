"""Write a configuration with options of its own into nnU-Net's plans file."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import write_json
from .errors import OptionError
from .initial_weights import parse_init
from .network_choice import PLANNED, check_network
from .options import Options
from .plans import SECTION, find_dataset_dir, read_plans, resolve_configuration, trained_models
from .recipe import refuse_untrainable, resolve


@dataclass(frozen=True)
class Configured:
    """What `configure` did.

    Args:
        dataset_name: Full name of the data set.
        plans_path: The plans file.
        name: Name of the configuration.
        entry: The configuration as it stands in the plans file.
        changed: Whether the plans file had to be changed.
        preprocessed: Whether the data of the configuration are there.
    """

    dataset_name: str
    plans_path: Path
    name: str
    entry: Mapping[str, Any]
    changed: bool
    preprocessed: bool


def configure(
    dataset: str,
    configuration: str,
    name: str,
    settings: Mapping[str, Any],
    *,
    plans_identifier: str = "nnUNetPlans",
    dry_run: bool = False,
) -> Configured:
    """Write a configuration that inherits from a planned one and carries complete, checked options.

    The settings describe the whole configuration: what is not given gets its default, also where a configuration of
    this name exists.

    Args:
        dataset: Number or name of the data set.
        configuration: The planned configuration to inherit from, such as `2d`.
        name: Name of the new configuration.
        settings: Options by name, see `nnunet_ext.options.parse_settings`.
        plans_identifier: Name of the plans file without ending.
        dry_run: Check everything, write nothing.

    Raises:
        OptionError: If a name or an option is not allowed, something is not planned yet, or the configuration has
            been trained with other options.
    """
    _check_name(name)
    dataset_dir = find_dataset_dir(dataset)
    plans_path, plans = read_plans(dataset_dir, plans_identifier)
    parent = _parent(plans, configuration, name)
    options = resolve(settings, patch_size=parent["patch_size"], spacing_mm=parent["spacing"])
    refuse_untrainable(options)
    patch_size = options.patch_size or tuple(parent["patch_size"])
    check_network(options.network, options.network_options, len(patch_size))
    if options.network == PLANNED:
        _check_divisible(patch_size, parent)
    entry = _entry(configuration, parent, options)
    changed = plans["configurations"].get(name) != entry
    if changed:
        _refuse_overwriting(plans, dataset_dir.name, plans_identifier, name)
        plans["configurations"][name] = entry
        if not dry_run:
            write_json(plans_path, plans)
    preprocessed = (dataset_dir / parent["data_identifier"]).is_dir()
    return Configured(dataset_dir.name, plans_path, name, entry, changed, preprocessed)


def locate_weights(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings whose files of weights are absolute paths, because training may start in another folder.

    Args:
        settings: Options by name, see `nnunet_ext.options.parse_settings`.

    Raises:
        OptionError: If such a file does not exist, or `init` names none.
    """
    located = dict(settings)
    for name in ("init", "pretrained"):
        value = settings.get(name)
        if not isinstance(value, str):
            continue
        method = f"{value.partition(':')[0]}:" if name == "init" else ""
        file = Path(parse_init(value)[1] if name == "init" else value).expanduser().absolute()
        if not file.is_file():
            raise OptionError(f"option {name}: {file} does not exist; name a file of weights")
        located[name] = f"{method}{file}"
    return located


def _check_name(name: str) -> None:
    if "__" in name:
        raise OptionError(f"--name must not contain '__', where nnU-Net splits folder names, got {name!r}")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", name):
        raise OptionError(
            f"--name must be letters, digits, '_', '-' and '.', with a letter or digit at both ends, got {name!r}"
        )


def _parent(plans: Mapping[str, Any], configuration: str, name: str) -> dict[str, Any]:
    parent = resolve_configuration(plans, configuration)
    if SECTION in parent:
        raise OptionError(
            f"-c must be a planned configuration, {configuration!r} has itself been made by configure; "
            f"give -c {parent['inherits_from']} and all settings"
        )
    if parent.get("previous_stage"):
        raise OptionError(
            f"-c {configuration} is the second stage of a cascade, which can't be configured; give another"
        )
    if name == configuration:
        raise OptionError(f"--name must differ from the planned configuration {configuration!r}; take {name}_custom")
    return parent


def _check_divisible(patch_size: tuple[int, ...], parent: Mapping[str, Any]) -> None:
    """Refuse patches that the planned U-Net can't halve as often as it does."""
    strides = parent["architecture"]["arch_kwargs"]["strides"]
    steps = [math.prod(stride[axis] for stride in strides) for axis in range(len(patch_size))]
    if any(size % step for size, step in zip(patch_size, steps, strict=True)):
        nearest = [max(step, round(size / step) * step) for size, step in zip(patch_size, steps, strict=True)]
        raise OptionError(
            f"option patch_size must be multiples of {steps} for network={PLANNED}, got {list(patch_size)}; "
            f"the nearest is patch_size={','.join(map(str, nearest))}"
        )


def _entry(configuration: str, parent: Mapping[str, Any], options: Options) -> dict[str, Any]:
    entry: dict[str, Any] = {"inherits_from": configuration, **options.plans_values()}
    if parent.get("next_stage"):
        entry["next_stage"] = None  # the next stage of a cascade reads the results of the planned one
    entry[SECTION] = options.section()
    return entry


def _refuse_overwriting(plans: Mapping[str, Any], dataset_name: str, plans_identifier: str, name: str) -> None:
    existing = plans["configurations"].get(name)
    if existing is not None and SECTION not in existing:
        raise OptionError(f"configuration {name!r} exists and was not made by configure; choose another --name")
    if existing is None:
        return
    models = trained_models(dataset_name, plans_identifier, name)
    if models:
        raise OptionError(
            f"configuration {name!r} has been trained with other options ({', '.join(map(str, models))}); "
            "choose another --name, or delete these folders"
        )
