"""`test3d --also calibration`: scores of probabilities through the command line, and curves.json."""

import json
import math

import numpy as np
import pytest

from evaluation import calibration, cases, npz_slabs, score_probabilities, threshold
from evaluation.curves_file import read_curves
from evaluation.definitions import direction
from evaluation.engine import class_probabilities, probability_counts
from evaluation.probability_scores import CALIBRATION_METRICS, THRESHOLDS
from evaluation.score_case import score_case

SHAPE = (5, 6, 7)
ALSO = ("--also", "calibration")


def softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(0))
    return (powers / powers.sum(0)).astype(np.float32)


@pytest.fixture
def image():
    """Return a maker of a reference with labels 0 to 2 and logits (3, z, y, x)."""

    def make(seed=0):
        rng = np.random.default_rng(seed)
        reference = rng.integers(0, 3, SHAPE).astype(np.uint8)
        logits = rng.normal(0, 2, (3, *SHAPE)).astype(np.float32)
        np.put_along_axis(logits, reference[None].astype(int), rng.normal(2, 2, (1, *SHAPE)), axis=0)
        return reference, logits

    return make


@pytest.fixture
def case(workspace, image):
    """Write a reference and the probabilities of a case; return both and the logits."""
    reference, logits = image()
    workspace.nifti(workspace.references / "case.nii.gz", reference)
    workspace.npz(workspace.predictions, "case", probabilities=softmax(logits))
    return reference, softmax(logits), logits


def calibration_rows(run, label, case="case"):
    return {name: run.value(name, case=case, label=label) for name in CALIBRATION_METRICS}


def curves_of(run_folder):
    def refuse(constant):
        raise AssertionError(f"curves.json must be strict JSON, holds {constant}")

    return json.loads((run_folder / "curves.json").read_text(), parse_constant=refuse)


def test_rows_are_what_score_probabilities_returns(workspace, case):
    reference, p, _ = case
    run = workspace.run(*ALSO)
    assert run.code == 0 and "curves.json" in run.out
    scores = score_probabilities(reference, p)
    for label in (1, 2):
        assert calibration_rows(run, str(label)) == scores.labels[label].metrics()
        names = [row["metric"] for row in run.rows if row["label"] == str(label)]
        assert tuple(names[-5:]) == CALIBRATION_METRICS
    assert run.statistics("brier")["mean"] == scores.labels[1].brier
    assert {"cross_entropy", "auroc", "probabilities"} <= run.summary["definitions"].keys()


def test_without_the_option_nothing_changes_and_old_curves_go(workspace, case):
    workspace.run(*ALSO)
    assert (workspace.scores / "curves.json").exists()
    run = workspace.run()
    assert "brier" not in {row["metric"] for row in run.rows}
    assert "brier" not in run.summary["definitions"]
    assert not (workspace.scores / "curves.json").exists()


def test_label_file_scores_the_masks_and_the_npz_the_calibration(workspace, case):
    reference, p, _ = case
    workspace.nifti(workspace.predictions / "case.nii.gz", reference)
    run = workspace.run(*ALSO)
    assert run.summary["source"]["used"] == {"labels": 1}
    assert run.value("dice") == 1
    assert run.value("brier") == score_probabilities(reference, p).labels[1].brier > 0
    assert curves_of(workspace.scores)["cases"][0]["source"] == "probabilities"


def test_logits_and_probabilities_give_equal_results(workspace, case):
    _, p, logits = case
    workspace.npz(workspace.predictions, "case", logits=logits, probabilities=p)
    by_probabilities = workspace.run(*ALSO)
    by_logits = workspace.run(*ALSO, "--source", "logits", output=workspace.root / "logits")
    assert curves_of(workspace.root / "logits")["cases"][0]["source"] == "logits"
    for label in ("1", "2"):
        expected = pytest.approx(calibration_rows(by_probabilities, label), abs=1e-6)
        assert calibration_rows(by_logits, label) == expected
    whole = [curves_of(folder)["multiclass"]["values"] for folder in (workspace.scores, workspace.root / "logits")]
    assert whole[1]["brier"]["mean"] == pytest.approx(whole[0]["brier"]["mean"], abs=1e-6)


