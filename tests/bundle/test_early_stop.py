"""A training stops early by a score that takes nan for no gain."""

import math
from types import SimpleNamespace

from ignite.engine import Engine
from monai.handlers import EarlyStopHandler

from nnunet_ext.bundle import validation_score


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
