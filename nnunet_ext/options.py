"""The options of a training under nnU-Net: names, types, allowed values, defaults; the only place that knows them."""

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any

from .crf_option import CRF_CHOICES, WITHOUT
from .errors import OptionError
from .initial_weights import parse_init
from .network_choice import network_choices
from .training.augmentations import AUGMENTATIONS, NNUNET
from .training.background import BACKGROUND_SCHEDULES, SAMPLERS
from .training.losses import LOSSES
from .training.mixup import MIXUPS
from .training.optimizers import OPTIMIZERS
from .training.schedules import SCHEDULES

PLANS_KEYS = ("batch_size", "patch_size")
"""Options that nnU-Net itself reads: they stand in the configuration, not in its section."""

LOSS_RESOLUTIONS = ("full", "low")

OWN_SAMPLER = "nnunet"
"""The option `sampler` that leaves the choice of slices to nnU-Net."""

_NESTED = ("network", "crf")
"""What has options of its own, `<prefix>.<option>=`, in the dictionary `<prefix>_options`."""

_NOUNS: dict[type, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "comma-separated integers",
    dict: "<option>=<value> pairs behind network. or crf.",
}


@dataclass(frozen=True)
class Rule:
    """What values an option takes.

    Args:
        kind: Python type of the value.
        help: One line for `python -m nnunet_ext list`.
        minimum: Smallest allowed number.
        maximum: Largest allowed number.
        above: Number that the value must exceed.
        choices: Returns the allowed values.
        optional: Whether None is allowed.
    """

    kind: type
    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    choices: Callable[[], Iterable[str]] | None = None
    optional: bool = False

    def describe(self) -> str:
        """Return the allowed values in words, such as `a number > 0`."""
        if self.choices is not None:
            return "one of " + ", ".join(self.choices())
        noun = _NOUNS[self.kind]
        limits = [(">", self.above), (">=", self.minimum), ("<=", self.maximum)]
        bounds = " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)
        return " ".join(part for part in (noun, bounds, "or none" if self.optional else "") if part)

    def accept(self, value: Any) -> Any:
        """Return the value in the option's type.

        Raises:
            ValueError: If it is not allowed.
        """
        if value is None and self.optional:
            return None
        if value is None and self.choices is not None and "none" in self.choices():
            return "none"  # the name of a choice, which a command line reads as no value
        if self.kind is tuple:
            return self._accept_sizes(value)
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        typed = isinstance(value, self.kind) and (self.kind is bool or not isinstance(value, bool))
        if not typed:
            raise ValueError(value)
        if self.choices is not None and value not in self.choices():
            raise ValueError(value)
        if self.kind in (int, float) and not self._in_range(value):
            raise ValueError(value)
        return value

    def _accept_sizes(self, value: Any) -> tuple[int, ...]:
        sizes = [value] if isinstance(value, int) else value
        if not isinstance(sizes, list | tuple) or not sizes:
            raise ValueError(value)
        whole = all(isinstance(size, int) and not isinstance(size, bool) for size in sizes)
        if not whole or not all(self._in_range(size) for size in sizes):
            raise ValueError(value)
        return tuple(sizes)

    def _in_range(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
        )


