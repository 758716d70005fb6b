"""What a run tells people."""

import logging
from types import SimpleNamespace

import pytest
import torch
from monai.engines import SupervisedTrainer
from tqdm.std import tqdm

from nnunet_ext.bundle import Progress, RunSummary, TimeEstimate, ValidationReport
from nnunet_ext.bundle.progress import _duration


def train(*handlers, epochs=2, device="cpu") -> None:
    network = torch.nn.Linear(1, 1)
    SupervisedTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=[{"image": torch.ones(1, 1), "label": torch.ones(1, 1)}] * 6,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=torch.nn.MSELoss(),
        train_handlers=list(handlers),
    ).run()


def test_time_estimate_speaks_once_and_names_the_demo(caplog):
    with caplog.at_level(logging.INFO, logger="nnunet_ext"):
        train(TimeEstimate("cpu", "run the demo"))
    (message,) = [record.getMessage() for record in caplog.records if "on this CPU" in record.getMessage()]
    assert "run the demo" in message


def test_time_estimate_is_silent_on_a_gpu(caplog):
    handler = TimeEstimate("cuda", "run the demo")
    with caplog.at_level(logging.INFO, logger="nnunet_ext"):
        train(handler)
    assert "on this CPU" not in caplog.text


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (7200, "2.0 h")]
)
def test_durations_are_readable(seconds, text):
    assert _duration(seconds) == text


def test_progress_shows_loss_and_name(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(tqdm, "set_postfix", lambda self, values, **_: shown.append(values))
    train(Progress("training", interval=2), epochs=1)
    assert [set(values) for values in shown] == [{"loss"}] * 3
    assert "training" in capsys.readouterr().err


def test_report_averages_each_label_over_the_cases_that_have_it(caplog):
    nan = float("nan")
    values = torch.tensor([[1.0, nan], [0.5, nan], [nan, nan]])
    state = SimpleNamespace(rank=0, epoch=3, metrics={"val_mean_dice": 0.75}, metric_details={"val_mean_dice": values})
    with caplog.at_level(logging.INFO):
        ValidationReport(["heart", "aorta"])(SimpleNamespace(state=state))
    assert "epoch 3: mean Dice 0.7500; heart 0.750 (n=2), aorta nan (n=0)" in caplog.text


def test_summary_names_the_best_model_and_the_next_step(tmp_path, caplog):
    evaluator = SimpleNamespace(state=SimpleNamespace(best_metric=0.5, best_metric_epoch=2))
    (tmp_path / "model_best.pt").touch()
    with caplog.at_level(logging.INFO):
        train(RunSummary(tmp_path, evaluator, ["do this next"]))
    assert "best mean Dice 0.5000 at epoch 2" in caplog.text
    assert str(tmp_path / "model_best.pt") in caplog.text
    assert "do this next" in caplog.text


def test_summary_names_no_model_that_was_not_written(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train(RunSummary(tmp_path, SimpleNamespace(state=None), ["do this next"]))
    assert "no epoch was completed and validated" in caplog.text
    assert "do this next" not in caplog.text
