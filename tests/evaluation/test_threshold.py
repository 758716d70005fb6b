"""`python -m evaluation.threshold`: choose thresholds, apply them elsewhere, write label maps."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from evaluation import cases, npz_slabs, score_probabilities, threshold
from evaluation.curves_file import read_curves
from evaluation.probability_scores import THRESHOLDS
from evaluation.score_case import score_case

SHAPE = (4, 6, 8)
SPACING = (2.0, 1.0, 0.5)
HEAD = {
    "format": "segmentation-thresholds",
    "format_version": 1,
    "metric": "dice",
    "pooled": False,
    "predictions": "elsewhere",
}


@pytest.fixture
def run(workspace, capsys):
    """Run the command on the workspace's folders; return exit code, stdout, stderr."""

    def start(*options, output="chosen", predictions=None, references=True):
        arguments = ["--predictions", predictions or workspace.predictions, "--output", workspace.root / output]
        arguments += ["--references", workspace.references] if references else []
        arguments += [] if "--workers" in options else ["--workers", "1"]
        code = threshold.main([str(argument) for argument in (*arguments, *options)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return start


def chosen(workspace, output="chosen"):
    return json.loads((workspace.root / output / "thresholds.json").read_text())


def probabilities(workspace, case, label=1):
    return np.load(workspace.predictions / f"{case}.npz")["probabilities"][label]


def write(workspace, case, reference, p, **arrays):
    """Write a case; p are probabilities of label 1."""
    workspace.nifti(workspace.references / f"{case}.nii.gz", reference.astype(np.uint8), spacing=SPACING)
    arrays = arrays or {"probabilities": np.stack([1 - p, p]).astype(np.float32)}
    workspace.npz(workspace.predictions, case, spacing=SPACING, **arrays)


@pytest.fixture
def timid(workspace):
    """Three cases whose label has probabilities from 0.3 up and whose background has less than 0.25."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        reference = rng.random(SHAPE) < 0.3
        write(workspace, f"case_{seed}", reference, np.where(reference, rng.uniform(0.3, 1, SHAPE), 0.2499))
    return workspace


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


def test_saved_label_maps_score_as_the_command_said(timid, run):
    run()
    maps = timid.root / "maps"
    code, out, err = run("--apply", timid.root / "chosen", "--save-labels", maps, output="applied")
    assert code == 0, err
    assert str(maps) in out
    timid.predictions = maps
    scored = timid.run()
    assert scored.code == 0, scored.err  # the geometry is that of the references too
    assert [scored.value("dice", case=f"case_{n}") for n in range(3)] == [1, 1, 1]
    image = nib.load(maps / "case_0.nii.gz")
    assert image.get_data_dtype() == np.uint8
    assert image.header.get_zooms() == (0.5, 1, 2)
    assert [path.name for path in sorted(maps.iterdir())] == [f"case_{n}.nii.gz" for n in range(3)]


def one_threshold(threshold, key="1"):
    """Return the content of a thresholds.json."""
    entry = {"name": "x", "threshold": threshold, "value": 1.0, "n": 1, "value_at_half": 1.0, "n_at_half": 1}
    return HEAD | {"labels": {key: entry}}


def applied_maps(workspace, run, thresholds, *options, references=False):
    """Write label maps at some thresholds; return that of `case`, and the run."""
    labels = {key: one_threshold(value, key)["labels"][key] for key, value in thresholds.items()}
    content = HEAD | {"labels": labels}
    path = workspace.root / "thresholds.json"
    path.write_text(json.dumps(content))
    maps = workspace.root / "maps"
    result = run("--apply", path, "--save-labels", maps, *options, output="applied", references=references)
    file = maps / "case.nii.gz"
    return (np.asarray(nib.load(file).dataobj).T if file.exists() else None), result


def test_likeliest_label_among_those_that_reach_their_threshold_wins(workspace, run):
    p = np.zeros((3, 1, 1, 5), np.float32)
    p[1, 0, 0] = [0.30, 0.20, 0.45, 0.10, 0.24]
    p[2, 0, 0] = [0.40, 0.60, 0.55, 0.10, 0.30]
    p[0] = 1 - p[1] - p[2]
    workspace.npz(workspace.predictions, "case", spacing=SPACING, probabilities=p)
    label_map, (code, _, err) = applied_maps(workspace, run, {"1": 0.25, "2": 0.5})
    assert code == 0, err
    assert label_map.ravel().tolist() == [1, 2, 2, 0, 0]


@pytest.mark.parametrize("name", ["probabilities", "logits"])
def test_label_maps_of_large_arrays_are_the_same(workspace, run, monkeypatch, name):
    logits = np.random.default_rng(0).normal(0, 2, (4, *SHAPE)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(0)
    workspace.npz(workspace.predictions, "case", spacing=SPACING, **{name: p if name == "probabilities" else logits})
    thresholds = {"1": 0.2, "2": 0.9, "3": 0.4}
    expected, _ = applied_maps(workspace, run, thresholds)
    reached = np.stack(
        [np.full(SHAPE, 1e-9), *(np.where(p[k] >= t, p[k], 0) for k, t in ((1, 0.2), (2, 0.9), (3, 0.4)))]
    )
    np.testing.assert_array_equal(expected, reached.argmax(0))
    monkeypatch.setattr(npz_slabs, "SMALL_BYTES", 0)
    monkeypatch.setattr(npz_slabs, "_SLAB_BYTES", 800)
    np.testing.assert_array_equal(applied_maps(workspace, run, thresholds)[0], expected)


def test_regions_are_painted_in_the_declared_order(workspace, run):
    workspace.dataset_json({"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=[1, 2])
    p = np.zeros((2, 1, 1, 4), np.float32)
    p[0, 0, 0], p[1, 0, 0] = [0.3, 0.3, 0.9, 0.1], [0.1, 0.8, 0.7, 0.1]
    workspace.npz(workspace.predictions, "case", spacing=SPACING, probabilities=p)
    label_map, (code, _, err) = applied_maps(workspace, run, {"1+2": 0.25, "2": 0.75})
    assert code == 0, err
    assert label_map.ravel().tolist() == [1, 2, 1, 0]


@pytest.fixture
def two_labels(workspace):
    """One case in which label 1, label 2, or none has a probability of 0.6."""
    p = np.zeros((3, 1, 1, 3), np.float32)
    p[1, 0, 0], p[2, 0, 0] = [0.6, 0.4, 0.0], [0.0, 0.6, 0.0]
    p[0] = 1 - p[1] - p[2]
    write(workspace, "case", np.array([[[1, 2, 0]]]), None, probabilities=p)
    return workspace


def test_label_maps_hold_only_the_labels_asked_for(two_labels, run):
    label_map, (code, out, _) = applied_maps(two_labels, run, {"1": 0.4, "2": 0.5}, "--labels", "1")
    assert code == 0 and label_map.ravel().tolist() == [1, 1, 0] and "note" not in out
    label_map, (code, out, _) = applied_maps(two_labels, run, {"1": 0.4}, "--labels", "2", references=False)
    assert code == 0 and label_map.ravel().tolist() == [0, 2, 0]
    assert "note: no threshold was chosen for 2; label maps take 0.5" in out


@pytest.mark.parametrize("references", [True, False])
def test_label_without_a_threshold_is_painted_at_a_half_and_named(two_labels, run, references):
    label_map, (code, out, _) = applied_maps(two_labels, run, {"1": 0.4}, references=references)
    assert code == 0 and label_map.ravel().tolist() == [1, 2, 0]
    assert out.count("note: no threshold was chosen for 2; label maps take 0.5") == 1
    assert ("note: no threshold was chosen for 2, which isn't scored" in out) is references


@pytest.mark.parametrize("references", [True, False])
def test_threshold_of_a_label_that_is_not_there_is_named(two_labels, run, references):
    label_map, (code, out, _) = applied_maps(two_labels, run, {"1": 0.4, "2": 0.5, "7": 0.3}, references=references)
    assert code == 0 and label_map.ravel().tolist() == [1, 2, 0]
    assert "note: no label map has a label 7, so that its threshold isn't applied" in out
    assert ("note: no label 7 is scored, so that its threshold isn't applied" in out) is references


@pytest.mark.parametrize(
    ("label", "message"), [("7", "label 7 must have a channel"), ("1+2", "got one of the union 1+2")]
)
def test_label_that_cannot_be_painted_is_refused(two_labels, run, label, message):
    label_map, (code, _, err) = applied_maps(two_labels, run, {"1": 0.4}, "--labels", label)
    assert code == 1 and label_map is None and message in err
    assert err.count("case.npz") == 1


def test_threshold_of_a_union_is_left_out_and_named(two_labels, run):
    label_map, (code, out, _) = applied_maps(two_labels, run, {"1": 0.4, "2": 0.5, "1+2": 0.1}, references=False)
    assert code == 0 and label_map.ravel().tolist() == [1, 2, 0]
    assert "note: no label map has a label 1+2, so that its threshold isn't applied" in out
    _, (code, _, err) = applied_maps(two_labels, run, {"1+2": 0.1}, references=False)
    assert code == 1 and "got one of the union 1+2" in err and err.count("case.npz") == 1


def test_label_values_above_255_are_saved_as_uint16(workspace, run):
    workspace.dataset_json({"background": 0, "whole": [1, 300], "core": 300}, regions_class_order=[1, 300])
    workspace.npz(workspace.predictions, "case", spacing=SPACING, probabilities=np.ones((2, *SHAPE), np.float32))
    label_map, (code, _, _) = applied_maps(workspace, run, {"1+300": 0.25, "300": 0.75})
    assert code == 0 and label_map.dtype == np.uint16 and (label_map == 300).all()


@pytest.mark.parametrize("flat", [True, False])
def test_image_in_2d_is_saved_in_2d(workspace, run, flat):
    p = np.random.default_rng(0).random((6, 8)).astype(np.float32)
    array = np.stack([1 - p, p])
    workspace.npz(workspace.predictions, "case", spacing=(1.0, 0.5), probabilities=array if flat else array[:, None])
    label_map, (code, _, err) = applied_maps(workspace, run, {"1": 0.25})
    assert code == 0, err
    np.testing.assert_array_equal(label_map, p >= 0.25)


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


def test_references_are_needed_to_choose(timid, run):
    code, _, err = run(references=False)
    assert code == 2 and "--references: needed unless" in err


@pytest.mark.parametrize("option", ["predictions", "references"])
@pytest.mark.parametrize("spelling", ["{}", "{}/../{name}", "linked"])
def test_label_maps_replace_no_file_that_was_read(timid, run, option, spelling):
    run()
    folder = getattr(timid, option)
    (timid.root / "linked").symlink_to(folder)
    spelt = str(timid.root / spelling.format(folder, name=folder.name))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, _, err = run("--apply", timid.root / "chosen", "--save-labels", spelt, output="applied")
    assert code == 2 and f"must not be the folder of --{option}" in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not (timid.root / "applied").exists()


def test_label_maps_need_a_process(timid, run):
    run()
    maps = timid.root / "maps"
    code, _, err = run("--apply", timid.root / "chosen", "--save-labels", maps, "--workers", "0", references=False)
    assert code == 2 and "--workers: must be >= 1, got 0" in err and not maps.exists()


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
