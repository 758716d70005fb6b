"""From folders on disk to metrics.csv and summary.json: contract, errors, exit codes."""

import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from evaluation import cases, command_line, output, test3d

METRICS = ["dice", "iou", "precision", "sensitivity", "specificity", "vs", "voe"]
METRICS += ["hd_mm", "hd95_mm", "assd_mm", "masd_mm", "nsd_2mm", "rvd", "reference_ml", "prediction_ml"]


@pytest.fixture
def maps():
    """Return a reference and a prediction with labels 1 and 2."""
    reference = np.zeros((6, 8, 10), np.uint8)
    reference[1:4, 1:4, 1:6], reference[1:4, 5:7, 1:6] = 1, 2
    return reference, np.roll(reference, 1, axis=2)


@pytest.fixture
def scored(workspace, maps):
    workspace.pair(*maps)
    return workspace


def test_metrics_csv_is_long_with_every_metric_of_every_label(scored):
    run = scored.run()
    text = (scored.scores / "metrics.csv").read_text().splitlines()
    assert text[0] == "case,label,label_name,metric,value"
    assert [(row["label"], row["metric"]) for row in run.rows] == [(k, m) for k in "12" for m in METRICS]
    assert run.value("dice", label="2") == pytest.approx(0.8)


def test_background_has_no_rows_unless_asked(scored):
    assert "0" not in {row["label"] for row in scored.run().rows}
    run = scored.run("--include-background")
    assert {row["label"] for row in run.rows} == {"0", "1", "2"}
    assert run.summary["labels"]["0"]["name"] == "background"
    # and the foreground mean stays without it
    dices = [run.value("dice", label=label) for label in "12"]
    assert run.summary["foreground_mean"]["metrics"]["dice"]["mean"] == pytest.approx(sum(dices) / 2)


def test_summary_states_definitions_versions_files_source_and_options(scored):
    run = scored.run()
    summary = run.summary
    assert set(METRICS) <= set(summary["definitions"])
    assert "border" in summary["definitions"]["surface"] and "n_missed" in summary["definitions"]
    assert summary["versions"]["numpy"] == np.__version__
    (files,) = summary["files"]
    assert files == {
        "case": "case",
        "prediction": str(scored.predictions / "case.nii.gz"),
        "reference": str(scored.references / "case.nii.gz"),
        "source": "labels",
        "diagonal_mm": pytest.approx(np.sqrt(6**2 + 8**2 + 10**2)),
    }
    assert summary["source"] == {"requested": "auto", "used": {"labels": 1}}
    assert summary["options"]["nsd_tolerance_mm"] == {"1": [2.0], "2": [2.0]}
    statistics = run.statistics("dice")
    assert set(statistics) == {"mean", "std", "median", "n", "n_na", "n_missed", "n_spurious"}


def test_summary_statistics_are_those_of_the_table(workspace, maps):
    for i in range(4):
        workspace.pair(maps[0], np.roll(maps[0], i, axis=2), case=f"case_{i}")
    run = workspace.run()
    values = [run.value("assd_mm", case=f"case_{i}") for i in range(4)]
    statistics = run.statistics("assd_mm")
    assert statistics["mean"] == statistics["mean_inf_as_diagonal"] == pytest.approx(np.mean(values))
    assert statistics["std"] == pytest.approx(np.std(values, ddof=1))
    assert statistics["median"] == pytest.approx(np.median(values))
    assert statistics["n"] == 4


def test_dataset_json_gives_labels_and_names(scored):
    scored.dataset_json({"background": 0, "liver": 1, "spleen": 2, "kidney": 3})
    run = scored.run()
    assert {(row["label"], row["label_name"]) for row in run.rows} == {("1", "liver"), ("2", "spleen"), ("3", "kidney")}
    assert "liver" in run.out and "kidney" in run.out
    assert {row["label"] for row in scored.run("--labels", "spleen", "1").rows} == {"1", "2"}


