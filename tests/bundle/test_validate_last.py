"""The last epoch is validated, whatever the interval."""

import pytest
from ignite.engine import Engine
from monai.engines import Evaluator
from monai.handlers import ValidationHandler

from nnunet_ext.bundle import ValidateLastEpoch


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
