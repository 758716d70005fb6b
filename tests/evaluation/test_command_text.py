"""What a person reads who types something wrong: the argument, what it needs, what it got, and what to do next."""

import re

import numpy as np
import pytest

from evaluation import test2d, test3d

WRONG = {
    # options: (exit code, argument, need, got, next step)
    ("--predictions", "nowhere"): ("--predictions nowhere", "must be a folder that can be read", "check the path"),
    ("--references", "nowhere"): ("--references nowhere", "must be a folder that can be read", "check the path"),
    ("--predictions", "a_file"): ("--predictions a_file", "must be a folder that can be read", "check the path"),
    ("--predictions", "empty"): ("--predictions empty", "must hold <case>.nii.gz or <case>.npz", "check the path"),
    ("--references", "empty"): ("--references empty", "must hold <case>.nii.gz files", "check the path"),
    ("--output", "a_file"): ("--output a_file", "must be a folder that can be written to", "choose another"),
    ("--output", "a_file/deeper"): ("--output a_file/deeper", "must be a folder that can be", "choose another"),
    ("--labels", "lung"): ("--labels", "must be an integer >= 0, a region such as 1+2", "got 'lung'", "--dataset-json"),
    ("--labels", "1", "-4"): ("--labels", "must be an integer >= 0", "got '-4'"),
    ("--labels", "1+x"): ("--labels", "must be an integer >= 0, a region such as 1+2", "got '1+x'"),
    ("--labels", "1.5"): ("--labels", "must be an integer >= 0", "got '1.5'"),
    ("--labels",): ("--labels", "expected at least one argument"),
    ("--nsd-tolerance-mm", "-1"): ("--nsd-tolerance-mm", "must be numbers >= 0 in mm", "got [-1.0]", "usual values"),
    ("--nsd-tolerance-mm", "inf"): ("--nsd-tolerance-mm", "must be numbers >= 0 in mm", "got [inf]", "usual values"),
    ("--nsd-tolerance-mm", "2mm"): ("--nsd-tolerance-mm", "must be a number in mm", "got '2mm'", "for example 2"),
    ("--nsd-tolerance-mm", "1=x"): ("--nsd-tolerance-mm", "or label=number", "got '1=x'", "liver=3"),
    ("--nsd-tolerance-mm", "lung=2"): ("--nsd-tolerance-mm", "must be an integer", "got 'lung'", "--dataset-json"),
    ("--nsd-tolerance-mm",): ("--nsd-tolerance-mm", "expected at least one argument"),
    ("--hd-percentiles", "100"): ("--hd-percentiles", "must be > 0 and < 100", "got 100", "always there as hd_mm"),
    ("--hd-percentiles", "nan"): ("--hd-percentiles", "must be > 0 and < 100", "got nan", "always there as hd_mm"),
    ("--hd-percentiles", "high"): ("--hd-percentiles", "float", "'high'"),
    ("--hd-directions", "mean"): ("--hd-directions", "'mean'", "max", "union"),
    ("--boundary", "mesh"): ("--boundary", "'mesh'", "voxel", "dual"),
    ("--nsd-boundary", "mesh"): ("--nsd-boundary", "'mesh'", "voxel", "dual"),
    ("--also", "lesion"): ("--also", "'lesion'", "boundary_iou", "cldice", "lesions"),
    ("--boundary-width-mm", "-1"): ("--boundary-width-mm:", "must be a number >= 0", "got -1", "usual values"),
    ("--boundary-width-mm", "nan"): ("--boundary-width-mm:", "must be a number >= 0", "got nan", "usual values"),
    ("--workers", "0"): ("--workers", "must be >= 1", "got 0", "leave it out"),
    ("--workers", "two"): ("--workers", "int", "'two'"),
    ("--source", "softmax"): ("--source", "'softmax'", "auto", "labels", "probabilities", "logits"),
    ("--dataset-json", "nowhere.json"): (
        "nowhere.json",
        "must be a readable JSON file",
        "No such file",
        "--dataset-json",
    ),
    ("--dataset-json", "a_file"): ("a_file", "must be a readable JSON file", "got: Expecting value", "--dataset-json"),
    ("--dataset-json", "empty"): ("empty", "must be a readable JSON file", "got: Is a directory", "--dataset-json"),
    ("--predictons", "x"): ("unrecognized arguments", "--predictons"),
    ("--label", "1"): ("unrecognized arguments", "--label"),
    ("stray",): ("unrecognized arguments", "stray"),
}