def test_dataset_json_is_found_above_the_references_or_given(workspace, maps):
    workspace.pair(*maps)
    path = workspace.dataset_json({"background": 0, "liver": 1, "spleen": 2}, folder=workspace.root)
    assert workspace.run().summary["options"]["dataset_json"] == str(path)
    other = workspace.root / "other.json"
    other.write_text(json.dumps({"labels": {"background": 0, "x": 1, "y": 2}}))
    assert workspace.run("--dataset-json", other).rows[0]["label_name"] == "x"


def test_ignore_label_is_left_out(workspace, maps):
    reference, prediction = maps
    workspace.dataset_json({"background": 0, "a": 1, "b": 2, "ignore": 3})
    reference[prediction != reference] = 3
    workspace.pair(reference, prediction)
    run = workspace.run()
    assert {row["label"] for row in run.rows} == {"1", "2"}
    assert run.value("dice", label="1") == run.value("specificity", label="2") == 1
    assert run.value("hd_mm", label="1") == 0


def test_value_that_dataset_json_does_not_declare_is_a_warning(scored):
    scored.dataset_json({"background": 0, "a": 1})
    run = scored.run()
    assert run.code == 0
    assert "values 2 are not in" in run.err and len(run.summary["warnings"]) == 2


def test_tolerance_is_in_the_column_name_and_may_differ_by_label(scored):
    run = scored.run("--nsd-tolerance-mm", "1", "2=1.5", "2=0.5")
    names = {(row["label"], row["metric"]) for row in run.rows if row["metric"].startswith("nsd")}
    assert names == {("1", "nsd_1mm"), ("2", "nsd_1.5mm"), ("2", "nsd_0.5mm")}
    assert run.value("nsd_1mm", label="1") == 1
    assert "NSD at 1.5 mm" in run.out


def test_prediction_without_reference_is_named_and_the_rest_scored(scored, maps):
    scored.nifti(scored.predictions / "orphan.nii.gz", maps[1])
    run = scored.run()
    assert run.code == 1
    assert f"{scored.predictions / 'orphan.nii.gz'}: has no reference orphan" in run.err
    assert [failure["case"] for failure in run.summary["failures"]] == ["orphan"]
    assert {row["case"] for row in run.rows} == {"case"}


def test_reference_without_prediction_is_listed_and_excluded(scored, maps):
    scored.nifti(scored.references / "unpredicted.nii.gz", maps[0])
    run = scored.run()
    assert run.code == 0
    assert run.summary["references_without_prediction"] == ["unpredicted"]
    assert "note: 1 references without a prediction: unpredicted" in run.err
    run = scored.run("--require-all")
    assert run.code == 1
    assert "error: 1 references without a prediction: unpredicted" in run.err


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"no image"])
@pytest.mark.parametrize("side", ["predictions", "references"])
def test_damaged_file_is_named_and_the_rest_scored(scored, maps, damage, side):
    scored.pair(*maps, case="bad")
    path = getattr(scored, side) / "bad.nii.gz"
    path.write_bytes(damage(path.read_bytes()))
    run = scored.run()
    assert run.code == 1
    assert f"case bad not scored: {path}: can't be read" in run.err
    assert {row["case"] for row in run.rows} == {"case"}


def test_float_labels_with_integer_values_are_accepted(workspace, maps):
    workspace.pair(*maps, dtype=np.float32)
    run = workspace.run()
    assert (run.code, run.value("dice")) == (0, pytest.approx(0.8))


def test_non_integer_labels_are_refused_with_the_file(scored, maps):
    scored.nifti(scored.predictions / "half.nii.gz", maps[0] * 0.5, dtype=np.float32)
    scored.nifti(scored.references / "half.nii.gz", maps[0])
    run = scored.run()
    assert run.code == 1
    assert f"{scored.predictions / 'half.nii.gz'}: label values must be integers, got 0.5" in run.err


