"""Labels that dataset.json calls unannotated in a case are not scored there."""

import json
import math

import numpy as np
import pytest

from evaluation import compare, report, threshold
from evaluation.dataset_labels import Label, read_dataset_json
from evaluation.reporting.inputs import ReportInputs, read_method
from evaluation.reporting.worst_cases import load_worst, most_wrong_labels

SHAPE = (6, 8, 10)
LABELS = {"background": 0, "liver": 1, "heart": 2}
UNANNOTATED = {"partial": ["heart"]}


@pytest.fixture
def maps():
    """A reference with both labels, and one that lacks the second although it is there."""
    full = np.zeros(SHAPE, np.uint8)
    full[1:3, 1:5, 1:5] = 1
    full[3:5, 1:5, 5:9] = 2
    return full, np.where(full == 2, 0, full).astype(np.uint8)


@pytest.fixture
def half_annotated(workspace, maps):
    full, partial = maps
    workspace.pair(full, full, case="full")
    workspace.pair(partial, full, case="partial")
    workspace.dataset_json(LABELS, folder=workspace.references, unannotated_labels=UNANNOTATED)
    return workspace


def test_what_nobody_annotated_is_nan_and_not_spurious(half_annotated):
    run = half_annotated.run("--include-background")
    assert run.code == 0
    heart = [float(row["value"]) for row in run.rows if (row["case"], row["label"]) == ("partial", "2")]
    assert heart and all(math.isnan(value) for value in heart)
    assert run.value("dice", case="full", label="2") == run.value("dice", case="partial", label="1") == 1
    assert math.isnan(run.value("dice", case="partial", label="0"))  # the heart is in there, for all one knows
    statistics = run.statistics("dice", label="2")
    assert (statistics["mean"], statistics["n"], statistics["n_na"], statistics["n_spurious"]) == (1, 1, 1, 0)
    assert run.summary["foreground_mean"]["metrics"]["dice"]["mean"] == 1
    assert "heart: not scored in cases where nobody has annotated it, 1 in all: partial" in run.err


def test_without_the_entry_it_counts_as_wrong(half_annotated):
    half_annotated.dataset_json(LABELS, folder=half_annotated.references)
    run = half_annotated.run()
    assert run.value("dice", case="partial", label="2") == 0
    assert run.statistics("dice", label="2")["n_spurious"] == 1


def test_a_correction_of_dataset_json_scores_again(half_annotated):
    (half_annotated.references / "broken.nii.gz").write_bytes(b"no image")
    (half_annotated.predictions / "broken.nii.gz").write_bytes(b"no image")
    assert half_annotated.run().code == 1  # so that finished cases are kept
    half_annotated.dataset_json(LABELS, folder=half_annotated.references)
    assert half_annotated.run().value("dice", case="partial", label="2") == 0


def test_slices_and_a_case_without_any_annotation(workspace, maps):
    workspace.pair(np.zeros(SHAPE, np.uint8), maps[0], case="partial")
    workspace.dataset_json(LABELS, folder=workspace.references, unannotated_labels={"partial": ["heart", "liver"]})
    for run in (workspace.run(), workspace.run2d()):
        assert run.code == 0
        assert {row["value"] for row in run.rows} == {"nan"}


def test_probabilities_of_what_nobody_annotated_are_not_scored(workspace, maps):
    full, partial = maps
    for case, reference in (("full", full), ("partial", partial)):
        workspace.nifti(workspace.references / f"{case}.nii.gz", reference)
        probabilities = 0.1 + 0.7 * (full[None] == np.arange(3).reshape(3, 1, 1, 1))
        workspace.npz(workspace.predictions, case, probabilities=probabilities.astype(np.float32))
    workspace.dataset_json(LABELS, folder=workspace.references, unannotated_labels=UNANNOTATED)
    run = workspace.run("--also", "calibration")
    assert math.isnan(run.value("brier", case="partial", label="2"))
    assert run.value("brier", case="partial", label="1") == pytest.approx(run.value("brier", case="full", label="1"))
    curves = json.loads((workspace.scores / "curves.json").read_text())
    assert curves["labels"]["2"]["dice"]["n"][100] == 1
    assert curves["multiclass"]["values"]["brier"]["n"] == 1  # of the other, the true distribution isn't known
    chosen = workspace.run(module=threshold, output=workspace.root / "chosen")
    assert chosen.code == 0
    thresholds = json.loads((workspace.root / "chosen" / "thresholds.json").read_text())
    assert thresholds["labels"]["2"]["value"] == 1
    assert "note: heart: not scored in cases where nobody has annotated it, 1 in all: partial" in chosen.out
    pooled = workspace.run("--pooled", module=threshold, output=workspace.root / "pooled")
    assert pooled.code == 0
    chosen = json.loads((workspace.root / "pooled" / "thresholds.json").read_text())["labels"]
    assert (chosen["1"]["n"], chosen["2"]["n"]) == (2, 1)


def test_thresholds_of_what_nobody_annotated_anywhere_are_refused(workspace, maps):
    workspace.nifti(workspace.references / "partial.nii.gz", maps[1])
    workspace.npz(workspace.predictions, "partial", probabilities=np.full((3, *SHAPE), 1 / 3, np.float32))
    workspace.dataset_json(LABELS, folder=workspace.references, unannotated_labels=UNANNOTATED)
    run = workspace.run("--labels", "heart", module=threshold, output=workspace.root / "chosen")
    assert run.code == 2
    assert "nobody has annotated heart in any of these cases" in run.err


