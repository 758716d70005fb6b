"""When a training ends because validation stands still."""

import math
from collections.abc import Iterable


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
