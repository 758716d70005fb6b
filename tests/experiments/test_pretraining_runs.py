"""What the experiment with few labelled cases writes of each run; its commands are stood in for."""

import csv
import json
from pathlib import Path

import compare_pretraining
import pytest
from compare_pretraining import RESULTS, Experiment, table
from recorded_commands import RecordedCommands
from torch.utils.tensorboard import SummaryWriter

from nnunet_ext.data.phantom import write_phantom
from nnunet_ext.data.raw_dataset import open_dataset

MINUTES = {"pretrain.json": 7.5, "train.json": 1.25, "inference.json": 3.0, "evaluation.test3d": 4.0}
"""CPU minutes that each command takes here."""


class Commands(RecordedCommands):
    """Write what each command would, while a clock of its own goes on."""

    def __init__(self, places: dict[Path, str]) -> None:
        super().__init__(places)
        self.clock = 0.0
        self.killed = False

    def run(self, module: str, *words: object) -> None:
        given = [str(word) for word in words]
        name = Path(given[2]).name if module == "monai.bundle" else module
        self.commands.append(" ".join([module, *given]))
        self.clock += 60 * MINUTES[name]
        if name in ("pretrain.json", "train.json"):
            output = Path(given[given.index("--output_dir") + 1])
            output.mkdir(parents=True, exist_ok=True)
            (output / "checkpoint_last.pt").touch()
            if self.killed:
                raise KeyboardInterrupt
            metric = "val_restoration_error" if name == "pretrain.json" else "val_mean_dice"
            with SummaryWriter(str(output / "tensorboard")) as writer:
                for epoch in range(1, 11):
                    writer.add_scalar(metric, 0.05 * epoch, epoch)
        if name == "evaluation.test3d":
            scores = Path(given[given.index("--output") + 1])
            scores.mkdir(parents=True, exist_ok=True)
            with (scores / "metrics.csv").open("w", newline="") as stream:
                rows = [["case", "label_name", "metric", "value"], ["a", "heart", "dice", 0.75]]
                csv.writer(stream).writerows(rows)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A data set with enough cases: 10 train, 11 validate."""
    folder = tmp_path_factory.mktemp("raw") / "Dataset961_Many"
    write_phantom(folder, num_training=21, num_test=0, shape=(32, 32, 16))
    names = [path.name.removesuffix(".nii.gz") for path in sorted((folder / "labelsTr").iterdir())]
    (folder / "splits_final.json").write_text(json.dumps([{"train": names[:10], "val": names[10:]}]))
    return open_dataset(folder)


@pytest.fixture
def experiment(dataset, tmp_path, monkeypatch):
    """The experiment in a folder like the repository's root, with one seed and one number of cases."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compare_pretraining, "SIZES", (5,))
    monkeypatch.setattr(compare_pretraining, "SEEDS", (2,))
    made = Experiment(dataset, tmp_path / "work", ["--base_channels", "8"], pretraining_steps=100, steps=50)
    made.commands = Commands(made.commands.places)
    monkeypatch.setattr(compare_pretraining, "_cpu_s", lambda: made.commands.clock)
    return made


def read(name: str) -> dict:
    return json.loads((RESULTS / f"Dataset961_Many-{name}.json").read_text())


def test_every_run_says_its_commands_seed_minutes_and_scores(experiment):
    experiment.run(["scratch", "genesis"])
    pretraining, scratch, genesis = read("pretraining-genesis"), read("scratch-5cases-2"), read("genesis-5cases-2")
    assert (pretraining["seed"], pretraining["cpu_minutes"], pretraining["steps"]) == (0, 7.5, 100)
    assert 0 <= pretraining["minutes"] < 1  # by the clock; its stand-in is fast
    (command,) = pretraining["commands"]
    assert "pretrain.json" in command and "--seed 0" in command
    assert pretraining["restoration_error"][0] == [10, 0.05]
    for cell in (scratch, genesis):
        assert 0 <= cell["minutes"] < 1
        assert (cell["seed"], cell["cpu_minutes"], cell["steps"]) == (2, 1.25, 50)  # of the training alone
        assert len(cell["commands"]) == 3
        assert "--seed 2" in cell["commands"][0]
        assert cell["scores"] == {"heart": {"dice": {"a": 0.75}}}
    assert "--pretrained none" in scratch["commands"][0]
    assert "pretraining-genesis-100steps/model_best.pt" in genesis["commands"][0]


def test_minutes_of_an_interrupted_training_are_not_made_up(experiment):
    experiment.commands.killed = True
    with pytest.raises(KeyboardInterrupt):
        experiment.run(["genesis"])
    assert not list(Path().glob(f"{RESULTS}/*.json"))
    experiment.commands.killed = False
    experiment.run(["genesis"])
    assert read("pretraining-genesis")["cpu_minutes"] is None
    assert read("genesis-5cases-2")["cpu_minutes"] == 1.25


def test_runs_with_and_without_minutes_are_read_alike_and_not_run_again(experiment):
    experiment.run(["genesis"])
    shown = table("Dataset961_Many")
    assert "| 5 | genesis | 0.750 |" in shown
    for file in RESULTS.glob("*.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({key: value for key, value in content.items() if key != "cpu_minutes"}))
    assert table("Dataset961_Many") == shown
    experiment.commands.taken()
    experiment.run(["genesis"])
    assert experiment.commands.taken() == []
