"""The score by which a training stops early."""

import math

from monai.engines.workflow import Workflow


def validation_score(engine: Workflow) -> float:
    """Return the mean Dice of a validation, for early stopping, which would take nan for a gain.

    Args:
        engine: The evaluator, with the metric `val_mean_dice`.

    Returns:
        Mean Dice in [0, 1]; -1 where no case shows a label.
    """
    dice = float(engine.state.metrics["val_mean_dice"])
    return -1.0 if math.isnan(dice) else dice
