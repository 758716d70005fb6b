"""`python -m evaluation.threshold --apply --save-labels` writes label maps."""

import nibabel as nib
import numpy as np
import pytest
from threshold_cases import SHAPE, SPACING, applied_maps

from evaluation import npz_slabs


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
