"""A run continues where it stopped, and keeps its best model."""

import logging
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import EarlyStopHandler

from nnunet_ext.bundle import BestModel, SeedEpoch, TrainingState, better
from nnunet_ext.bundle.checkpoints import BEST_FILE, LAST_FILE
from nnunet_ext.errors import UserError

ITERATIONS = 3


class KilledError(Exception):
    """Stands for the end of a process."""


class Run:
    """A tiny training whose metric is given epoch by epoch."""

    def __init__(self, folder, max_epochs=4, metrics=(), patience=100, kill_in=None, **options) -> None:
        torch.manual_seed(0)
        self.network = torch.nn.Linear(2, 1)
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        self.evaluator = SimpleNamespace(state=SimpleNamespace(best_metric=-1, best_metric_epoch=-1))
        self.early_stop = EarlyStopHandler(patience=patience, score_function=lambda engine: engine.score)
        settings = options.pop("settings", {"fold": 0})
        self.state = TrainingState(
            folder, self.network, optimizer, self.scheduler, self.evaluator, self.early_stop, settings, **options
        )
        self.trainer = SupervisedTrainer(
            device="cpu",
            max_epochs=max_epochs,
            train_data_loader=[{"image": torch.ones(1, 2), "label": torch.zeros(1, 1)}] * ITERATIONS,
            network=self.network,
            optimizer=optimizer,
            loss_function=torch.nn.MSELoss(),
            decollate=False,
        )
        self.early_stop.set_trainer(self.trainer)
        self.metrics, self.kill_in, self.epochs = metrics, kill_in, []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: self.scheduler.step())
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self.kill)
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate)
        self.state.attach(self.trainer)

    def kill(self, engine) -> None:
        if engine.state.epoch == self.kill_in:
            raise KilledError

    def validate(self, engine) -> None:
        self.epochs.append(engine.state.epoch)
        if self.metrics:
            score = self.metrics[engine.state.epoch - 1]
            if better(score, self.evaluator.state.best_metric):
                self.evaluator.state.best_metric, self.evaluator.state.best_metric_epoch = score, engine.state.epoch
            self.early_stop._handler(SimpleNamespace(score=score, state=self.evaluator.state))

    def run(self) -> "Run":
        self.trainer.run()
        return self

    @property
    def weights(self) -> torch.Tensor:
        return self.network.weight.detach()


def test_killed_run_continues_to_the_same_weights_learning_rate_and_iteration(tmp_path):
    whole = Run(tmp_path / "whole").run()
    with pytest.raises(KilledError):
        Run(tmp_path / "parts", kill_in=3).run()
    rest = Run(tmp_path / "parts").run()
    assert rest.epochs == [3, 4]
    assert torch.equal(rest.weights, whole.weights)
    assert rest.scheduler.get_last_lr() == whole.scheduler.get_last_lr()
    assert rest.trainer.state.iteration == 4 * ITERATIONS


def test_best_metric_and_early_stopping_are_continued(tmp_path):
    metrics = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    with pytest.raises(KilledError):
        Run(tmp_path, 6, metrics, patience=3, kill_in=4).run()  # the counter stands at 2
    rest = Run(tmp_path, 6, metrics, patience=3).run()
    assert rest.epochs == [4]
    assert (rest.evaluator.state.best_metric, rest.evaluator.state.best_metric_epoch) == (0.5, 1)


def test_run_that_was_stopped_early_stays_stopped(tmp_path):
    metrics = [0.5, 0.4, 0.3, 0.2]
    assert Run(tmp_path, 4, metrics, patience=1).run().epochs == [1, 2]
    assert Run(tmp_path, 4, metrics, patience=1).run().epochs == []


def test_larger_patience_continues_a_run_that_was_stopped_early(tmp_path):
    metrics = [0.5, 0.4, 0.3, 0.2]
    assert Run(tmp_path, 4, metrics, patience=1).run().epochs == [1, 2]
    assert Run(tmp_path, 4, metrics, patience=2).run().epochs == [3]
    assert Run(tmp_path, 4, metrics, patience=3).run().epochs == [4]


def test_finished_run_trains_no_further_and_says_so(tmp_path, caplog):
    first = Run(tmp_path).run()
    with caplog.at_level(logging.INFO):
        again = Run(tmp_path).run()
    assert again.epochs == []
    assert torch.equal(again.weights, first.weights)
    assert "this run is finished (4 epochs); a larger --max_epochs continues it" in caplog.text


def test_more_epochs_continue_a_finished_run(tmp_path):
    Run(tmp_path, max_epochs=2).run()
    assert Run(tmp_path, max_epochs=4).run().epochs == [3, 4]


