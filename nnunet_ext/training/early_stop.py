"""When a training stands still, so that it ends or learns more slowly."""

import math
from collections.abc import Iterable, Iterator


def early_stops(scores: Iterable[float], patience: int | None) -> bool:
    """Return whether a training has stopped.

    It depends on the scores alone, so a training that has stopped does not go on when it is resumed.

    Args:
        scores: Scores of all validations so far, higher is better; nan is no gain.
        patience: Validations without a better score that end the training, >= 1; None: never.
    """
    best, waited = -math.inf, 0
    for score in scores:
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if patience is not None and waited >= patience:
            return True
    return False


def moving_average(scores: Iterable[float], weight: float = 0.1) -> Iterator[float]:
    """Iterate over the moving average that nnU-Net has of its Dice, but leave out epochs without a number.

    nnU-Net's own stays nan once a validation, such as of a few blank patches, has shown no label.

    Args:
        scores: Score of each epoch; nan changes nothing.
        weight: Weight of the newest score, in (0, 1].
    """
    average = math.nan
    for score in scores:
        if math.isnan(average):
            average = score
        elif not math.isnan(score):
            average = (1 - weight) * average + weight * score
        yield average
