"""A killed evaluation goes on where it was; finished cases whose files or options changed are scored again."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from evaluation import case_log, cases
from evaluation.score_case import score_case


@pytest.fixture
def three(workspace, cube):
    """Three cases, the second of which a run is killed at."""
    for number, shift in enumerate((0, 1, 2)):
        workspace.pair(cube(8).astype(np.uint8), cube(8, shift=shift).astype(np.uint8), case=f"case_{number}")
    return workspace


@pytest.fixture
def scored_cases(monkeypatch):
    """Names of the cases that were really scored, and a way to be killed at one."""
    names = []

    def score(task):
        if task.case == score.killed_at:
            raise KeyboardInterrupt
        names.append(task.case)
        return score_case(task)

    score.killed_at = None
    monkeypatch.setattr(cases, "score_case", score)
    score.names = names
    return score


def test_killed_run_goes_on_with_what_is_missing(three, scored_cases):
    scored_cases.killed_at = "case_1"
    killed = three.run()
    assert killed.code == 130 and "goes on where it was" in killed.err
    assert not (three.scores / "metrics.csv").exists()
    scored_cases.killed_at = None
    run = three.run()
    assert run.code == 0
    assert scored_cases.names == ["case_0", "case_1", "case_2"]
    assert [run.value("dice", case=f"case_{n}") for n in range(3)] == pytest.approx([1, 7 / 8, 6 / 8])
    assert sorted(path.name for path in three.scores.iterdir()) == ["metrics.csv", "summary.json"]


def test_resumed_scores_are_the_same_to_the_bit(three, scored_cases):
    expected = three.run().rows
    scored_cases.killed_at = "case_2"
    three.run("--nsd-tolerance-mm", "2", output=three.root / "again")
    scored_cases.killed_at = None
    assert three.run(output=three.root / "again").rows == expected
    assert scored_cases.names == ["case_0", "case_1", "case_2", "case_0", "case_1", "case_2"]


def test_slices_and_missed_labels_survive_a_resume(three, cube, scored_cases):
    three.pair(cube(8).astype(np.uint8), np.zeros((40, 40, 40), np.uint8), case="case_0")
    expected = three.run2d(output=three.root / "whole").rows
    scored_cases.killed_at = "case_1"
    three.run2d()
    scored_cases.killed_at = None
    assert three.run2d().rows == expected


def test_changed_option_or_file_means_scoring_again(three, cube, scored_cases):
    scored_cases.killed_at = "case_2"
    three.run()
    three.run("--nsd-tolerance-mm", "1")
    three.pair(cube(8).astype(np.uint8), cube(6).astype(np.uint8), case="case_0")
    scored_cases.killed_at = None
    scored_cases.names.clear()
    run = three.run()
    assert scored_cases.names == ["case_0", "case_2"]  # case_1 was finished with these options and files
    assert run.value("dice", case="case_0") == pytest.approx(2 * 6**3 / (6**3 + 8**3))


def test_changed_source_means_scoring_again(three, scored_cases, monkeypatch, tmp_path):
    scored_cases.killed_at = "case_2"
    three.run()
    copy = tmp_path / "package"
    shutil.copytree(Path(case_log.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__", "engine"))
    monkeypatch.setattr(case_log, "__file__", str(copy / "case_log.py"))
    case_log.evaluation_fingerprint.cache_clear()
    three.run()
    assert scored_cases.names == ["case_0", "case_1"]  # the same sources elsewhere
    with (copy / "overlap.py").open("a") as stream:
        stream.write("# changed")
    case_log.evaluation_fingerprint.cache_clear()
    three.run()
    monkeypatch.undo()
    case_log.evaluation_fingerprint.cache_clear()
    assert scored_cases.names == ["case_0", "case_1", "case_0", "case_1"]


def test_half_a_line_of_a_killed_process_is_left_alone(three, scored_cases):
    scored_cases.killed_at = "case_2"
    three.run()
    (log,) = (three.scores / ".cases").glob("*.jsonl")
    log.write_text(log.read_text()[:-20])  # the line of case_1 is cut short
    scored_cases.killed_at = None
    scored_cases.names.clear()
    assert three.run().code == 0
    assert scored_cases.names == ["case_1", "case_2"]


def test_finished_cases_are_kept_for_the_next_run_if_one_failed(three, scored_cases):
    bad = three.predictions / "case_1.nii.gz"
    good = bad.read_bytes()
    bad.write_bytes(good[: len(good) // 2])
    assert three.run().code == 1
    bad.write_bytes(good)
    scored_cases.names.clear()
    assert three.run().code == 0
    assert scored_cases.names == ["case_1"]
    assert not (three.scores / ".cases").exists()


def test_log_that_cannot_be_written_costs_no_scores(three, monkeypatch):
    three.scores.mkdir()
    (three.scores / ".cases").write_text("a file where the folder should be")
    run = three.run()
    assert run.code == 0 and len(run.rows) > 0
    assert run.err.count("can't be written") == 1
    assert (three.scores / ".cases").read_text() == "a file where the folder should be"


def test_files_of_others_in_the_log_folder_are_left(three):
    folder = three.scores / ".cases"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("keep")
    (folder / "broken.jsonl").write_bytes(b"\xff\xfe{")
    assert three.run().code == 0
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_changed_geometry_beside_probabilities_means_scoring_again(workspace, scored_cases):
    for case in ("a", "b"):
        workspace.nifti(workspace.references / f"{case}.nii.gz", np.ones((4, 5, 6), np.uint8))
        probabilities = np.stack([np.zeros((4, 5, 6), np.float32), np.ones((4, 5, 6), np.float32)])
        workspace.npz(workspace.predictions, case, probabilities=probabilities)
    scored_cases.killed_at = "b"
    assert workspace.run().code == 130
    workspace.npz(workspace.predictions, "c", spacing=(9, 9, 9), probabilities=probabilities)
    (workspace.predictions / "c.pkl").replace(workspace.predictions / "a.pkl")
    (workspace.predictions / "c.npz").unlink()
    scored_cases.killed_at = None
    run = workspace.run()
    assert run.code == 1 and "geometries must be the same" in run.err