def _option(default: Any, kind: type, help: str, **limits: Any) -> Any:
    rule = Rule(kind, help, **limits)
    if isinstance(default, dict):
        return field(default_factory=dict, metadata={"rule": rule})
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True)
class Options:
    """Everything that `python -m nnunet_ext configure --set` can set; the plain defaults are nnU-Net's own.

    `nnunet_ext.recipe.resolve` makes the complete options of a network from a few given ones.

    Raises:
        OptionError: If a value is not allowed.
    """

    network: str = _option("enet", str, "the network", choices=network_choices)
    network_options: Mapping[str, Any] = _option({}, dict, "options of the network; `auto` fits one to the patch size")
    crf: str = _option(WITHOUT, str, "a mean-field CRF, behind any network", choices=lambda: CRF_CHOICES)
    crf_options: Mapping[str, Any] = _option({}, dict, "options of the CRF")
    batch_size: int | None = _option(None, int, "patches in a batch; none: as planned", minimum=1, optional=True)
    patch_size: tuple[int, ...] | None = _option(
        None, tuple, "pixels of a patch, in the order of the plans; none: as planned", minimum=1, optional=True
    )
    epochs: int = _option(1000, int, "length of the training", minimum=1)
    iterations_per_epoch: int = _option(250, int, "training batches in an epoch", minimum=1)
    val_iterations_per_epoch: int = _option(50, int, "validation batches after each epoch", minimum=1)
    optimizer: str = _option("sgd", str, "the optimiser", choices=lambda: OPTIMIZERS)
    learning_rate: float = _option(1e-2, float, "learning rate at its highest", above=0)
    weight_decay: float = _option(3e-5, float, "weight decay", minimum=0)
    momentum: float = _option(0.99, float, "momentum; first beta of adam and adamw", minimum=0, maximum=0.9999)
    schedule: str = _option("poly", str, "course of the learning rate", choices=lambda: SCHEDULES)
    warmup_epochs: int = _option(0, int, "epochs of linear warm-up before the schedule", minimum=0)
    plateau_patience: int = _option(
        30, int, "schedule=plateau: epochs without a better moving average of the Dice before it falls", minimum=1
    )
    accumulation_steps: int = _option(1, int, "batches whose gradients make one step of the optimiser", minimum=1)
    early_stop_patience: int | None = _option(
        None,
        int,
        "epochs without a better moving average of the Dice before the training ends; none: never",
        minimum=1,
        optional=True,
    )
    gradient_clip: float = _option(
        12.0, float, "largest norm of the gradient; nnU-Net itself clips at 12", above=0, maximum=12
    )
    loss: str = _option("dice_ce", str, "the loss", choices=lambda: LOSSES)
    loss_lambda: float = _option(
        1.0, float, "weight of the second term of dice_ce, dice_focal and bce_dice, beside the 1 of Dice", minimum=0
    )
    deep_supervision: bool = _option(False, bool, "train coarser outputs too, where the network has them")
    loss_resolution: str = _option(
        "full",
        str,
        "size of the training's logits; low: as the network makes them, for networks that list it",
        choices=lambda: LOSS_RESOLUTIONS,
    )
    oversample_foreground: float = _option(
        0.33,
        float,
        "share of each batch that must show foreground; with another sampler than nnunet, where its slice has any",
        minimum=0,
        maximum=1,
    )
    sampler: str = _option(
        OWN_SAMPLER,
        str,
        "which slices an epoch shows, in 2D; nnunet: nnU-Net's own choice",
        choices=lambda: (OWN_SAMPLER, *SAMPLERS),
    )
    background_schedule: str = _option(
        "linear",
        str,
        "sampler=adaptive: course of the probability that a slice without foreground is kept",
        choices=lambda: BACKGROUND_SCHEDULES,
    )
    background_keep: float = _option(1.0, float, "sampler=adaptive: highest such probability", minimum=0, maximum=1)
    foreground_only_epochs: int = _option(
        0, int, "sampler=adaptive: epochs without any such slice, before the course", minimum=0
    )
    augmentation: str = _option(NNUNET, str, "random transforms of the training patches", choices=lambda: AUGMENTATIONS)
    augment_from_epoch: int = _option(
        1, int, "first epoch, counted from 1, with random transforms; those before train on plain patches", minimum=1
    )
    mixup: str = _option("none", str, "mixing of pairs of patches", choices=lambda: MIXUPS)
    mixup_alpha: float = _option(
        0.4, float, "both parameters of the beta distribution that the shares of a pair come from", above=0
    )
    pretrained: str | None = _option(
        None, str, "file of weights to start from, for networks that take one; none: random", optional=True
    )
    init: str | None = _option(
        None,
        str,
        "weights of this very network to start from: genesis:FILE, pre-trained, all but its last layer; "
        "genesis-encoder:FILE, the encoder alone; nnunet:FILE, trained, all of a checkpoint of nnU-Net or a bundle",
        optional=True,
    )
    mirror: bool = _option(
        True, bool, "augmentation=nnunet: mirror images in training, and average over mirrored images in prediction"
    )
    save_every: int = _option(1, int, "epochs between checkpoints", minimum=1)
    seed: int | None = _option(
        None, int, "seed of the initial weights (none: random) and of the sampler (none: 0)", minimum=0, optional=True
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            object.__setattr__(self, spec.name, accept(spec.name, getattr(self, spec.name)))
        if self.init is not None:
            parse_init(self.init)
            if self.pretrained is not None:
                raise OptionError("options init and pretrained both name weights to start from; give one of them")
        if self.warmup_epochs >= self.epochs:
            raise OptionError(
                f"warmup_epochs must be less than epochs ({self.epochs}), got {self.warmup_epochs}; "
                "lower it or train longer"
            )

    @property
    def mirrors(self) -> bool:
        """Whether the training mirrors images; a network that saw none must not predict mirrored ones."""
        return self.mirror and self.augmentation == NNUNET and self.augment_from_epoch <= self.epochs

    def section(self) -> dict[str, Any]:
        """Return the options as they stand in the plans file, without those that nnU-Net keeps itself."""
        values = asdict(self)
        return {name: value for name, value in values.items() if name not in PLANS_KEYS}

    def plans_values(self) -> dict[str, Any]:
        """Return the options that nnU-Net keeps itself and that were given, in its own form."""
        given = {name: getattr(self, name) for name in PLANS_KEYS}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in given.items() if v is not None}


