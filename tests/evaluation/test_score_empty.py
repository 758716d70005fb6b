"""Every row of the policy for empty masks, through the command line's function; peers' bugs among them."""

import math

import numpy as np
import pytest

OVERLAPS_0 = ("dice", "iou", "vs", "nsd_2mm")
DISTANCES = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")
SHAPE = (6, 8, 10)
DIAGONAL = math.sqrt(6**2 + 8**2 + 10**2)


@pytest.fixture
def box():
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:4, 2:5, 2:6] = 1
    return mask


@pytest.fixture
def empty():
    return np.zeros(SHAPE, np.uint8)


def test_label_in_neither_is_nan_throughout_and_counted_as_n_na(workspace, box, empty):
    workspace.dataset_json({"background": 0, "a": 1, "b": 2})
    workspace.pair(box, box)
    run = workspace.run()
    assert run.code == 0
    values = [float(row["value"]) for row in run.rows if row["label"] == "2"]
    assert len(values) == 15 and all(math.isnan(value) for value in values)
    for metric in ("dice", "specificity", "hd95_mm", "nsd_2mm"):
        statistics = run.statistics(metric, label="2")
        assert (statistics["n"], statistics["n_na"], statistics["n_missed"]) == (0, 1, 0)
        assert statistics["mean"] is statistics["median"] is statistics["std"] is None


def test_missed_label_has_overlap_0_and_infinite_distance(workspace, box, empty):
    workspace.pair(box, empty)
    run = workspace.run("--labels", "1")
    assert run.code == 0
    assert [run.value(metric) for metric in OVERLAPS_0] == [0, 0, 0, 0]
    assert run.value("voe") == 1
    assert [run.value(metric) for metric in DISTANCES] == [math.inf] * 4
    assert run.value("sensitivity") == 0
    assert run.value("specificity") == 1
    assert math.isnan(run.value("precision"))  # not 1: nothing was predicted
    assert {row["value"] for row in run.rows if row["metric"] == "hd_mm"} == {"inf"}


def test_missed_label_is_counted_and_enters_the_second_mean_as_the_diagonal(workspace, box, empty):
    workspace.pair(box, box, case="good")
    workspace.pair(box, empty, case="missed")
    run = workspace.run("--labels", "1")
    hd95 = run.statistics("hd95_mm")
    assert (hd95["mean"], hd95["n"], hd95["n_na"], hd95["n_missed"], hd95["n_spurious"]) == (0, 1, 0, 1, 0)
    assert hd95["mean_inf_as_diagonal"] == pytest.approx((0 + DIAGONAL) / 2)
    dice = run.statistics("dice")
    assert (dice["mean"], dice["n"], dice["n_missed"]) == (0.5, 2, 1)
    assert "n_missed" in run.out


def test_spurious_label_has_overlap_0_infinite_distance_and_a_count_of_its_own(workspace, box, empty):
    workspace.pair(empty, box)
    run = workspace.run("--labels", "1")
    assert [run.value(metric) for metric in OVERLAPS_0] == [0, 0, 0, 0]
    assert [run.value(metric) for metric in DISTANCES] == [math.inf] * 4
    assert run.value("precision") == 0
    assert math.isnan(run.value("sensitivity"))  # there is nothing to find
    assert run.value("specificity") == pytest.approx(1 - box.sum() / box.size)
    assert (run.statistics("hd_mm")["n_missed"], run.statistics("hd_mm")["n_spurious"]) == (0, 1)


def test_every_case_is_in_one_of_the_counts_of_a_distance(workspace, box, empty):
    for case, pair in {"a": (box, box), "b": (box, empty), "c": (empty, box), "d": (empty, empty)}.items():
        workspace.pair(*pair, case=case)
    statistics = workspace.run("--labels", "1").statistics("assd_mm")
    assert [statistics[key] for key in ("n", "n_na", "n_missed", "n_spurious")] == [1, 1, 1, 1]


def test_all_empty_folder_is_scored_without_a_crash(workspace, empty):
    workspace.pair(empty, empty)
    run = workspace.run()
    assert run.code == 0
    assert run.rows == []
    assert run.summary["labels"] == {}


def test_label_that_fills_the_reference_has_no_specificity(workspace, box, empty):
    workspace.pair(empty + 1, box)
    run = workspace.run()
    assert math.isnan(run.value("specificity"))
    assert run.value("sensitivity") == pytest.approx(box.sum() / box.size)


def test_foreground_mean_averages_labels_within_a_case_first(workspace, box, empty):
    second = np.roll(box, 4, axis=2) * 2
    workspace.pair(box + second, box + second, case="both")  # Dice 1 and 1
    workspace.pair(box + second, box, case="missed")  # Dice 1 and 0
    workspace.pair(empty, empty, case="none")
    run = workspace.run()
    dice = run.summary["foreground_mean"]["metrics"]["dice"]
    assert dice["mean"] == pytest.approx(((1 + 1) / 2 + (1 + 0) / 2) / 2)
    assert (dice["n"], dice["n_na"], dice["n_missed"]) == (2, 1, 1)
    hd = run.summary["foreground_mean"]["metrics"]["hd_mm"]
    assert hd["mean"] == 0
    assert hd["mean_inf_as_diagonal"] == pytest.approx((0 + (0 + DIAGONAL) / 2) / 2)


def test_absent_labels_of_other_cases_get_rows_too(workspace, box):
    workspace.pair(box, box, case="one")
    workspace.pair(box * 2, box * 2, case="two")
    run = workspace.run()
    assert {(row["case"], row["label"]) for row in run.rows} == {(c, k) for c in ("one", "two") for k in "12"}
    assert math.isnan(run.value("dice", case="one", label="2"))
    assert run.value("dice", case="two", label="2") == 1
