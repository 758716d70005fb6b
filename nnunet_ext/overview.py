"""The text of `python -m nnunet_ext list`: networks, trainers and options, one line each."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from .errors import OptionError
from .network_choice import (
    has_deep_supervision,
    has_low_resolution,
    network_choices,
    network_class,
    option_defaults,
    training_defaults,
)
from .options import PLANS_KEYS, Rule, option_default, option_fields
from .training.augmentations import AUGMENTATIONS
from .training.background import BACKGROUND_SCHEDULES, SAMPLERS
from .training.losses import LOSSES
from .training.optimizers import OPTIMIZERS, TIED_OPTIONS
from .training.schedules import SCHEDULES


def overview() -> str:
    """Return what can be named in `configure` and `nnUNetv2_train -tr`, as text."""
    tables = {
        "Networks (network=)": _networks(),
        "Trainers (nnUNetv2_train -tr)": trainers(Path(__file__).parent / "trainers"),
        "Options (configure --set)": _options(),
        "Optimisers (optimizer=)": ((key, choice.help) for key, choice in OPTIMIZERS.items()),
        "Schedules (schedule=)": ((key, choice.help) for key, choice in SCHEDULES.items()),
        "Augmentations (augmentation=)": AUGMENTATIONS.items(),
        "Samplers (sampler=)": SAMPLERS.items(),
        "Background schedules (background_schedule=)": ((k, choice.help) for k, choice in BACKGROUND_SCHEDULES.items()),
        "Losses (loss=)": ((key, choice.help) for key, choice in LOSSES.items()),
    }
    return "\n\n".join(f"{title}\n{_table(rows)}" for title, rows in tables.items())


def trainers(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield name and one line of each trainer, read from the sources: a broken trainer hides no other.

    Args:
        folder: Folder of trainer files, each with a class of the file's name.
    """
    for path in sorted(folder.glob("[!_]*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            yield path.stem, f"broken: {error}"
            continue
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == path.stem]
        docstring = ast.get_docstring(classes[0]) if classes else f"broken: no class {path.stem} in {path}"
        yield path.stem, (docstring or "").partition("\n")[0]


def _networks() -> Iterator[tuple[str, str]]:
    for key, info in network_choices().items():
        dims = " and ".join(f"{dim}D" for dim in info.spatial_dims)
        if info.error:
            yield key, f"broken: {info.error}"
            continue
        try:
            options, abilities, fitted = option_defaults(key), _abilities(key), _fitted(key, info.spatial_dims[0])
        except ValueError as error:
            yield key, f"broken: {error}"
            continue
        yield key, f"{info.summary} ({', '.join([dims, *abilities])})"
        for name, value in options.items():
            fits = ", or what fits the configuration" if name in fitted else ""
            yield f"  network.{name}", f"default {value if value is not None else 'none'}{fits}"


def _fitted(key: str, spatial_dims: int) -> set[str]:
    """Return the options of a network whose defaults depend on the patch size or the voxel size."""
    kind = network_class(key)
    methods = [getattr(kind, name, None) for name in ("default_options", "options_for_spacing")]
    return {name for method in methods if method is not None for name in method((64,) * spatial_dims)}


def _abilities(key: str) -> list[str]:
    """Return the training options that not every network takes, as far as this one does."""
    abilities = {"deep_supervision": has_deep_supervision(key), "loss_resolution=low": has_low_resolution(key)}
    return [name for name, able in abilities.items() if able]


def _options() -> Iterator[tuple[str, str]]:
    for name, spec in option_fields().items():
        rule: Rule = spec.metadata["rule"]
        default = option_default(name)
        shown = (
            {None: "as planned" if name in PLANS_KEYS else "none"}.get(default, default) if default != {} else "auto"
        )
        others = _recommended(name)
        depends = ", else by network and optimiser" if name in TIED_OPTIONS else "".join(f"; {o}" for o in others)
        yield name, f"{rule.help}: {rule.describe()} [{str(shown).lower()}{depends}]"


def _recommended(name: str) -> Iterator[str]:
    """Yield which networks have another default of an option, and which."""
    for key, defaults in _recommendations().items():
        if name in defaults:
            yield f"{key}: {str(defaults[name]).lower()}"


@cache
def _recommendations() -> dict[str, Mapping[str, Any]]:
    """Return the defaults that differ from the general ones, by network; broken networks are listed elsewhere."""
    found: dict[str, Mapping[str, Any]] = {}
    for key, info in network_choices().items():
        with suppress(OptionError):
            found[key] = {} if info.error else training_defaults(key)
    return found


def _table(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {text}".rstrip() for name, text in rows)
