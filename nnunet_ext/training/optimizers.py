"""The optimisers that `optimizer=` takes. A new one is one more entry of `OPTIMIZERS`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn, optim


@dataclass(frozen=True)
class OptimizerChoice:
    """One optimiser and the values that suit it when nothing else is asked for.

    Args:
        build: Called as `build(parameters, learning_rate, weight_decay, momentum)`.
        learning_rate: Default learning rate.
        weight_decay: Default weight decay.
        momentum: Default momentum; for the Adam family its first beta.
        help: One line for `python -m nnunet_ext list`.
    """

    build: Callable[[Iterable[nn.Parameter], float, float, float], optim.Optimizer]
    learning_rate: float
    weight_decay: float
    momentum: float
    help: str

    def defaults(self) -> dict[str, float]:
        """Return the default values of the options that belong to the optimiser."""
        return {name: getattr(self, name) for name in TIED_OPTIONS}


TIED_OPTIONS = ("learning_rate", "weight_decay", "momentum")
"""Options whose good values depend on the optimiser: they fall back to its defaults when it is changed."""


def _sgd(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float) -> optim.Optimizer:
    return optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=momentum > 0)


def _adam(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float) -> optim.Optimizer:
    return optim.Adam(parameters, lr=lr, weight_decay=weight_decay, betas=(momentum, 0.999))


def _adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float) -> optim.Optimizer:
    return optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=(momentum, 0.999))


def _rmsprop(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float) -> optim.Optimizer:
    return optim.RMSprop(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum)


OPTIMIZERS: dict[str, OptimizerChoice] = {
    "sgd": OptimizerChoice(_sgd, 1e-2, 3e-5, 0.99, "SGD with Nesterov momentum, nnU-Net's own"),
    "adam": OptimizerChoice(_adam, 5e-4, 2e-4, 0.9, "Adam; momentum is its first beta"),
    "adamw": OptimizerChoice(_adamw, 5e-4, 1e-2, 0.9, "Adam with decoupled weight decay; momentum is its first beta"),
    "rmsprop": OptimizerChoice(_rmsprop, 1e-4, 3e-5, 0.9, "RMSprop with momentum"),
}
