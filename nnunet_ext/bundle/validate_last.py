"""Validate the last epoch of a training too."""

from ignite.engine import Events
from monai.engines import Evaluator
from monai.engines.workflow import Workflow


class ValidateLastEpoch:
    """Run the validation after the last epoch where the interval of `ValidationHandler` leaves it out.

    Args:
        validator: The validation engine.
        interval: Epochs between the validations of `ValidationHandler`.
    """

    def __init__(self, validator: Evaluator, interval: int) -> None:
        self.validator = validator
        self.interval = interval

    def attach(self, engine: Workflow) -> None:
        """Register with a trainer.

        Args:
            engine: The trainer.
        """
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Workflow) -> None:
        """Validate, if this is the last epoch and it has not been validated.

        Args:
            engine: The trainer.
        """
        epoch = engine.state.epoch
        if epoch == engine.state.max_epochs and epoch % self.interval:
            self.validator.run(epoch)
