"""The last epoch is validated, whatever the interval; nan is no gain."""

import math
from types import SimpleNamespace

import pytest
from ignite.engine import Engine
from monai.engines import Evaluator
from monai.handlers import EarlyStopHandler, ValidationHandler

from nnunet_ext.bundle import ValidateLastEpoch, validation_score


@pytest.mark.parametrize(("max_epochs", "expected"), [(3, [3]), (5, [5]), (12, [5, 10, 12])])
def test_last_epoch_is_validated_once(max_epochs, expected):
    seen: list[int] = []
    validator = Evaluator(device="cpu", val_data_loader=[0])
    validator.run = lambda global_epoch=1: seen.append(global_epoch)  # type: ignore[method-assign]
    trainer = Engine(lambda engine, batch: None)
    ValidationHandler(validator=validator, interval=5).attach(trainer)
    ValidateLastEpoch(validator, interval=5).attach(trainer)
    trainer.run([0], max_epochs=max_epochs)
    assert seen == expected


def test_validations_without_any_label_stop_a_training():
    """MONAI's handler, which takes nan for a gain, by our score."""
    scores = [0.5, math.nan, math.nan, 0.4]
    trainer = Engine(lambda engine, batch: None)
    handler = EarlyStopHandler(patience=3, score_function=validation_score)
    handler.set_trainer(trainer)
    for score in scores:
        assert not trainer.should_terminate
        handler._handler(SimpleNamespace(state=SimpleNamespace(metrics={"val_mean_dice": score})))
    assert trainer.should_terminate