def test_the_references_say_it_and_not_what_a_model_was_trained_on(half_annotated):
    """Bundles leave the entry out of their dataset.json, and nnU-Net copies that of its training data."""
    for entry in ({}, {"unannotated_labels": {"full": ["liver"]}}):
        half_annotated.dataset_json(LABELS, **entry)
        run = half_annotated.run()
        assert math.isnan(run.value("dice", case="partial", label="2"))
        assert run.value("dice", case="full", label="1") == 1
    file = half_annotated.predictions / "dataset.json"
    run = half_annotated.run("--dataset-json", file)
    assert run.value("dice", case="partial", label="2") == 0
    assert run.code == 1  # it says that nobody has annotated the liver, which is there
    assert "full.nii.gz: holds liver, which" in run.err and "correct either" in run.err


def test_a_name_that_no_case_has_is_a_warning(workspace, maps):
    workspace.pair(maps[0], maps[0])
    labels = workspace.root / "labelsTr"
    labels.mkdir()
    for name in ("another", "anoth_013"):
        workspace.nifti(labels / f"{name}.nii.gz", maps[0])
    listed = {"case": ["heart"], "another": ["heart"], "caes": ["heart"], "anoth": ["heart"]}
    workspace.nifti(workspace.references / "case.nii.gz", maps[1])
    workspace.dataset_json(LABELS, folder=workspace.root, unannotated_labels=listed)
    err = workspace.run().err
    assert '"unannotated_labels" names caes, and there is no such case; correct it' in err
    assert "names anoth," in err  # the beginning of a name is none
    assert "names another" not in err


def test_a_label_that_is_asked_for_and_not_annotated_is_not_called_missing(workspace, maps):
    workspace.pair(maps[1], maps[0], case="partial")
    workspace.dataset_json(LABELS, folder=workspace.references, unannotated_labels=UNANNOTATED)
    assert "is in no file" not in workspace.run("--labels", "heart").err


def test_methods_with_and_without_the_entry_are_told_apart(half_annotated):
    half_annotated.run(output=half_annotated.root / "with")
    half_annotated.dataset_json(LABELS, folder=half_annotated.references)
    half_annotated.run(output=half_annotated.root / "without")
    scores = [f"{name}={half_annotated.root / name}" for name in ("with", "without")]
    arguments = ["--scores", *scores, "--output", str(half_annotated.root / "compared"), "--resamples", "100"]
    assert compare.main(arguments) == 0
    summary = (half_annotated.root / "compared" / "comparison.json").read_text()
    assert "1 cases, partial first, were scored with different labels left out as unannotated" in summary


def test_the_report_leaves_it_out_too(half_annotated, capsys):
    half_annotated.run()
    page = half_annotated.root / "report"
    arguments = ["--scores", f"ours={half_annotated.scores}", "--output", page, "--workers", "1"]
    assert report.main([str(argument) for argument in arguments]) == 0
    said = capsys.readouterr().err
    assert "heart: not scored in cases where nobody has annotated it" in said
    assert "NSD by tolerance" not in said  # its files were read again, and left out again


def test_the_report_draws_no_outline_of_it(half_annotated):
    half_annotated.run()
    names = {"1": "liver", "2": "heart", "foreground": "mean over labels"}
    inputs = ReportInputs([read_method("ours", half_annotated.scores)], [*names], names, ["dice"], [])
    cases, _ = load_worst(inputs, [("partial", 1.0), ("full", 1.0)], None)
    assert [most_wrong_labels(case, inputs.drawable_labels) for case in cases] == [["1"], ["1", "2"]]


@pytest.mark.parametrize(
    ("labels", "names", "known"),
    [
        (LABELS, ["heart"], ["1"]),
        (LABELS, [], ["0", "1", "2", "1+2", "0+1"]),
        ({"background": 0, "whole": [1, 2], "core": 2}, ["core"], ["1+2"]),  # 1 may be core
        ({"background": 0, "whole": [1, 2], "core": 2}, ["whole"], ["2"]),
    ],
)
def test_labels_that_a_case_says_something_of(workspace, labels, names, known):
    dataset = read_dataset_json(workspace.dataset_json(labels, unannotated_labels={"a": names}))
    asked = {label.key: label for label in dataset.labels}
    asked |= {key: Label(tuple(map(int, key.split("+")))) for key in ("1", "2", "1+2", "0+1") if key not in asked}
    assert {label.key for label in dataset.annotated("a", list(asked.values()))} == set(known)
    assert dataset.annotated("b", list(asked.values())) == tuple(asked.values())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["heart"], '"unannotated_labels" must be'),
        ({"partial": "heart"}, '"unannotated_labels" must be'),
        ({"partial": [["heart"]]}, "must be among liver, heart, got ['heart']"),
        ({"partial": ["hart"]}, "\"unannotated_labels\" of partial must be among liver, heart, got 'hart'"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(half_annotated, entry, message):
    half_annotated.dataset_json(LABELS, folder=half_annotated.references, unannotated_labels=entry)
    run = half_annotated.run()
    assert run.code == 2
    assert message in run.err