def option_fields() -> dict[str, Field]:
    """Return the fields of `Options` by name; `metadata["rule"]` is the `Rule` of each."""
    return {spec.name: spec for spec in fields(Options)}


def option_default(name: str) -> Any:
    """Return the plain default of an option."""
    spec = option_fields()[name]
    return spec.default if spec.default is not MISSING else {}


def accept(name: str, value: Any) -> Any:
    """Return the value of an option in the option's type.

    Args:
        name: Name of the option.
        value: The value.

    Raises:
        OptionError: If there is no such option, or the value is not allowed.
    """
    specs = option_fields()
    if name not in specs:
        close = difflib.get_close_matches(name, specs, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise OptionError(f"unknown option {name!r}; {hint}known: {', '.join(specs)}; see python -m nnunet_ext list")
    rule: Rule = specs[name].metadata["rule"]
    try:
        return rule.accept(value)
    except ValueError:
        raise OptionError(f"option {name} must be {rule.describe()}, got {value!r}") from None


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read settings as they are typed on a command line.

    Args:
        texts: `key=value` each; `network.<option>=value` sets an option of the network, `crf.<option>=value` of the
            CRF.

    Returns:
        Values by option; options of the network in the dictionary `network_options`, of the CRF in `crf_options`.

    Raises:
        OptionError: If a text has no `=`, a key comes twice or is unknown, or a value is not allowed.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            raise OptionError(f"--set takes key=value, got {text!r}; for example --set epochs=50 learning_rate=0.001")
        prefix, dot, option = key.partition(".")
        nested = dot and prefix in _NESTED
        target = settings.setdefault(f"{prefix}_options", {}) if nested else settings
        name = option if target is not settings else key
        if name in target:
            raise OptionError(f"option {key} is given twice; give it once")
        target[name] = parse_value(value) if target is not settings else accept(key, parse_value(value))
    return settings


def parse_value(text: str) -> Any:
    """Return the value that a text stands for: number, true/false, none, comma-separated list, else the text."""
    lowered = text.strip().lower()
    if lowered in ("none", "null"):
        return None
    if "," in text and not text.lstrip().startswith(("[", "{")):
        return [parse_value(part) for part in text.split(",") if part.strip()]
    try:
        return json.loads(lowered if lowered in ("true", "false") else text)
    except json.JSONDecodeError:
        return text.strip()