def test_colours_and_4d_files_are_refused_with_the_file(scored, maps):
    colours = np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    for name, array in (("colour", colours), ("time", np.zeros((4, 4, 4, 3), np.uint8))):
        nib.save(nib.Nifti1Image(array, np.eye(4)), scored.predictions / f"{name}.nii.gz")
        scored.nifti(scored.references / f"{name}.nii.gz", maps[0])
    run = scored.run()
    assert run.code == 1
    assert "colour.nii.gz: labels must be one integer a voxel, got colours" in run.err
    assert "time.nii.gz: a label map must have 2 or 3 axes, got shape (4, 4, 4, 3)" in run.err


def test_stray_files_are_left_alone(scored):
    for folder in (scored.predictions, scored.references):
        for name in (".DS_Store", "._case.nii.gz", "notes.txt", "plans.json", "preview.png", "old.nii.gz.bak"):
            (folder / name).write_bytes(b"\0\1\2")
        (folder / "subfolder.nii.gz").mkdir()
    run = scored.run()
    assert run.code == 0
    assert run.summary["n_cases"] == 1


def test_two_label_files_of_one_case_are_refused(scored, maps):
    scored.nifti(scored.predictions / "case.nii", maps[0])
    run = scored.run()
    assert run.code == 1
    assert "must have one label file, got case.nii and case.nii.gz" in run.err


def test_metaimage_and_nrrd_are_read_like_nifti(workspace, maps):
    sitk = pytest.importorskip("SimpleITK")
    workspace.nifti(workspace.references / "case.nii.gz", maps[0], spacing=(3, 2, 1), origin=(-5, -6, 7))
    image = sitk.ReadImage(str(workspace.references / "case.nii.gz"))
    prediction = sitk.GetImageFromArray(maps[1])
    prediction.CopyInformation(image)
    for ending in (".mha", ".nrrd"):
        path = workspace.predictions / f"case{ending}"
        sitk.WriteImage(prediction, str(path))
        run = workspace.run()
        assert (run.code, run.value("hd_mm")) == (0, pytest.approx(1.0))
        path.unlink()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--labels", "7"], "--labels: label 7 must be in"),
        (["--labels", "lung"], "--labels: a label must be an integer >= 0"),
        (["--labels", "-1"], "--labels"),
        (["--nsd-tolerance-mm", "-2"], "--nsd-tolerance-mm"),
        (["--nsd-tolerance-mm", "nan"], "--nsd-tolerance-mm: must be numbers >= 0"),
        (["--nsd-tolerance-mm", "two"], "--nsd-tolerance-mm: must be a number in mm or label=number, got 'two'"),
        (["--nsd-tolerance-mm", "lung=2"], "--nsd-tolerance-mm: a label must be"),
        (["--labels", "1", "--nsd-tolerance-mm", "2=3"], "--nsd-tolerance-mm: label 2 must be one that is scored (1)"),
        (["--workers", "0"], "--workers: must be >= 1, got 0"),
        (["--source", "softmax"], "invalid choice: 'softmax'"),
        (["--dataset-json", "nowhere.json"], "nowhere.json: must be a readable JSON file"),
        (["--predictions", "nowhere"], "--predictions nowhere: must be a folder that can be read"),
        (["--references", "nowhere"], "--references nowhere: must be a folder that can be read"),
        (["--label", "1"], "unrecognized arguments"),
    ],
)
def test_unusable_options_exit_with_2_and_say_why(scored, options, message):
    scored.dataset_json({"background": 0, "liver": 1, "spleen": 2})
    run = scored.run(*options)
    assert run.code == 2
    assert message in run.err
    assert not scored.scores.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be a readable JSON file"),
        ("[]", 'needs an entry "labels"'),
        ('{"labels": {"0": "background"}}', "label '0' must be an integer >= 0 or a list of them, got 'background'"),
        ('{"labels": {"background": 0, "a": 1, "b": 1}}', "each label needs values of its own, got 1 twice"),
        ('{"labels": {"background": 0, "a": 1, "ignore": [2]}}', '"ignore" label must be one integer'),
        ('{"labels": {"background": 0, "a": 1}, "regions_class_order": "1"}', "must be a list of integers"),
    ],
)
def test_bad_dataset_json_exits_with_2_and_is_named(scored, content, message):
    (scored.predictions / "dataset.json").write_text(content)
    run = scored.run()
    assert run.code == 2
    assert str(scored.predictions / "dataset.json") in run.err and message in run.err


