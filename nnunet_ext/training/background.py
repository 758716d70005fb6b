"""How likely a slice without foreground is kept, by epoch, and the samplers that `sampler=` takes.

A new course is one more entry of `BACKGROUND_SCHEDULES`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import OptionError

SAMPLERS: dict[str, str] = {
    "uniform": "all slices alike, each once before any twice",
    "foreground": "half of the slices surely hold foreground",
    "adaptive": "slices with foreground, and a share of the others that grows over the epochs",
}
"""Samplers of slices by name, with one line of help; `nnunet_ext.data.samplers` has their classes."""


@dataclass(frozen=True)
class BackgroundCourse:
    """One course: its factor on the keep probability by progress in [0, 1], and one line of help."""

    factor: Callable[[float], float]
    help: str


BACKGROUND_SCHEDULES: dict[str, BackgroundCourse] = {
    "linear": BackgroundCourse(lambda progress: progress, "grows evenly from 0 in the first epoch to 1 in the last"),
    "cosine": BackgroundCourse(
        lambda progress: 0.5 * (1 - math.cos(math.pi * progress)), "grows from 0 to 1, slowly at both ends"
    ),
    "constant": BackgroundCourse(lambda progress: 1.0, "the same throughout"),
}


@dataclass(frozen=True)
class BackgroundSchedule:
    """The probability that an epoch keeps a slice without foreground.

    Args:
        epochs: Length of the training, >= 1.
        course: Key of `BACKGROUND_SCHEDULES`.
        keep: Highest probability, in [0, 1].
        foreground_only_epochs: Epochs at the start that keep no such slice; the course runs over the others. With
            `course="constant"` all of them come in at once, from that epoch on.

    Raises:
        OptionError: If a value is not allowed.
    """

    epochs: int
    course: str = "linear"
    keep: float = 1.0
    foreground_only_epochs: int = 0

    def __post_init__(self) -> None:
        if self.course not in BACKGROUND_SCHEDULES:
            known = ", ".join(BACKGROUND_SCHEDULES)
            raise OptionError(f"background_schedule must be one of {known}, got {self.course!r}")
        if not 0 <= self.keep <= 1:
            raise OptionError(f"background_keep must be a number in [0, 1], got {self.keep}")
        if self.foreground_only_epochs < 0:
            raise OptionError(f"foreground_only_epochs must be an integer >= 0, got {self.foreground_only_epochs}")

    def probability(self, epoch: int) -> float:
        """Return the probability in an epoch.

        Args:
            epoch: Number of the epoch, counted from 0; it depends on nothing else, so a resumed training goes on.

        Returns:
            Probability in [0, 1]; where the course has one epoch only, that is its last one.
        """
        position = epoch - self.foreground_only_epochs
        if position < 0:
            return 0.0
        last = self.epochs - 1 - self.foreground_only_epochs
        progress = min(1.0, position / last) if last > 0 else 1.0
        return self.keep * BACKGROUND_SCHEDULES[self.course].factor(progress)