@pytest.mark.parametrize("name", ["probabilities", "logits"])
@pytest.mark.parametrize("labels", [(), ("--labels", "1", "1+2")])
def test_large_array_in_slabs_scores_as_a_small_one(workspace, case, monkeypatch, name, labels):
    _, p, logits = case
    workspace.npz(workspace.predictions, "case", **{name: logits if name == "logits" else p})
    expected = workspace.run(*ALSO, *labels)
    assert expected.code == 0
    monkeypatch.setattr(npz_slabs, "SMALL_BYTES", 0)
    monkeypatch.setattr(npz_slabs, "_SLAB_BYTES", 400)
    monkeypatch.setattr(npz_slabs, "_BLOCK_BYTES", 400)
    monkeypatch.setattr(calibration, "MOST_RANK_BYTES", 0)  # a pass for each label
    in_slabs = workspace.run(*ALSO, *labels, output=workspace.root / "slabs")
    for row, other in zip(expected.rows, in_slabs.rows, strict=True):
        assert row | {"value": ""} == other | {"value": ""}
        assert float(other["value"]) == pytest.approx(float(row["value"]), rel=1e-12, nan_ok=True)


def test_half_precision_is_scored_as_it_is(workspace, case):
    reference, p, _ = case
    workspace.npz(workspace.predictions, "case", probabilities=p.astype(np.float16))
    run = workspace.run(*ALSO)
    expected = score_probabilities(reference, p.astype(np.float16).astype(np.float32))
    assert calibration_rows(run, "1") == expected.labels[1].metrics()


def test_regions_are_scored_by_their_own_channel(workspace):
    workspace.dataset_json({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "x": 3}, regions_class_order=[1, 2, 3])
    rng = np.random.default_rng(0)
    reference, p = rng.integers(0, 4, SHAPE).astype(np.uint8), rng.random((3, *SHAPE), np.float32)
    workspace.nifti(workspace.references / "case.nii.gz", reference)
    workspace.npz(workspace.predictions, "case", probabilities=p)
    run = workspace.run(*ALSO, "--include-background")
    assert run.code == 0
    scores = score_probabilities(reference, p, regions=[(1, 2, 3), (2, 3), 3])
    assert calibration_rows(run, "2+3") == scores.labels[2, 3].metrics()
    assert calibration_rows(run, "3") == scores.labels[3].metrics()
    assert all(map(math.isnan, calibration_rows(run, "0").values()))  # no channel says how likely the background is
    curves = curves_of(workspace.scores)
    assert list(curves["labels"]) == ["1+2+3", "2+3", "3"] and curves["multiclass"] is None
    refused = workspace.run(*ALSO, "--labels", "2")
    assert refused.code == 1
    assert "case.npz: label 2 must be a region with a channel, got 1+2+3, 2+3, 3" in refused.err


def test_labels_without_a_list_are_those_of_the_channels(workspace, case):
    reference, p, _ = case
    reference[reference == 2] = 0
    workspace.nifti(workspace.references / "case.nii.gz", reference)
    workspace.nifti(workspace.predictions / "case.nii.gz", reference)
    run = workspace.run(*ALSO)
    assert math.isnan(run.value("dice", label="2"))
    assert run.value("brier", label="2") == score_probabilities(reference, p).labels[2].brier


def test_voxels_to_ignore_are_left_out(workspace, image):
    reference, logits = image()
    workspace.dataset_json({"background": 0, "a": 1, "b": 2, "ignore": 3})
    reference[:2] = 3
    workspace.nifti(workspace.references / "case.nii.gz", reference)
    workspace.npz(workspace.predictions, "case", probabilities=softmax(logits))
    run = workspace.run(*ALSO)
    assert run.code == 0
    expected = score_probabilities(reference[2:], softmax(logits)[:, 2:]).labels[1].metrics()
    assert calibration_rows(run, "1") == pytest.approx(expected, rel=1e-12)


