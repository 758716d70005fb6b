"""What other packages get wrong, and what we give instead.

Where a peer's behaviour is asserted too, a failure of that line means that a new release mended it: drop the line.
"""

import math
import warnings

import nibabel as nib
import numpy as np
import pytest

from evaluation import score


@pytest.fixture
def box():
    mask = np.zeros((8, 9, 10), bool)
    mask[2:5, 2:6, 3:7] = True
    return mask


@pytest.fixture
def cases_with_a_miss(workspace, box):
    """Two cases whose label 1 is found one voxel off, and one that is missed."""
    for case, prediction in (("a", np.roll(box, 1, 2)), ("b", np.roll(box, 1, 2)), ("missed", box & False)):
        workspace.pair(box, prediction, case=case)
    return workspace


@pytest.mark.filterwarnings("ignore")
def test_missed_case_is_inf_and_counted_where_monai_drops_it_from_the_mean(cases_with_a_miss, box):
    run = cases_with_a_miss.run("--labels", "1")
    statistics = run.statistics("hd95_mm")
    assert run.value("hd95_mm", case="missed") == math.inf
    assert (statistics["mean"], statistics["n"], statistics["n_missed"]) == (1, 2, 1)
    diagonal = math.sqrt(8**2 + 9**2 + 10**2)
    assert statistics["mean_inf_as_diagonal"] == pytest.approx((1 + 1 + diagonal) / 3)

    torch = pytest.importorskip("torch")
    from monai.metrics import HausdorffDistanceMetric

    theirs = HausdorffDistanceMetric(include_background=True, percentile=95, get_not_nans=True)
    moved, empty = np.roll(box, 1, 2), box & False
    theirs(torch.tensor(np.stack([moved, moved, empty]))[:, None], torch.tensor(np.stack([box] * 3))[:, None])
    mean, n = theirs.aggregate()
    assert (mean.item(), n.item()) == (1, 2)  # as if there were two cases, both good


@pytest.mark.filterwarnings("ignore")
def test_counts_above_2_to_the_24_are_exact_where_monai_rounds_them():
    n = 2**24 + 1  # the first integer that float32 doesn't have
    reference = np.ones((1, n + 2), np.uint8)
    prediction = reference.copy()
    prediction[0, :2] = 0  # so n voxels are right
    counts = score(reference, prediction, (1, 1), labels=[1])[1].counts
    assert (counts.true_positives, counts.false_negatives) == (n, 2)

    torch = pytest.importorskip("torch")
    from monai.metrics import get_confusion_matrix

    maps = [torch.from_numpy(m)[None, None] for m in (prediction, reference)]
    tp, _, _, fn = get_confusion_matrix(*maps)[0, 0].tolist()
    assert (tp, fn) != (n, 2)


@pytest.mark.parametrize(("reference_empty", "prediction_empty"), [(False, True), (True, False), (True, True)])
def test_empty_masks_are_scored_where_surface_distance_crashes(box, reference_empty, prediction_empty, monkeypatch):
    reference, prediction = box & (not reference_empty), box & (not prediction_empty)
    scored = score(reference, prediction, (1, 1, 1), labels=[1])[1]
    one_only = reference_empty != prediction_empty
    assert scored.hd95_mm == math.inf if one_only else math.isnan(scored.hd95_mm)
    assert scored.nsd_2mm == 0 if one_only else math.isnan(scored.nsd_2mm)

    package = pytest.importorskip("surface_distance", reason="needs surface-distance (pip install -e '.[dev]')")
    monkeypatch.delattr(np, "Inf", raising=False)  # torchmetrics puts it back for every package of the process
    with warnings.catch_warnings(), pytest.raises(AttributeError, match="Inf"):
        warnings.simplefilter("ignore")
        package.compute_robust_hausdorff(package.compute_surface_distances(reference, prediction, (1, 1, 1)), 95)


@pytest.mark.parametrize("reference_empty", [False, True])
def test_empty_masks_are_scored_where_medpy_raises(box, reference_empty):
    pair = (box & False, box) if reference_empty else (box, box & False)
    scored = score(*pair, (1, 1, 1), labels=[1])[1]
    assert scored.hd_mm == scored.hd95_mm == scored.assd_mm == math.inf

    binary = pytest.importorskip("medpy.metric.binary", reason="needs MedPy (pip install -e '.[benchmark]')")
    with pytest.raises(RuntimeError, match="does not contain any binary object"):
        binary.hd(pair[1], pair[0])


def test_other_grid_is_an_error_that_names_both_files_where_nnunet_scores_it(workspace, box):
    reference, prediction = workspace.references / "case.nii.gz", workspace.predictions / "case.nii.gz"
    workspace.nifti(reference, box, spacing=(2.5, 1, 1))
    workspace.nifti(prediction, box, spacing=(5, 1, 1), origin=(40, 0, 0))  # twice as tall, and 4 cm away
    run = workspace.run("--labels", "1")
    assert run.code == 1 and run.rows == []
    assert str(prediction) in run.err and str(reference) in run.err and "mm apart" in run.err

    evaluate = pytest.importorskip("nnunetv2.evaluation.evaluate_predictions")
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

    theirs = evaluate.compute_metrics(str(reference), str(prediction), NibabelIO(), [1])
    assert theirs["metrics"][1]["Dice"] == 1
    assert nib.load(reference).header.get_zooms() != nib.load(prediction).header.get_zooms()
