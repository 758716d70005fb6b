"""What the report says of missing files, of scores that do not belong together, and of wrong options."""

import json
import os

import numpy as np
import pytest
from report_cases import LABELS, labelled, run, write

from evaluation.cases import evaluate_folder
from evaluation.metric_options import MetricOptions


def test_missing_files_are_named_and_the_rest_is_reported(scored, tmp_path, capsys):
    predictions = tmp_path / "predictions"
    for case in range(4):
        write(predictions, f"case_{case}", labelled(case, errors=3))
    evaluate_folder(predictions, scored.root / "labelsTs", tmp_path / "scores")
    (predictions / "case_1.nii.gz").unlink()
    images = tmp_path / "no_images"
    images.mkdir()
    assert run(tmp_path / "out", "--scores", f"m={tmp_path / 'scores'}", "--worst", "4", "--images", images) == 0
    err = capsys.readouterr().err
    assert "case_1.nii.gz" in err
    assert "case_0 is shown without its image, none was found; name the folder with --images" in err
    shown = {path.name[len("worst_1_") :] for path in (tmp_path / "out" / "figures").glob("worst_*_slices.png")}
    assert shown == {f"case_{case}_slices.png" for case in (0, 2, 3)}


def test_labels_of_swapped_names_are_refused(scored, tmp_path, capsys):
    other = tmp_path / "other"
    write(other, "case_0", labelled(0))
    (other / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "cord_1": 1, "left & <right>": 2}}))
    evaluate_folder(other, scored.root / "labelsTs", tmp_path / "scores")
    assert run(tmp_path / "out", "--scores", f"a={scored.good}", f"b={tmp_path / 'scores'}") == 2
    assert (
        "label 1 must be the same for all methods, got left & <right> by a and cord_1 by b" in capsys.readouterr().err
    )


def test_other_references_and_newer_predictions_are_said(scored, tmp_path, capsys):
    for case in range(6):
        write(tmp_path / "labelsTs", f"case_{case}", labelled(case))
        write(tmp_path / "predicted", f"case_{case}", labelled(case, errors=2))
    (tmp_path / "predicted" / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    evaluate_folder(tmp_path / "predicted", tmp_path / "labelsTs", tmp_path / "scores")
    write(tmp_path / "predicted", "case_0", labelled(0, errors=5))
    later = (tmp_path / "scores" / "metrics.csv").stat().st_mtime + 10
    os.utime(tmp_path / "predicted" / "case_0.nii.gz", (later, later))
    named = ("--scores", f"a={scored.good}", f"b={tmp_path / 'scores'}")
    assert run(tmp_path / "out", *named, "--worst", "0") == 0
    err = capsys.readouterr().err
    assert "a and b: 6 cases, case_0 first, were scored against different reference files" in err
    assert "b: 1 predictions" in err and "are newer than their scores" in err
    assert "NSD by tolerance: b is left out, its files aren't those that were scored" in err


def test_differing_definitions_are_said(scored, tmp_path, capsys):
    options = MetricOptions(hd_directions="union")
    evaluate_folder(scored.root / "bad", scored.root / "labelsTs", tmp_path / "scores", metric_options=options)
    named = ("--scores", f"a={scored.good}", f"b={tmp_path / 'scores'}")
    assert run(tmp_path / "out", *named, "--worst", "0", "--nsd-curve-mm", "0") == 0
    assert "a and b were scored by different definitions of hd95_mm" in capsys.readouterr().err


def test_masks_of_another_numbering_are_pointed_out(tmp_path):
    for case in ("a", "b"):
        write(tmp_path / "labelsTs", case, (labelled(0) > 0).astype(np.uint8))
        write(tmp_path / "predicted", case, (labelled(0) > 0).astype(np.uint8) * 255)
    evaluation = evaluate_folder(tmp_path / "predicted", tmp_path / "labelsTs", tmp_path / "scores")
    (warning,) = evaluation.summary["warnings"]
    assert warning.startswith("label 255 is in predictions only and label 1 in references only")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--scores", "m=nowhere"], "--scores nowhere"),
        (["--scores", "nowhere"], "--scores: must be NAME=FOLDER, got 'nowhere'"),
        (["--scores", "m={good}", "--worst", "-1"], "--worst: must be >= 0, got -1"),
        (["--scores", "m={good}", "--images", "nowhere"], "--images nowhere: must be a folder"),
        (["--scores", "m={good}", "--metrics", "dize"], "--metrics: dize must be one that all methods have"),
        (["--scores", "m={good}", "--labels", "7"], "--labels: 7 must be one that all methods have"),
        (["--scores", "m={good}", "--nsd-curve-mm", "nan"], "--nsd-curve-mm: must be 0 for none or >= 0.1, got nan"),
        (["--scores", "m={good}", "--seed", "-1"], "--seed: must be >= 0, got -1"),
        (["--scores", "m={good}", "--references", "x"], "are for --predictions; scores know theirs"),
        (["--scores", "_m={good}"], "a method's name must begin with a letter or a number, got _m"),
        ([], "give either --scores or --predictions"),
    ],
)
def test_wrong_options_exit_with_2(scored, tmp_path, capsys, options, text):
    named = [option.format(good=scored.good) for option in options]
    assert run(tmp_path / "out", *named) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.html").exists()


def test_scores_without_their_summary_exit_with_2(scored, tmp_path, capsys):
    (tmp_path / "metrics.csv").write_bytes((scored.good / "metrics.csv").read_bytes())
    assert run(tmp_path / "out", "--scores", f"m={tmp_path}") == 2
    assert "must be the summary.json that belongs to metrics.csv" in capsys.readouterr().err