@pytest.mark.parametrize("side", ["predictions", "references"])
def test_folder_without_cases_exits_with_2(scored, side):
    shutil.rmtree(getattr(scored, side))
    getattr(scored, side).mkdir()
    run = scored.run()
    assert run.code == 2
    assert f"--{side}" in run.err and "got none" in run.err


def test_output_that_is_a_file_exits_with_2(scored):
    scored.scores.write_text("")
    assert scored.run(output=scored.scores / "deeper").code == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_output_that_is_read_only_exits_with_2(scored):
    scored.scores.mkdir(mode=0o500)
    run = scored.run()
    assert run.code == 2
    assert "must be a folder that can be written to" in run.err


def test_summary_of_another_program_is_not_overwritten(scored):
    theirs = scored.predictions / "summary.json"
    theirs.write_text('{"foreground_mean": {}}')
    assert test3d.main([f"--{n}={p}" for n, p in (
        ("predictions", scored.predictions), ("references", scored.references), ("output", scored.predictions)
    )]) == 2  # fmt: skip
    assert theirs.read_text() == '{"foreground_mean": {}}'


def test_own_results_are_replaced(scored):
    assert scored.run().code == scored.run().code == 0


def test_interrupt_while_scoring_leaves_the_old_results(scored, monkeypatch):
    scored.run()
    before = {path.name: path.read_bytes() for path in scored.scores.iterdir()}

    def interrupt(task):
        raise KeyboardInterrupt

    monkeypatch.setattr(cases, "score_case", interrupt)
    run = scored.run()
    assert run.code == 130
    assert "interrupted" in run.err
    assert {path.name: path.read_bytes() for path in scored.scores.iterdir()} == before


def test_interrupt_while_writing_leaves_no_half_file(scored, monkeypatch):
    def half(path, *_):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "_write_metrics", half)
    assert scored.run().code == 130
    assert [path.name for path in scored.scores.iterdir()] == [".cases"]  # what is needed to go on, nothing else


def test_folder_of_bad_cases_only_still_reports(workspace, maps):
    workspace.pair(maps[0], maps[1][:5])
    workspace.nifti(workspace.predictions / "case.nii.gz", maps[1][:5])
    workspace.nifti(workspace.references / "case.nii.gz", maps[0])
    run = workspace.run()
    assert run.code == 1
    assert run.rows == [] and run.summary["n_cases"] == 0


def test_unexpected_error_in_one_case_is_named_not_raised(scored, monkeypatch):
    def explode(*_, **__):
        raise RuntimeError("a surprise")

    monkeypatch.setattr("evaluation.score_case.score", explode)
    run = scored.run()
    assert run.code == 1
    assert str(scored.predictions / "case.nii.gz") in run.err and "RuntimeError: a surprise" in run.err


def test_relative_paths_work_from_any_folder(scored, monkeypatch):
    monkeypatch.chdir(scored.predictions)
    code = test3d.main(["--predictions", ".", "--references", "../references", "--output", "../here", "--workers", "1"])
    assert code == 0
    assert (scored.root / "here" / "metrics.csv").is_file()


def test_help_and_missing_options_read_well(capsys):
    assert test3d.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "example:" in text and "Exit code: 0 all scored" in text
    assert test3d.main(["--labels", "1"]) == 2
    assert "required: --predictions, --references, --output" in capsys.readouterr().err


def test_progress_goes_to_stderr_and_the_table_to_stdout(scored):
    run = scored.run()
    assert "scoring" in run.err and "1/1" in run.err
    assert "HD95 mm" in run.out and str(scored.scores / "metrics.csv") in run.out


def test_tolerances_of_the_command_line_add_up():
    parsed = command_line.parse_tolerances(["1", "2", "liver=3"])
    assert parsed == {None: [1.0, 2.0], "liver": [3.0]}
