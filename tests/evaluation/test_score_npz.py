"""Predictions as probabilities or logits (.npz and .pkl), with labels or regions."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from evaluation.pickles import load_plain_pickle
from evaluation.probabilities import read_npz

SPACING = (2.0, 1.0, 0.5)


@pytest.fixture
def case(workspace):
    """Write a reference; return softmax probabilities (3, z, y, x) whose argmax differs from it."""
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 3, (5, 6, 7)).astype(np.uint8)
    workspace.nifti(workspace.references / "case.nii.gz", reference, spacing=SPACING)
    logits = rng.standard_normal((3, 5, 6, 7)).astype(np.float32)
    np.put_along_axis(logits, reference[None].astype(int), 1.5, axis=0)
    return logits


def softmax(logits):
    exponents = np.exp(logits)
    return exponents / exponents.sum(0)


def npz(workspace, **arrays):
    # NIfTI's RAS origin 0 with positive axes is LPS origin 0 with the first two axes reversed
    workspace.npz(workspace.predictions, "case", spacing=SPACING, **arrays)


def scores_of(workspace, label_map, **options):
    """Return rows for the same prediction given as a label file."""
    for path in workspace.predictions.glob("case.*"):
        path.unlink()
    workspace.nifti(workspace.predictions / "case.nii.gz", label_map.astype(np.uint8), spacing=SPACING)
    return workspace.run(**options, output=workspace.root / "by_labels").rows


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_are_scored_by_their_argmax(workspace, case, dtype):
    npz(workspace, probabilities=softmax(case).astype(dtype))
    run = workspace.run()
    assert run.code == 0
    assert run.summary["source"]["used"] == {"probabilities": 1}
    assert run.rows == scores_of(workspace, softmax(case).astype(dtype).argmax(0))


def test_logits_are_scored_by_their_argmax(workspace, case):
    npz(workspace, logits=case)
    run = workspace.run("--source", "logits")
    assert run.summary["source"] == {"requested": "logits", "used": {"logits": 1}}
    assert run.rows == scores_of(workspace, case.argmax(0))


def test_auto_takes_label_files_where_present_else_npz(workspace, case):
    npz(workspace, probabilities=softmax(case), logits=case)
    workspace.nifti(workspace.predictions / "case.nii.gz", np.zeros((5, 6, 7), np.uint8), spacing=SPACING)
    reference = workspace.references / "case.nii.gz"
    (workspace.references / "other.nii.gz").write_bytes(reference.read_bytes())
    workspace.npz(workspace.predictions, "other", spacing=SPACING, logits=case)
    run = workspace.run()
    assert run.summary["source"]["used"] == {"labels": 1, "logits": 1}
    assert {file["case"]: file["source"] for file in run.summary["files"]} == {"case": "labels", "other": "logits"}
    assert workspace.run("--source", "probabilities").code == 1  # `other` has none: named, not dropped


@pytest.mark.parametrize("name", ["probabilities", "logits"])
def test_regions_are_thresholded_and_painted_in_the_declared_order(workspace, name):
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    workspace.dataset_json(labels, regions_class_order=[1, 2, 3])
    logits = np.random.default_rng(1).standard_normal((3, 4, 5, 6)).astype(np.float32)
    painted = np.zeros((4, 5, 6), np.uint8)
    for channel, value in zip(logits, (1, 2, 3), strict=True):
        painted[channel > 0] = value
    workspace.nifti(workspace.references / "case.nii.gz", painted, spacing=SPACING)
    npz(workspace, **{name: logits if name == "logits" else 1 / (1 + np.exp(-logits))})
    run = workspace.run()
    assert run.code == 0
    assert {(row["label"], row["label_name"]) for row in run.rows} == {
        ("1+2+3", "whole"),
        ("2+3", "core"),
        ("3", "enhancing"),
    }
    assert all(run.value("dice", label=label) == 1 for label in ("1+2+3", "2+3", "3"))


def test_regions_of_a_label_file_are_unions_of_values(workspace):
    workspace.dataset_json({"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=[1, 2])
    reference, prediction = np.zeros((2, 3, 4, 5), np.uint8)
    reference[1, 1, :4], prediction[1, 1, :4] = (1, 1, 2, 2), (2, 2, 1, 1)
    workspace.pair(reference, prediction)
    run = workspace.run()
    assert run.value("dice", label="1+2") == 1
    assert run.value("dice", label="2") == 0


def test_channels_that_do_not_fit_dataset_json_are_refused(workspace, case):
    workspace.dataset_json({"background": 0, "a": 1})
    npz(workspace, probabilities=softmax(case))
    run = workspace.run()
    assert run.code == 1
    assert "case.npz: probabilities must have 2 channels" in run.err and "got 3" in run.err


def test_regions_without_an_order_are_refused_for_npz(workspace, case):
    workspace.dataset_json({"background": 0, "whole": [1, 2], "core": 2, "x": 3})
    npz(workspace, probabilities=softmax(case))
    run = workspace.run()
    assert run.code == 1
    assert "regions_class_order must have 3 entries" in run.err


def test_geometry_of_the_pkl_is_compared_with_the_reference(workspace, case):
    workspace.npz(workspace.predictions, "case", spacing=SPACING, origin_lps=(3, 0, 0), logits=case)
    run = workspace.run()
    assert run.code == 1
    assert "case.npz" in run.err and "voxel corners up to 3 mm apart" in run.err


def test_missing_pkl_is_named(workspace, case):
    npz(workspace, logits=case)
    (workspace.predictions / "case.pkl").unlink()
    run = workspace.run()
    assert run.code == 1
    assert "case.pkl: missing, so the geometry is unknown" in run.err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[: len(data) // 2], "can't be read"),
        (lambda data: b"", "can't be read"),
        (lambda data: data[:200] + bytes([data[200] ^ 255]) + data[201:], "can't be read"),
    ],
)
def test_damaged_npz_is_named(workspace, case, damage, message):
    npz(workspace, logits=case)
    path = workspace.predictions / "case.npz"
    path.write_bytes(damage(path.read_bytes()))
    run = workspace.run()
    assert run.code == 1
    assert f"{path}: {message}" in run.err


def test_npz_with_nan_is_refused(workspace, case):
    case[1, 2, 3, 4] = np.nan
    npz(workspace, logits=case)
    run = workspace.run()
    assert run.code == 1
    assert "case.npz" in run.err and "holds nan" in run.err


def test_npz_without_the_wanted_array_says_what_it_holds(workspace, case):
    npz(workspace, softmax=case)
    run = workspace.run()
    assert run.code == 1
    assert "needs an array probabilities or logits, got softmax" in run.err


def test_array_in_fortran_order_is_read_right(workspace, case):
    npz(workspace, logits=np.asfortranarray(case))
    label_map, _, _ = read_npz(workspace.predictions / "case.npz", "logits", None)
    assert (label_map == case.argmax(0)).all()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_malicious_pkl_is_refused_without_running(workspace, case, protocol):
    npz(workspace, logits=case)
    trace = workspace.root / "it_ran"
    (workspace.predictions / "case.pkl").write_bytes(pickle.dumps({"sitk_stuff": Bomb(trace)}, protocol))
    run = workspace.run()
    assert run.code == 1
    assert "case.pkl: not a pickle that is safe to read" in run.err and "mkdir" in run.err
    assert not trace.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickle_reads_what_nnunet_writes(tmp_path, protocol):
    properties = {
        "sitk_stuff": {"spacing": (0.5, 1.0, 2.0), "origin": (0.0, 0.0, 0.0), "direction": (1.0,) * 9},
        "spacing": [np.float64(2.0), 1.0, 0.5],
        "bbox_used_for_cropping": [[0, 5], [0, 6]],
        "class_locations": OrderedDict({1: np.arange(6).reshape(2, 3), (1, 2): np.zeros((0, 4), np.int32)}),
        "shape": (np.int64(5), 6),
        "set": {1, 2},
        "bytes": b"abc",
    }
    (tmp_path / "case.pkl").write_bytes(pickle.dumps(properties, protocol))
    read = load_plain_pickle(tmp_path / "case.pkl")
    assert read["spacing"] == properties["spacing"]
    assert (read["class_locations"][1] == properties["class_locations"][1]).all()
    assert read["set"] == {1, 2} and read["bytes"] == b"abc"
