"""The comparison runs what is missing only, and what was interrupted goes on; its commands are stood in for."""

import csv
import json
import os
import re
import shutil
import sys
from pathlib import Path

import compare_methods
import pytest
from compared_methods import METHODS
from compared_results import cell_file

DATASET = "Dataset900_Phantom"
CPU_S = 100.0
"""What each command takes: 5 s for each of the 20 iterations of a trial, so that a minute holds 12."""


class Commands:
    """Write what each command would, and keep what was run; stop in the middle of one if asked."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.words: list[list[str]] = []
        self.killed_in: int | None = None

    def __call__(self, command, log: Path, threads: int, **marks) -> float:
        words = list(command)
        kind = self.kind_of(words)
        self.ran.append(kind)
        self.words.append(words)
        if kind.startswith(("bundle train", "bundle trial")):
            self.write(Path(words[words.index("--output_dir") + 1]) / "checkpoint_last.pt")
        if kind.startswith("nnunet tr"):
            results = os.environ["nnUNet_results"]  # noqa: SIM112
            name = f"{words[words.index('-tr') + 1]}__nnUNetPlans__{words[4]}"
            fold = Path(results, DATASET, name, "fold_0")
            self.write(fold / "checkpoint_latest.pth")
        if self.killed_in == len(self.ran):
            raise KeyboardInterrupt
        if kind == "nnunet train":
            (fold / "checkpoint_latest.pth").replace(fold / "checkpoint_final.pth")
        if kind == "score":
            self.write_scores(Path(words[words.index("--output") + 1]))
        return CPU_S

    @staticmethod
    def kind_of(words: list[str]) -> str:
        if compare_methods.NNUNET_TRAIN in words:
            return "nnunet trial" if words[4].endswith("trial") else "nnunet train"
        if "nnunet_ext" in words:
            return "configure"
        if "evaluation.test3d" in words:
            return "score"
        if "evaluate.json" in words[words.index("--config_file") + 1]:
            return "bundle predict"
        return "bundle trial" if words[words.index("--output_dir") + 1].endswith("trial") else "bundle train"

    @staticmethod
    def write(file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    @staticmethod
    def write_scores(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "metrics.csv").open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["case", "label_name", "metric", "value"])
            rows.writerows([["a", "heart", "dice", 0.75], ["a", "heart", "hd95_mm", "inf"], ["a", "heart", "vs", 1]])


BUNDLE = ["bundle trial", "bundle train", "bundle predict", "score"]
NNUNET = ["configure", "nnunet trial", "configure", "nnunet train", "score"]


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Return what a call of the script has run for some methods, in a folder like the repository's root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))

    def run(*methods: str, killed_in: int | None = None) -> Commands:
        commands = Commands()
        commands.killed_in = killed_in
        monkeypatch.setattr(compare_methods, "run_measured", commands)
        given = ["--dataset-dirs", str(tmp_path / "raw" / DATASET), "--methods", *methods, "--minutes", "1"]
        monkeypatch.setattr(sys, "argv", ["compare_methods.py", *given])
        if killed_in is None:
            assert compare_methods.main() == 0
        else:
            with pytest.raises(KeyboardInterrupt):
                compare_methods.main()
        return commands

    return run


def read_cell(method: str) -> dict:
    return json.loads(cell_file(method, DATASET, 1).read_text())


@pytest.mark.parametrize(("method", "expected"), [("bundle-enet", BUNDLE), ("nnunet-enet", NNUNET)])
def test_missing_cell_runs_its_commands_and_says_what_was_run(compare, method, expected):
    commands = compare(method)
    assert commands.ran == expected
    cell = read_cell(method)
    assert (cell["method"], cell["dataset"], cell["seed"], cell["cpu_minutes"]) == (method, DATASET, 0, 1)
    assert (cell["cpu_s_per_iteration"], cell["iterations"]) == (5, 12)
    assert cell["cpu_s"] == CPU_S  # of the training alone
    assert cell["scores"] == {"heart": {"dice": {"a": 0.75}, "hd95_mm": {"a": "inf"}}}
    of_training, *_, scoring = cell["commands"]  # the trial is no part of what was run
    assert len(cell["commands"]) == 3
    assert re.search(r"iterations_per_epoch[ =]12\b", of_training)
    assert scoring.startswith("python -m evaluation.test3d")


def test_cell_that_exists_runs_nothing_and_stays_as_it_is(compare):
    compare("bundle-enet")
    before = cell_file("bundle-enet", DATASET, 1).read_bytes()
    assert compare("bundle-enet").ran == []
    assert compare("bundle-enet", "nnunet-enet").ran == NNUNET
    assert cell_file("bundle-enet", DATASET, 1).read_bytes() == before


@pytest.mark.parametrize(
    ("method", "killed_in", "rest"),
    [
        ("bundle-enet", 1, BUNDLE),  # an unfinished trial measures nothing
        ("bundle-enet", 2, BUNDLE[1:]),
        ("bundle-enet", 3, BUNDLE[1:]),
        ("bundle-enet", 4, BUNDLE[1:]),
        ("nnunet-enet", 2, NNUNET),
        ("nnunet-enet", 4, NNUNET[2:]),
        ("nnunet-enet", 5, NNUNET[2:]),
    ],
)
def test_killed_cell_writes_no_file_and_the_next_run_goes_on(compare, tmp_path, method, killed_in, rest):
    compare(method)
    whole = read_cell(method)
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    compare(method, killed_in=killed_in)
    assert not cell_file(method, DATASET, 1).exists()
    assert compare(method).ran == rest
    started_anew = len(rest) == len(BUNDLE if method == "bundle-enet" else NNUNET)
    # of a training that went on, the part before it is not known
    assert read_cell(method) == {**whole, "cpu_s": CPU_S if started_anew else None}


@pytest.mark.parametrize(("killed_in", "expected"), [(None, False), (2, False), (4, True), (5, True)])
def test_nnunet_goes_on_from_its_checkpoint_and_only_from_that_of_this_training(compare, killed_in, expected):
    """Of a trial nothing is taken over; a finished training is only told to predict."""
    first = compare("nnunet-enet", killed_in=killed_in) if killed_in else None
    commands = compare("nnunet-enet")
    trainings = [words for words, kind in zip(commands.words, commands.ran, strict=True) if kind == "nnunet train"]
    assert ["--c" in words for words in trainings] == [expected]
    trials = [words for run in (first or commands, commands) for words in run.words if words[4].endswith("_trial")]
    assert trials
    assert not any("--c" in words for words in trials)
    assert "--c" not in " ".join(read_cell("nnunet-enet")["commands"]).split()


def test_trial_is_reused_by_cells_of_other_minutes_and_of_methods_that_refine(compare):
    compare("nnunet-enet")
    cell_file("nnunet-enet", DATASET, 1).unlink()
    commands = compare("nnunet-crf")
    assert METHODS["nnunet-crf"].base == "nnunet-enet"
    # the base for half of the minutes, then this one with a trial of its own
    assert commands.ran == ["configure", "nnunet train", *NNUNET]
    assert read_cell("nnunet-crf")["cpu_s"] == 2 * CPU_S
    assert read_cell("nnunet-crf")["iterations"] == 6


def test_base_that_is_trained_is_not_trained_again(compare):
    compare("nnunet-crf", killed_in=9)  # 4 of the base, then 5 of its own
    assert compare("nnunet-crf").ran == ["configure", "configure", "nnunet train", "score"]
    cell = read_cell("nnunet-crf")
    assert sum("nnUNetv2_train" in command for command in cell["commands"]) == 2
    assert cell["cpu_s"] is None


def test_bundle_scores_its_last_epoch_as_nnunet_does(compare):
    commands = compare("bundle-crf")  # with a base of its own
    words = dict(zip(commands.ran, commands.words, strict=True))
    for kind, option in (("bundle predict", "--ckpt_dir"), ("bundle train", "--base_checkpoint")):
        assert Path(words[kind][words[kind].index(option) + 1]).name == "checkpoint_last.pt"