@pytest.fixture
def folders(workspace, cube, monkeypatch):
    """Return a workspace with a case of label 1, a file and an empty folder, as the working directory."""
    mask = cube(6, shape=(10, 10, 10)).astype(np.uint8)
    workspace.pair(mask, np.roll(mask, 1, axis=0))
    (workspace.root / "a_file").write_text("no JSON")
    (workspace.root / "empty").mkdir()
    monkeypatch.chdir(workspace.root)
    return workspace


def last_error(run):
    """Return the last line of stderr, which is what a person sees above the prompt."""
    return run.err.strip().splitlines()[-1]


@pytest.mark.parametrize("options", WRONG, ids=" ".join)
def test_wrong_option_says_argument_need_got_and_next_step_and_exits_with_2(folders, options):
    run = folders.run(*options)
    assert run.code == 2
    for text in WRONG[options]:
        assert text in last_error(run)
    assert "Traceback" not in run.err and "Errno" not in run.err
    assert not (folders.scores / "metrics.csv").exists()
    assert run.out == ""


@pytest.mark.parametrize("options", [("--labels", "lung"), ("--labels", "7"), ("--nsd-tolerance-mm", "lung=2")])
def test_unknown_label_lists_those_of_dataset_json(folders, options):
    path = folders.dataset_json({"background": 0, "liver": 1, "spleen": 2})
    run = folders.run(*options)
    assert run.code == 2
    error = last_error(run)
    assert str(path) in error and "1 liver, 2 spleen" in error


def test_label_that_is_in_no_file_is_a_warning_that_names_it(folders):
    run = folders.run("--labels", "1", "9")
    assert run.code == 0
    assert "warning: label 9 was asked for and is in no file" in run.err
    assert "label 1 was" not in run.err
    run = folders.run("--nsd-tolerance-mm", "9=4", "1=3")
    assert "warning: label 9 was asked for and is in no file" in run.err and "label 1 was" not in run.err
    folders.dataset_json({"background": 0, "liver": 1, "spleen": 2})
    assert "was asked for" not in folders.run().err  # nobody typed it


def test_folder_scored_against_itself_is_a_warning(folders):
    run = folders.run("--references", "predictions/../predictions")
    assert run.code == 0
    assert "warning: --predictions and --references: are one folder" in run.err
    assert "one folder" not in folders.run().err


@pytest.mark.parametrize("source", ["probabilities", "logits"])
def test_source_that_a_case_does_not_have_names_the_file_and_the_way_out(folders, source):
    run = folders.run("--source", source)
    assert run.code == 1
    assert f"{folders.predictions / 'case.nii.gz'}: --source {source} needs an .npz file" in run.err
    assert "got only case.nii.gz; use auto" in run.err


def test_output_below_a_device_that_is_no_folder_is_named(folders):
    run = folders.run(output=folders.root / "a_file" / "deep" / "deeper")
    assert run.code == 2
    assert "--output" in last_error(run) and "choose another" in last_error(run)


@pytest.mark.parametrize("module", [test3d, test2d])
@pytest.mark.parametrize("left_out", ["--predictions", "--references", "--output"])
def test_option_that_is_missing_is_named(module, left_out, capsys):
    given = [name for name in ("--predictions", "--references", "--output") if name != left_out]
    assert module.main([text for name in given for text in (name, "somewhere")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert left_out in error and given[0] not in error


@pytest.mark.parametrize("module", [test3d, test2d])
def test_command_alone_shows_how_to_call_it_and_exits_with_2(module, capsys):
    assert module.main([]) == 2
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert module.__name__.rpartition(".")[2] in text
    assert all(name in text for name in ("--predictions", "--references", "--output"))
    assert "Traceback" not in text


@pytest.mark.parametrize("module", [test3d, test2d])
def test_help_explains_every_option_files_and_exit_codes_with_an_example(module, capsys):
    assert module.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    options = set(re.findall(r"^  (--[a-z-]+)", shown.out, re.MULTILINE))
    assert options >= {"--predictions", "--references", "--output", "--labels", "--nsd-tolerance-mm", "--workers"}
    assert ("--axis" in options) == (module is test2d)
    for text in ("metrics.csv", "summary.json", "Exit code", "130", "default: 2", "default: 95"):
        assert text in shown.out
    assert re.search(r"^ +.*--predictions \w+ --references \w+ --output \w+", shown.out, re.MULTILINE)  # the example


def test_axis_of_slices_is_one_of_three(folders):
    run = folders.run2d("--axis", "3")
    assert run.code == 2
    assert "--axis" in last_error(run) and "0, 1, 2" in last_error(run)
    assert folders.run("--axis", "1").code == 2  # whole images have none
