"""`python -m evaluation.threshold` chooses thresholds."""

import csv

import numpy as np
import pytest
from threshold_cases import SHAPE, chosen, probabilities, write

from evaluation import cases, score_probabilities
from evaluation.curves_file import read_curves
from evaluation.probability_scores import THRESHOLDS
from evaluation.score_case import score_case


def test_threshold_with_the_best_dice_nearest_to_a_half_is_chosen(timid, run):
    code, out, err = run()
    assert code == 0, err
    content = chosen(timid)
    label = content["labels"]["1"]
    # Dice is 1 at every threshold above 0.2499 that no voxel of the label is below
    smallest = min(p[p >= 0.3].min() for p in (probabilities(timid, f"case_{n}") for n in range(3)))
    assert label["threshold"] == max(t for t in THRESHOLDS if t <= smallest)
    assert (label["value"], label["n"]) == (1, 3)
    assert label["value_at_half"] < 0.95
    assert "too good: they were chosen on the same cases" in out and "too good" in content["bias"]
    row = next(line for line in out.splitlines() if line.startswith("1 "))
    assert row.split() == ["1", "1", f"{label['threshold']:.3f}", "1.0000", "3", f"{label['value_at_half']:.4f}", "3"]
    assert not (timid.root / "chosen" / ".cases").exists()


def test_values_are_those_of_masks_made_by_hand(workspace, run):
    rng = np.random.default_rng(0)
    pairs = []
    for case in ("a", "b"):
        reference, p = rng.random(SHAPE) < 0.4, rng.random(SHAPE).astype(np.float32)
        write(workspace, case, reference, p)
        pairs.append((reference, p))
    assert run("--metric", "iou")[0] == 0

    def iou(t):
        return np.mean([((p >= t) & truth).sum() / ((p >= t) | truth).sum() for truth, p in pairs])

    by_hand = [iou(t) for t in THRESHOLDS]
    label = chosen(workspace)["labels"]["1"]
    assert label["value"] == pytest.approx(max(by_hand))
    assert label["value_at_half"] == pytest.approx(iou(0.5))
    assert by_hand[round(label["threshold"] * 200)] == pytest.approx(max(by_hand))
    with (workspace.root / "chosen" / "thresholds.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["threshold"]) for row in rows] == THRESHOLDS.tolist()
    assert [float(row["iou_mean"]) for row in rows] == pytest.approx(by_hand)
    np.testing.assert_allclose(read_curves(workspace.root / "chosen").labels["1"].iou.mean, by_hand)


def test_pooled_choice_lets_large_objects_decide(workspace, run):
    for case, size, level in (("small", 1, 0.8), ("large", 100, 0.4)):
        truth = np.arange(np.prod(SHAPE)).reshape(SHAPE) < size
        # in the small case a false voxel of 0.6, in the large one a label that is given up above 0.4
        p = np.where(truth, level, 0.1)
        p[-1, -1, -1] = 0.6 if case == "small" else 0.1
        write(workspace, case, truth, p)
    # above 0.6: (1 + 0) / 2; in (0.1, 0.4]: (2/3 + 1) / 2 -- and pooled 2 * 101 / (101 + 102)
    assert run("--pooled")[0] == 0
    label = chosen(workspace)["labels"]["1"]
    assert label["threshold"] <= 0.4 and label["value"] == pytest.approx(202 / 203)
    assert chosen(workspace)["averaging"] == "voxels of all cases pooled"
    assert run(output="means")[0] == 0
    assert chosen(workspace, "means")["labels"]["1"]["value"] == pytest.approx((2 / 3 + 1) / 2)


def test_label_in_no_reference_keeps_one_half(workspace, run):
    workspace.dataset_json({"background": 0, "a": 1, "b": 2})
    reference = np.zeros(SHAPE)
    p = np.zeros((3, *SHAPE), np.float32)
    p[0] = 1
    write(workspace, "case", reference, None, probabilities=p)
    code, out, _ = run()
    assert code == 0
    label = chosen(workspace)["labels"]["2"]
    assert (label["threshold"], label["value"], label["n"]) == (0.5, None, 0)
    assert ["2", "b", "0.500", "-", "0", "-", "0"] in [line.split() for line in out.splitlines()]


def test_killed_run_goes_on_where_it_was(timid, run, monkeypatch):
    assert run(output="whole")[0] == 0
    scored = []

    def killed_at_the_last(task):
        scored.append(task.case)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return score_case(task)

    monkeypatch.setattr(cases, "score_case", killed_at_the_last)
    code, _, err = run()
    assert code == 130 and "goes on where it was" in err
    assert not (timid.root / "chosen" / "thresholds.json").exists()
    assert run()[0] == 0
    assert scored == ["case_0", "case_1", "case_2", "case_2"]
    assert chosen(timid) == chosen(timid, "whole")


def test_several_processes_give_the_same(timid, run):
    assert run()[0] == 0
    assert run("--workers", "2", output="together")[0] == 0
    assert chosen(timid) == chosen(timid, "together")


def test_logits_give_the_thresholds_of_their_probabilities(workspace, run):
    rng = np.random.default_rng(0)
    reference = rng.random(SHAPE) < 0.3
    logits = rng.normal(0, 1, (2, *SHAPE)).astype(np.float32)
    logits[1][reference] += 1
    p = np.exp(logits) / np.exp(logits).sum(0)
    write(workspace, "case", reference, None, probabilities=p, logits=logits)
    assert run()[0] == 0
    assert run("--source", "logits", output="logits")[0] == 0
    assert chosen(workspace)["labels"] == chosen(workspace, "logits")["labels"]
    own = score_probabilities(reference.astype(np.uint8), p).labels[1]
    assert chosen(workspace)["labels"]["1"]["value"] == pytest.approx(np.nanmax(own.dice()))


def test_references_are_needed_to_choose(timid, run):
    code, _, err = run(references=False)
    assert code == 2 and "--references: needed unless" in err
