"""Clip gradients before each optimiser step, with mixed precision and accumulation."""

import math

from monai.engines import IterationEvents, SupervisedTrainer

from ..errors import OptionError
from ..training.gradients import tame_gradients


class GradientClip:
    """Limit the global norm of the gradients, and drop gradients that are not finite; attach it to a trainer.

    Args:
        max_norm: Largest norm; 0 only drops gradients that are not finite.

    Raises:
        OptionError: If the norm is negative, which would turn the gradients round.
    """

    def __init__(self, max_norm: float) -> None:
        if not max_norm >= 0:
            raise OptionError(f"gradient_clip must be a number >= 0 (0: off), got {max_norm}")
        self.max_norm = max_norm

    def attach(self, engine: SupervisedTrainer) -> None:
        """Register with a trainer.

        Args:
            engine: The trainer.
        """
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        """Clip, if the optimiser steps at this iteration.

        Args:
            engine: The trainer.
        """
        accumulated = engine.accumulation_steps
        length = engine.state.epoch_length or 0
        position = (engine.state.iteration - 1) % length + 1 if length else engine.state.iteration
        if position % accumulated and position != length:
            return
        optimizer = engine.optimizer
        if engine.scaler is not None:
            engine.scaler.unscale_(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        # a batch of blank slices has no variance to normalise by: learn nothing from it
        tame_gradients(parameters, self.max_norm or math.inf)
