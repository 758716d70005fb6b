"""The runs of `scripts/compare_pretraining.py` and their table."""

import json

import compare_pretraining
import pytest
from compare_pretraining import POINTS, SEEDS, Experiment, print_table


@pytest.fixture
def write_cell(tmp_path, monkeypatch):
    """Return a function that writes the file of one fine-tuning of 5 cases."""
    monkeypatch.setattr(compare_pretraining, "RESULTS", tmp_path)

    def write(start: str, seed: int, dice: float) -> None:
        about = {"start": start, "labelled_cases": 5, "seed": seed, "curve": [[i, dice] for i in range(POINTS)]}
        content = {**about, "scores": {"a": {"dice": {"case": dice}}}}
        (tmp_path / f"D-{start}-5cases-{seed}.json").write_text(json.dumps(content))

    return write


def gains(capsys) -> list[str]:
    print_table("D")
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in capsys.readouterr().out.splitlines()[2:]]
    return [row[6] for row in rows if row[:2] == ["5", "genesis"]]


def test_gain_is_the_difference_of_the_means_of_all_seeds_and_of_fewer_there_is_none(write_cell, capsys):
    """0.6, 0.7, 0.8 against 0.5, 0.5, 0.2: 0.7 - 0.4."""
    for seed, dice in zip(SEEDS, (0.6, 0.7, 0.8), strict=True):
        write_cell("genesis", seed, dice)
    for seed, dice in list(zip(SEEDS, (0.5, 0.5, 0.2), strict=True))[:2]:
        write_cell("scratch", seed, dice)
    assert gains(capsys) == ["–"]
    write_cell("scratch", SEEDS[-1], 0.2)
    assert gains(capsys) == ["+0.300"]


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
