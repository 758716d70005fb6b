"""`python -m evaluation.threshold --apply` scores other predictions at chosen thresholds."""

import csv
import json

import numpy as np
import pytest
from threshold_cases import HEAD, SHAPE, SPACING, applied_maps, chosen, one_threshold


def test_applied_thresholds_are_scored_case_by_case(timid, run):
    run()
    t = chosen(timid)["labels"]["1"]["threshold"]
    other = timid.root / "other"
    other.mkdir()
    rng = np.random.default_rng(9)
    reference, p = rng.random(SHAPE) < 0.4, rng.random(SHAPE).astype(np.float32)
    timid.nifti(timid.references / "new.nii.gz", reference.astype(np.uint8), spacing=SPACING)
    timid.npz(other, "new", spacing=SPACING, probabilities=np.stack([1 - p, p]))
    code, out, err = run("--apply", timid.root / "chosen", output="applied", predictions=other)
    assert code == 0, err
    with (timid.root / "applied" / "threshold_scores.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)

    def dice(t):
        return 2 * ((p >= t) & reference).sum() / ((p >= t).sum() + reference.sum())

    assert (row["case"], row["label"], float(row["threshold"])) == ("new", "1", t)
    assert float(row["dice"]) == pytest.approx(dice(t)) and float(row["dice_at_half"]) == pytest.approx(dice(0.5))
    assert float(row["iou"]) == pytest.approx(dice(t) / (2 - dice(t)))
    means = json.loads((timid.root / "applied" / "threshold_scores.json").read_text())
    assert means["labels"]["1"]["dice"] == {"mean": pytest.approx(dice(t)), "n": 1} and means["bias"] is None
    assert "too good" not in out and f"{dice(t):.4f}" in out


@pytest.mark.parametrize("spelling", ["predictions", "predictions/../predictions", "linked"])
def test_applying_to_the_same_predictions_says_that_this_is_biased(timid, run, spelling):
    (timid.root / "linked").symlink_to(timid.predictions)
    run()
    folder = f"{timid.root}/{spelling}"
    code, out, _ = run("--apply", timid.root / "chosen" / "thresholds.json", output="applied", predictions=folder)
    assert code == 0 and "too good: they were chosen on the same cases" in out
    content = json.loads((timid.root / "applied" / "threshold_scores.json").read_text())
    assert content["labels"]["1"]["dice"]["mean"] == 1 and "too good" in content["bias"]


def test_bad_case_is_named_and_the_others_are_done(timid, run):
    (timid.predictions / "case_1.npz").write_bytes(b"broken")
    timid.pair(np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8), case="only_labels", spacing=SPACING)
    timid.npz(timid.predictions, "unknown", spacing=SPACING, probabilities=np.full((2, *SHAPE), 0.5))
    code, _, err = run()
    assert code == 1
    assert f"case case_1: {timid.predictions / 'case_1.npz'}: can't be read" in err
    assert "only_labels.nii.gz: needs probabilities or logits beside it" in err
    assert "unknown.npz: has no reference unknown" in err
    content = chosen(timid)
    assert content["n_cases"] == 2 and len(content["failures"]) == 3
    code, _, err = run("--apply", timid.root / "chosen", "--save-labels", timid.root / "maps", output="applied")
    assert code == 1 and err.count("case case_1:") == 1
    assert sorted(path.name for path in (timid.root / "maps").iterdir()) == [
        "case_0.nii.gz",
        "case_2.nii.gz",
        "unknown.nii.gz",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--save-labels", "maps"), "--save-labels: needs --apply FILE"),
        (("--apply", "chosen", "--metric", "iou"), "don't go with --apply"),
        (("--apply", "nowhere.json"), "--apply nowhere.json: must be a readable JSON file"),
        (("--labels", "organ"), "--labels: a label must be an integer"),
        (("--workers", "0"), "--workers: must be >= 1, got 0"),
        (("--metric", "auroc"), "invalid choice: 'auroc'"),
        (("--source", "labels"), "invalid choice: 'labels'"),
    ],
)
def test_unusable_options_end_with_2(timid, run, options, message):
    code, _, err = run(*options)
    assert code == 2 and message in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": "plot"}, "must be the thresholds.json that this command wrote"),
        (HEAD, "is damaged"),
        (HEAD | {"labels": {}}, "it holds no threshold"),
        (HEAD | {"format_version": 99}, "must be of format version 1, got 99"),
        (one_threshold(0.123), "a threshold must be a multiple of 0.005 in [0, 1], got 0.123"),
        (one_threshold(float("inf")), "a threshold must be a multiple of 0.005 in [0, 1], got inf"),
        (one_threshold(float("nan")), "a threshold must be a multiple of 0.005 in [0, 1], got nan"),
        (one_threshold(-0.005), "got -0.005"),
        (one_threshold(True), "the threshold of label 1 must be a number, got True"),
        (one_threshold("0.5"), "is damaged"),
        (one_threshold(0.5, "liver"), "a label must be an integer >= 0 and < 2**31, or several as in 1+2, got 'liver'"),
        (one_threshold(0.5, "-1"), "got '-1'"),
        (one_threshold(0.5, "1+"), "got '1+'"),
        (one_threshold(0.5, str(2**31)), "got '2147483648'"),
    ],
)
def test_other_files_are_not_applied(timid, run, content, message):
    path = timid.root / "thresholds.json"
    path.write_text(json.dumps(content))
    code, _, err = run("--apply", path)
    assert code == 2 and message in err


def test_thresholds_of_other_labels_are_refused(timid, run):
    _, (code, _, err) = applied_maps(timid, run, {"7": 0.25}, references=True)
    assert code == 2 and "has thresholds for 7, and no label of these data" in err