def test_new_horizon_of_a_schedule_takes_effect(tmp_path):
    run = Run(tmp_path)
    run.state.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(run.state.optimizer, T_max=5)
    run.state.save(run.trainer)
    longer = Run(tmp_path)
    longer.state.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(longer.state.optimizer, T_max=50)
    longer.trainer.state.epoch_length = 1
    longer.state.restore(longer.trainer)
    assert longer.state.scheduler.T_max == 50


def test_a_run_of_a_version_with_fewer_settings_is_continued(tmp_path):
    Run(tmp_path, max_epochs=1, settings={"fold": 0}).run()
    later = Run(tmp_path, max_epochs=2, settings={"fold": 0, "seed": 1})
    later.run()
    assert later.trainer.state.epoch == 2


def test_changed_settings_are_refused_by_name_and_value(tmp_path):
    Run(tmp_path, max_epochs=1, settings={"fold": 0, "seed": 1}).run()
    with pytest.raises(UserError, match=r"other settings \(fold: 0 -> 2\); give another --output_dir"):
        Run(tmp_path, settings={"fold": 2, "seed": 1}).run()


def test_resume_switched_off_refuses_to_overwrite(tmp_path):
    Run(tmp_path, max_epochs=1).run()
    with pytest.raises(UserError, match=r"resume: .*checkpoint_last\.pt exists"):
        Run(tmp_path, resume=False).run()


@pytest.mark.parametrize("content", [b"", b"half", b"PK\x03\x04 half", pickle.dumps({"epoch": 1})])
def test_damaged_file_is_refused_by_name_with_what_to_do(tmp_path, content):
    (tmp_path / LAST_FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint_last\.pt: cannot be read .*remove it to start anew"):
        Run(tmp_path).run()


def test_state_of_another_network_is_refused(tmp_path):
    Run(tmp_path, max_epochs=1).run()
    content = torch.load(tmp_path / LAST_FILE, weights_only=True)
    content["network"]["weight"] = torch.zeros(1, 5)
    torch.save(content, tmp_path / LAST_FILE)
    with pytest.raises(UserError, match=r"(?s)belongs to another network .*weight.*give another --output_dir") as error:
        Run(tmp_path).run()
    assert isinstance(error.value.__cause__, RuntimeError)


class Malicious:
    def __init__(self, marker) -> None:
        self.marker = marker

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.marker),)


def test_malicious_file_is_refused_and_not_executed(tmp_path):
    marker = tmp_path / "executed"
    torch.save({"network": Malicious(marker)}, tmp_path / LAST_FILE)
    with pytest.raises(UserError, match="cannot be read"):
        Run(tmp_path).run()
    assert not marker.exists()


def test_state_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    Run(tmp_path, max_epochs=1).run()
    before = (tmp_path / LAST_FILE).read_bytes()

    def write_half(content, path):
        path.write_bytes(b"half")
        raise KilledError

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(KilledError):
        Run(tmp_path, max_epochs=2).run()
    assert (tmp_path / LAST_FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [LAST_FILE]


def test_interval_spares_writes_but_not_the_last(tmp_path):
    with pytest.raises(KilledError):
        Run(tmp_path, max_epochs=5, interval=2, kill_in=4).run()
    assert Run(tmp_path, max_epochs=5, interval=2).run().epochs == [3, 4, 5]
    assert torch.load(tmp_path / LAST_FILE, weights_only=True)["epoch"] == 5


def numbers_of_epochs(seed=0, rank=0, epochs=(1, 2)) -> dict[int, list[float]]:
    """Return random numbers drawn in each epoch, and check that data set and sampler know the epoch."""
    parts = [SimpleNamespace(epoch=0), SimpleNamespace(epoch=0)]
    for part in parts:
        part.set_epoch = lambda epoch, part=part: setattr(part, "epoch", epoch)
    handler, numbers = SeedEpoch(seed, *parts, rank=rank), {}
    for epoch in epochs:
        handler(SimpleNamespace(state=SimpleNamespace(epoch=epoch)))
        assert [part.epoch for part in parts] == [epoch, epoch]
        numbers[epoch] = [float(torch.rand(1)), float(np.random.rand())]
    return numbers


def test_random_numbers_depend_on_seed_epoch_and_rank_only():
    numbers = numbers_of_epochs()
    assert numbers[2] == numbers_of_epochs(epochs=(2,))[2]
    assert numbers[2] != numbers[1]
    assert numbers[2] != numbers_of_epochs(seed=1)[2]
    assert numbers[2] != numbers_of_epochs(rank=1)[2]


@pytest.mark.parametrize(
    ("current", "best", "expected"),
    [
        (0.5, 0.4, True),
        (0.4, 0.5, False),
        (0.5, 0.5, False),
        (0.0, float("nan"), True),
        (float("nan"), 0.0, False),
        (float("nan"), float("nan"), False),
    ],
)
def test_better(current, best, expected):
    assert better(current, best) is expected


class Validation:
    """An evaluator whose metric is given."""

    def __init__(self, folder, card) -> None:
        self.network = torch.nn.Linear(1, 1)
        self.metric = 0.0
        self.engine = SupervisedEvaluator(
            device="cpu",
            val_data_loader=[{"image": torch.ones(1, 1), "label": torch.ones(1, 1)}],
            network=self.network,
            key_val_metric={"metric": self},
            metric_cmp_fn=better,
            val_handlers=[BestModel(folder, self.network, card)],
            decollate=False,
        )

    def attach(self, engine, name) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update({name: self.metric}))

    def run(self, epoch: int, metric: float) -> None:
        self.metric = metric
        torch.nn.init.constant_(self.network.weight, epoch)
        self.engine.run(global_epoch=epoch)


