"""The experiment with few labelled cases: its curves, and the bundle's table of them."""

import json
import time

import pytest
from compare_pretraining import RESULTS, SEEDS, SIZES, STARTS, Experiment, table
from tensorboard_events import read_curve, read_minutes
from torch.utils.tensorboard import SummaryWriter

NAME = "Dataset004_Hippocampus"


def test_readme_of_the_bundle_shows_the_table_of_the_committed_runs(repository):
    text = (repository / "bundles/models_genesis/docs/README.md").read_text(encoding="utf-8")
    assert table(NAME, repository) in text


def test_gain_is_that_over_scratch_with_the_same_cases(tmp_path):
    (tmp_path / RESULTS).mkdir(parents=True)
    for start, dice in (("scratch", 0.5), ("genesis", 0.75)):
        for seed in SEEDS:
            cell = {"start": start, "labelled_cases": 5, "seed": seed, "curve": [[20 * i, dice] for i in range(1, 11)]}
            cell["scores"] = {"a": {"dice": {"x": dice}}}
            file = tmp_path / RESULTS / f"{NAME}-{start}-5cases-{seed}.json"
            file.write_text(json.dumps(cell))
    rows = table(NAME, tmp_path).splitlines()
    assert "| 5 | genesis | 0.750 | 0.750 | 0.750 | 0.750 | +0.250 | 1 of 1, 1.000 | 0.750 | 0.750 |" in rows
    assert "| 10 | genesis | not run | not run | not run | – | – | – | – | – |" in rows
    assert len(rows) == 2 + len(SIZES) * len(STARTS)


def test_of_an_epoch_that_ran_twice_the_last_value_counts(tmp_path):
    for values in ({1: 0.1, 2: 0.2}, {2: 0.25, 3: 0.3}):
        with SummaryWriter(str(tmp_path)) as writer:
            for epoch, value in values.items():
                writer.add_scalar("dice", value, epoch)
    assert read_curve(tmp_path, "dice", steps_per_epoch=20) == [(20, 0.1), (40, 0.25), (60, 0.3)]


def test_minutes_are_those_of_the_processes_without_the_time_between_them(tmp_path, monkeypatch):
    now = time.time()
    for process, minutes in ((7, (0, 1, 4)), (8, (-60, -58.5))):  # counted from now, when the file is opened
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        with SummaryWriter(str(tmp_path)) as writer:
            for step, minute in enumerate(minutes):
                writer.add_scalar("dice", 0.5, step, walltime=now + 60 * minute)
    assert read_minutes(tmp_path) == pytest.approx(4 + 60, abs=0.5)
    with pytest.raises(FileNotFoundError, match="must hold the TensorBoard events"):
        read_minutes(tmp_path / "nothing")


def test_fewer_seeds_than_all_are_compared_with_nothing(tmp_path):
    test_gain_is_that_over_scratch_with_the_same_cases(tmp_path)
    (tmp_path / RESULTS / f"{NAME}-scratch-5cases-1.json").unlink()
    row = next(row for row in table(NAME, tmp_path).splitlines() if row.startswith("| 5 | genesis |"))
    assert row == "| 5 | genesis | 0.750 | 0.750 | 0.750 | 0.750 | – | – | 0.750 | 0.750 |"


def test_run_of_another_length_or_network_is_not_taken_for_this_one(tmp_path):
    experiment = Experiment.__new__(Experiment)
    experiment.network = ["--base_channels", "8"]
    file = tmp_path / "cell.json"
    assert not experiment._is_there(file, 200)
    file.write_text(json.dumps({"steps": 200, "network": "--base_channels 8"}))
    assert experiment._is_there(file, 200)
    with pytest.raises(SystemExit, match=r"holds a run of .*200.*, asked: .*400"):
        experiment._is_there(file, 400)
    experiment.network = ["--base_channels", "4"]
    with pytest.raises(SystemExit, match="move it away"):
        experiment._is_there(file, 200)
