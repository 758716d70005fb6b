"""Optimisers and courses of the learning rate by iteration, by the names that nnU-Net's options have for them."""

from collections.abc import Callable

from ignite.engine import Engine, Events
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..errors import OptionError
from ..training.optimizers import OPTIMIZERS
from ..training.schedules import SCHEDULES, plateau_factor


def make_optimizer(
    name: str, network: nn.Module, learning_rate: float, weight_decay: float, momentum: float
) -> Optimizer:
    """Return an optimiser of all trainable parameters.

    Args:
        name: One of `nnunet_ext.training.optimizers.OPTIMIZERS`: sgd, adam, adamw or rmsprop.
        network: The network.
        learning_rate: Learning rate at its highest.
        weight_decay: Weight decay.
        momentum: Momentum; for the Adam family its first beta.

    Raises:
        OptionError: If there is no such optimiser, or nothing for it to train.
    """
    if name not in OPTIMIZERS:
        raise OptionError(f"optimizer_name must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not parameters:
        raise OptionError(
            f"{type(network).__name__} has no parameter that trains; choose other options, such as a CRF with a term "
            "(smoothness_weight or appearance_weight > 0)"
        )
    return OPTIMIZERS[name].build(parameters, learning_rate, weight_decay, momentum)


def make_schedule(name: str, optimizer: Optimizer, warmup: int, total: int, patience: int = 5) -> LambdaLR:
    """Return the course of the learning rate, to be stepped at each iteration.

    Args:
        name: One of `nnunet_ext.training.schedules.SCHEDULES`.
        optimizer: The optimiser, at its highest learning rate.
        warmup: Iterations of linear warm-up before it.
        total: Iterations of the training, warm-up included.
        patience: For `plateau`: validations without gain; `ObserveScore` tells it of them.

    Raises:
        OptionError: If there is no such schedule, or the patience is below 1.
    """
    if name not in SCHEDULES:
        raise OptionError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
    if patience < 1:
        raise OptionError(f"plateau_patience must be an integer >= 1, got {patience}")
    course = warmup_schedule(name, warmup, total)
    return LambdaLR(optimizer, Plateau(course, patience) if name == "plateau" else course)


class Plateau:
    """A course of the learning rate that falls where the score of the validation stands still.

    Its attributes are what `LambdaLR` keeps with a checkpoint: the scores, nothing of the configuration.

    Args:
        course: Factor by iteration, for the warm-up.
        patience: Validations without gain before it falls.
    """

    __slots__ = ("__dict__", "_course", "_patience")

    def __init__(self, course: Callable[[int], float], patience: int) -> None:
        self._course = course
        self._patience = patience
        self.scores: list[float] = []

    def __call__(self, iteration: int) -> float:
        """Return the factor on the learning rate at an iteration."""
        return self._course(iteration) * plateau_factor(self.scores, self._patience)


class ObserveScore:
    """Tell a schedule of each validation's score; attach it to the evaluator. Other schedules than plateau ignore it.

    Args:
        scheduler: What `make_schedule` returned.
        metric: Name of the score.
        lower_is_better: Whether the score is an error.
    """

    def __init__(self, scheduler: LambdaLR, metric: str = "val_mean_dice", lower_is_better: bool = False) -> None:
        self.scheduler = scheduler
        self.metric = metric
        self.lower_is_better = lower_is_better

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator.

        Args:
            engine: The evaluator.
        """
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Note the score of the validation that just ended.

        Args:
            engine: The evaluator.
        """
        for course in self.scheduler.lr_lambdas:
            if isinstance(course, Plateau):
                score = float(engine.state.metrics[self.metric])
                course.scores = [*course.scores, -score if self.lower_is_better else score]


def warmup_schedule(name: str, warmup: int, total: int) -> Callable[[int], float]:
    """Return what `torch.optim.lr_scheduler.LambdaLR` multiplies the learning rate by.

    Args:
        name: One of `nnunet_ext.training.schedules.SCHEDULES`.
        warmup: Iterations of linear warm-up before it.
        total: Iterations of the training, warm-up included.

    Raises:
        ValueError: If there is no such schedule.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
    factor = SCHEDULES[name].factor

    def at(iteration: int) -> float:
        if iteration < warmup:
            return (iteration + 1) / (warmup + 1)
        return factor(min(1.0, (iteration - warmup) / max(1, total - warmup)))

    return at