def test_label_without_voxels_has_no_areas_and_is_counted(workspace, image):
    workspace.dataset_json({"background": 0, "a": 1, "b": 2})
    for seed, case in enumerate(("full", "empty")):
        reference, logits = image(seed)
        workspace.nifti(
            workspace.references / f"{case}.nii.gz", np.where(case == "full", reference, 0).astype(np.uint8)
        )
        workspace.npz(workspace.predictions, case, probabilities=softmax(logits))
    run = workspace.run(*ALSO)
    assert math.isnan(run.value("auroc", case="empty")) and math.isnan(run.value("ap", case="empty"))
    assert run.value("brier", case="empty") > 0
    assert (run.statistics("auroc")["n"], run.statistics("auroc")["n_na"]) == (1, 1)
    assert (run.statistics("brier")["n"], run.statistics("brier")["n_na"]) == (2, 0)
    curves = curves_of(workspace.scores)["labels"]["1"]
    assert curves["calibration"]["auroc"]["n"] == 1
    assert [n + n_na for n, n_na in zip(curves["dice"]["n"], curves["dice"]["n_na"], strict=True)] == [2] * 201
    assert curves["dice"]["n"][0] == 2 and curves["dice"]["n"][-1] == 1  # at 1 nothing is predicted in the empty case


def test_case_without_npz_is_named_and_the_others_are_scored(workspace, case):
    reference, _, _ = case
    workspace.pair(reference, reference, case="labels_only")
    run = workspace.run(*ALSO)
    assert run.code == 1
    assert (
        "case labels_only not scored" in run.err
        and "labels_only.nii.gz: needs probabilities or logits beside it" in run.err
    )
    assert {row["case"] for row in run.rows} == {"case"}


def test_slices_are_refused(workspace, case):
    run = workspace.run2d(*ALSO)
    assert run.code == 2 and "--also calibration: must be of whole images" in run.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p * 1.01, r"case.npz: probabilities must be in [0, 1]"),
        (lambda p: p - 0.01, r"case.npz: probabilities must be in [0, 1]"),
        (lambda p: p[:1], "case.npz: probabilities must have a channel for the background and for each label, got 1"),
        (lambda p: p[:2], "case.npz: label 2 must have a channel, got 2 channels for labels 0 to 1"),
        (lambda p: p[:, :-1], "geometries must be the same, got shape (4, 6, 7) against (5, 6, 7)"),
        (lambda p: np.where(p > 0.5, np.nan, p), "holds nan"),
    ],
)
def test_bad_probabilities_are_named(workspace, case, change, message):
    reference, p, _ = case
    p[0, 0, 0, 0] = 1
    workspace.npz(workspace.predictions, "case", probabilities=change(p).astype(np.float32))
    workspace.nifti(workspace.predictions / "case.nii.gz", reference)
    run = workspace.run(*ALSO)
    assert run.code == 1
    assert message in run.err and "case.npz" in run.err


def test_wrong_number_of_channels_is_named(workspace, case):
    workspace.dataset_json({"background": 0, "a": 1})
    run = workspace.run(*ALSO)
    assert run.code == 1
    assert "case.npz: probabilities must have 2 channels" in run.err


@pytest.mark.parametrize("resample", [(), ("--resample",)])
def test_probabilities_elsewhere_are_named_even_where_masks_may_be_resampled(workspace, case, resample):
    reference, p, _ = case
    workspace.npz(workspace.predictions, "case", origin_lps=(1, 0, 0), probabilities=p)
    workspace.nifti(workspace.predictions / "case.nii.gz", reference)
    run = workspace.run(*ALSO, *resample)
    assert run.code == 1
    assert "case.npz" in run.err and "voxel corners up to 1 mm apart" in run.err


def test_damaged_npz_beside_a_sound_label_file_is_named(workspace, case):
    workspace.nifti(workspace.predictions / "case.nii.gz", case[0])
    path = workspace.predictions / "case.npz"
    path.write_bytes(path.read_bytes()[:-200])
    run = workspace.run(*ALSO)
    assert run.code == 1
    assert f"{path}: can't be read" in run.err