@pytest.mark.parametrize(
    ("metrics", "best_epoch"),
    [
        ([0.1, 0.3, 0.2], 2),
        ([0.3, 0.3, 0.1], 1),
        ([0.0, 0.0, 0.0], 1),
        ([float("nan"), 0.0, float("nan")], 2),
        ([float("nan")] * 3, 1),
    ],
)
def test_best_model_is_written_only_when_better(tmp_path, make_card, metrics, best_epoch):
    validation = Validation(tmp_path, make_card())
    for epoch, metric in enumerate(metrics, start=1):
        validation.run(epoch, metric)
    assert torch.load(tmp_path / BEST_FILE, weights_only=True)["weight"].item() == best_epoch


def test_best_model_survives_a_worse_validation_after_a_restart(tmp_path, make_card):
    Validation(tmp_path, make_card()).run(1, 0.5)
    restarted = Validation(tmp_path, make_card())
    restarted.engine.state.best_metric, restarted.engine.state.best_metric_epoch = 0.5, 1
    restarted.run(2, 0.4)
    assert torch.load(tmp_path / BEST_FILE, weights_only=True)["weight"].item() == 1
    restarted.run(3, 0.6)
    assert torch.load(tmp_path / BEST_FILE, weights_only=True)["weight"].item() == 3


def test_best_model_has_its_description_beside_it(tmp_path, make_card):
    Validation(tmp_path, make_card()).run(1, 0.5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", BEST_FILE, "plans.json"]


def test_wrappers_of_a_network_leave_no_trace_in_the_weights(tmp_path, make_card):
    network = torch.nn.Linear(1, 1)
    wrapped = torch.nn.ModuleDict({"module": network})
    wrapped.module = network
    handler = BestModel(tmp_path, wrapped, make_card())
    handler(SimpleNamespace(state=SimpleNamespace(epoch=1, best_metric_epoch=1, rank=0)))
    assert sorted(torch.load(tmp_path / BEST_FILE, weights_only=True)) == ["bias", "weight"]


class Adapted(torch.nn.Linear):
    """A network with an adapter that is a file."""

    def __init__(self, has_adapter: bool = True) -> None:
        super().__init__(1, 1)
        self.has_adapter = has_adapter
        self.seen: set[str] = set()

    def save_adapter(self, folder) -> None:
        self.seen = {path.name for path in folder.parent.iterdir()}
        folder.mkdir(exist_ok=True)
        (folder / "adapter_model.safetensors").write_text("new")


IMPROVED = SimpleNamespace(state=SimpleNamespace(epoch=1, best_metric_epoch=1, rank=0))


def test_whole_model_of_an_earlier_part_does_not_hide_the_newer_adapter(tmp_path, make_card):
    network = Adapted()
    BestModel(tmp_path, network, make_card())(IMPROVED)
    BestModel(tmp_path, network, make_card(), content="adapter")(IMPROVED)
    assert BEST_FILE not in network.seen, "a kill here would leave the older model beside the newer adapter"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "dataset.json", "plans.json"]


def test_adapter_of_an_earlier_run_goes_with_the_first_whole_model_that_has_none(tmp_path, make_card):
    BestModel(tmp_path, Adapted(), make_card())(IMPROVED)
    BestModel(tmp_path, Adapted(has_adapter=False), make_card())(IMPROVED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", BEST_FILE, "plans.json"]