@pytest.mark.parametrize("flat", [True, False])
def test_single_slice_is_scored_as_an_image(workspace, image, flat):
    reference, logits = image()
    workspace.nifti(workspace.references / "case.nii.gz", reference[0], spacing=(1.0, 1.0))
    p = softmax(logits)[:, 0] if flat else softmax(logits)[:, :1]
    workspace.npz(workspace.predictions, "case", spacing=(1.0, 1.0), probabilities=p)
    run = workspace.run(*ALSO)
    assert run.code == 0, run.err
    assert calibration_rows(run, "1") == score_probabilities(reference[0], softmax(logits)[:, 0]).labels[1].metrics()


def test_killed_run_goes_on_and_ends_with_the_same_files(workspace, image, monkeypatch):
    for seed in range(3):
        reference, logits = image(seed)
        workspace.nifti(workspace.references / f"case_{seed}.nii.gz", reference)
        workspace.npz(workspace.predictions, f"case_{seed}", probabilities=softmax(logits))
    expected = workspace.run(*ALSO, output=workspace.root / "whole").rows
    scored = []

    def killed_at_the_last(task):
        scored.append(task.case)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return score_case(task)

    monkeypatch.setattr(cases, "score_case", killed_at_the_last)
    assert workspace.run(*ALSO).code == 130
    assert not (workspace.scores / "curves.json").exists()
    run = workspace.run(*ALSO)
    assert scored == ["case_0", "case_1", "case_2", "case_2"]
    assert run.rows == expected
    assert curves_of(workspace.scores) == curves_of(workspace.root / "whole")


def test_cases_scored_without_calibration_are_scored_again(workspace, image, monkeypatch):
    for seed in range(2):
        reference, logits = image(seed)
        workspace.nifti(workspace.references / f"case_{seed}.nii.gz", reference)
        workspace.npz(workspace.predictions, f"case_{seed}", probabilities=softmax(logits))
    (workspace.references / "case_1.nii.gz").write_bytes(b"broken")
    assert workspace.run().code == 1  # keeps the log
    assert calibration_rows(workspace.run(*ALSO), "1", case="case_0")["brier"] > 0


def test_several_processes_give_the_same(workspace, image):
    for seed in range(2):
        reference, logits = image(seed)
        workspace.nifti(workspace.references / f"case_{seed}.nii.gz", reference)
        workspace.npz(workspace.predictions, f"case_{seed}", probabilities=softmax(logits))
    alone = workspace.run(*ALSO)
    together = workspace.run(*ALSO, "--workers", "2", output=workspace.root / "together")
    assert alone.rows == together.rows
    assert curves_of(workspace.scores) == curves_of(workspace.root / "together")


def test_curves_hold_sums_and_means_over_cases(workspace, image):
    scores = []
    for seed in range(3):
        reference, logits = image(seed)
        workspace.nifti(workspace.references / f"case_{seed}.nii.gz", reference)
        workspace.npz(workspace.predictions, f"case_{seed}", probabilities=softmax(logits))
        scores.append(score_probabilities(reference, softmax(logits)))
    assert workspace.run(*ALSO).code == 0
    content = curves_of(workspace.scores)
    assert (content["format"], content["format_version"], content["n_cases"]) == ("segmentation-curves", 1, 3)
    curves = read_curves(workspace.scores)
    np.testing.assert_array_equal(curves.thresholds, THRESHOLDS)
    assert curves.bin_edges[1] == pytest.approx(1 / 15) and len(curves.bin_edges) == 16
    own = [one.labels[2] for one in scores]
    label = curves.labels["2"]
    assert label.n_voxels.sum() == 3 * math.prod(SHAPE)
    np.testing.assert_allclose(label.dice.mean, np.mean([one.dice() for one in own], axis=0), rtol=1e-12)
    tp, fp, fn = np.sum([one.overlap_counts() for one in own], axis=0)
    np.testing.assert_allclose(label.iou.pooled, tp / (tp + fp + fn), rtol=1e-12)
    assert (label.dice.n == 3).all() and (label.dice.n_na == 0).all()
    sums = np.sum([one.reliability.sums for one in own], axis=0)
    np.testing.assert_allclose(label.mean_probability, sums[1] / sums[0], rtol=1e-12)
    np.testing.assert_allclose(label.fraction_positive, sums[2] / sums[0], rtol=1e-12)
    assert label.calibration["ece"]["mean"] == pytest.approx(np.mean([one.ece for one in own]))
    assert curves.multiclass.values["brier"]["mean"] == pytest.approx(np.mean([s.multiclass.brier for s in scores]))
    assert curves.cases[1]["labels"]["2"] == own[1].metrics()
    assert curves.cases[1]["multiclass"] == scores[1].multiclass.metrics()


def test_case_without_a_channel_for_a_label_is_not_applicable(workspace, image):
    for seed, n_channels in ((0, 3), (1, 4)):
        reference, logits = image(seed)
        more = np.concatenate([logits, logits[:1] - 1])[:n_channels]
        workspace.nifti(workspace.references / f"case_{seed}.nii.gz", reference)
        workspace.npz(workspace.predictions, f"case_{seed}", probabilities=softmax(more))
    assert workspace.run(*ALSO).code == 0
    curves = read_curves(workspace.scores)
    for label, n in (("2", 2), ("3", 1)):
        own = curves.labels[label]
        assert own.dice.n[0] == n
        np.testing.assert_array_equal(own.dice.n + own.dice.n_na, 2)
        np.testing.assert_array_equal(own.iou.n + own.iou.n_na, 2)
        assert own.calibration["brier"]["n"] == n and own.calibration["brier"]["n_na"] == 2 - n


@pytest.mark.parametrize("also", [(), ALSO])
def test_label_in_no_file_is_named_though_its_probabilities_are_scored(workspace, case, also):
    _, p, _ = case
    with_3 = np.concatenate([p, np.full((1, *SHAPE), 1e-4, np.float32)])
    workspace.npz(workspace.predictions, "case", probabilities=with_3)
    run = workspace.run(*also, "--labels", "1", "3")
    assert run.code == 0
    assert "label 3 was asked for and is in no file" in run.err and "label 1 was" not in run.err


def test_curves_beside_thresholds_are_left(workspace, case):
    folders = ["--predictions", str(workspace.predictions), "--references", str(workspace.references)]
    assert threshold.main([*folders, "--output", str(workspace.scores), "--workers", "1"]) == 0
    before = (workspace.scores / "curves.json").read_bytes()
    assert workspace.run().code == 0
    assert (workspace.scores / "curves.json").read_bytes() == before


def test_less_error_and_more_area_are_better():
    assert [direction(name) for name in CALIBRATION_METRICS] == [-1, -1, -1, 1, 1]


def test_nothing_is_left_to_compile_after_the_warm_up(workspace, case):
    calibration.warm_up_calibration()
    modules = (class_probabilities, probability_counts)
    loops = [loop for module in modules for loop in vars(module).values() if hasattr(loop, "signatures")]
    assert len(loops) >= 9
    before = [list(loop.signatures) for loop in loops]
    reference, p, logits = case
    for number, arrays in enumerate(
        ({"probabilities": p}, {"probabilities": p.astype(np.float16)}, {"logits": logits})
    ):
        workspace.npz(workspace.predictions, "case", **arrays)
        assert workspace.run(*ALSO, "--labels", "1", "1+2", output=workspace.root / str(number)).code == 0
    frozen = p.copy()
    frozen.flags.writeable = False
    score_probabilities(reference, frozen)
    score_probabilities(reference, frozen, logits=True)
    score_probabilities(reference.astype(np.int64), frozen, regions=[1, 2, (1, 2)], logits=True)
    assert [list(loop.signatures) for loop in loops] == before
