"""Voxel distances, NSD and overlap equal MONAI's, in 3D and 2D; MONAI computes in float32."""

import numpy as np
import pytest

from evaluation import MetricOptions, score
from evaluation.surface import voxel_distances

torch = pytest.importorskip("torch")
metrics = pytest.importorskip("monai.metrics")
get_edge_surface_distance = pytest.importorskip("monai.metrics.utils").get_edge_surface_distance

TOLERANCES = (0.45, 1.05, 2.05, 7.3)  # between the distances that voxels can have: rounding decides nothing
PERCENTILES = (10, 50, 95, 99.5)
SURFACES = MetricOptions(nsd_boundary="voxel", hd_percentiles=PERCENTILES)
GRIDS = [
    ((17, 20, 23), (1.0, 1.0, 1.0)),
    ((9, 40, 30), (0.4, 3.0, 0.9766)),
    ((41, 52), (1.0, 1.0)),
    ((41, 52), (0.7, 2.3)),
]


def tensors(*masks):
    return [torch.tensor(mask)[None, None].float() for mask in masks]  # of booleans MONAI counts no true positives


def monai_distances(reference, prediction, spacing_mm):
    """Return MONAI's distances under our names."""
    y_pred, y = tensors(prediction, reference)
    keywords = {"include_background": True, "spacing": list(spacing_mm)}
    average = metrics.compute_average_surface_distance
    found = {
        f"hd{p:g}_mm": max(one_way[p] for one_way in monai_percentiles(y_pred, y, spacing_mm)) for p in PERCENTILES
    }
    found["hd_mm"] = metrics.compute_hausdorff_distance(y_pred, y, **keywords).item()
    found["assd_mm"] = average(y_pred, y, symmetric=True, **keywords).item()  # MONAI pools the two directions too
    one_way = [average(a, b, **keywords).item() for a, b in ((y_pred, y), (y, y_pred))]
    found["masd_mm"] = sum(one_way) / 2
    for tolerance in TOLERANCES:
        found[f"nsd_{tolerance}mm"] = metrics.compute_surface_dice(y_pred, y, [tolerance], **keywords).item()
    return found


def monai_percentiles(y_pred, y, spacing_mm):
    """Return percentiles of MONAI's distances, first from the prediction.

    MONAI finds the percentile's rank in float32, which is up to a hundredth of a rank off for 100,000 elements.
    """
    _, distances, _ = get_edge_surface_distance(
        y_pred[0, 0], y[0, 0], spacing=list(spacing_mm), symmetric=True, warn_empty=False
    )
    exact = [{p: np.percentile(one_way.double().numpy(), p) for p in PERCENTILES} for one_way in distances]
    for p in PERCENTILES:
        keywords = {"include_background": True, "spacing": list(spacing_mm), "percentile": p}
        rounded = metrics.compute_hausdorff_distance(y_pred, y, **keywords).item()
        assert rounded == pytest.approx(max(one_way[p] for one_way in exact), rel=1e-4, abs=1e-4)
    return exact


def monai_overlap(reference, prediction):
    """Return MONAI's overlap metrics under our names."""
    y_pred, y = tensors(prediction, reference)
    confusion = metrics.get_confusion_matrix(y_pred, y)
    by_name = {"precision": "precision", "sensitivity": "sensitivity", "specificity": "specificity"}
    found = {n: metrics.compute_confusion_matrix_metric(m, confusion).item() for n, m in by_name.items()}
    found["iou"] = metrics.compute_iou(y_pred, y).item()
    assert metrics.compute_confusion_matrix_metric("threat score", confusion).item() == pytest.approx(found["iou"])
    found["dice"] = metrics.compute_dice(y_pred, y).item()
    return found


def in_their_order(counts):
    return [counts.true_positives, counts.false_positives, counts.true_negatives, counts.false_negatives]


def assert_equal_scores(reference, prediction, spacing_mm):
    """Compare every metric that both have, to a millionth."""
    expected = monai_distances(reference, prediction, spacing_mm) | monai_overlap(reference, prediction)
    scored = score(reference, prediction, spacing_mm, nsd_tolerance_mm=TOLERANCES, options=SURFACES)[1]
    found = scored.metrics()
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)
    matrix = metrics.get_confusion_matrix(*tensors(prediction, reference)).flatten().tolist()
    assert matrix == in_their_order(scored.counts)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_random_masks_matches_monai(random_pair, shape, spacing):
    for seed in range(2):
        assert_equal_scores(*random_pair(shape, seed), spacing)


def test_real_organs_matches_monai(real_pairs):
    assert len(real_pairs) >= 5
    for pair in real_pairs[::3]:
        assert_equal_scores(*pair)


@pytest.mark.parametrize("axis", [0, 2])
def test_slices_of_real_organs_matches_monai(real_pairs, axis):
    shared = [pair for pair in real_pairs if (pair[0] & pair[1]).any()]
    assert len(shared) >= 2
    for reference, prediction, spacing in shared:
        middle = int(np.median(np.argwhere(reference & prediction)[:, axis]))
        in_plane = spacing[:axis] + spacing[axis + 1 :]
        assert_equal_scores(reference.take(middle, axis), prediction.take(middle, axis), in_plane)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_each_direction_matches_monai(random_pair, bits, shape, spacing):
    reference, prediction = random_pair(shape, 7)
    ours = voxel_distances(bits(reference), bits(prediction), spacing)
    keywords = {"include_background": True, "spacing": list(spacing)}
    y_pred, y = tensors(prediction, reference)
    for one_way, pair in ((ours.from_prediction, (y_pred, y)), (ours.from_reference, (y, y_pred))):
        mean = metrics.compute_average_surface_distance(*pair, **keywords).item()
        assert one_way.total_mm / one_way.size == pytest.approx(mean, rel=1e-6)
        for percentile, expected in monai_percentiles(*pair, spacing)[0].items():
            assert one_way.percentile_mm(percentile) == pytest.approx(expected, rel=1e-6, abs=1e-6)
        furthest = metrics.compute_hausdorff_distance(*pair, directed=True, **keywords).item()
        assert one_way.percentile_mm(100) == pytest.approx(furthest, rel=1e-6)


def test_all_labels_of_a_map_at_once_matches_monai(real_data):
    import nibabel as nib

    folder = real_data / "ts_example_ct"
    reference, prediction = (
        np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj).astype(np.uint8)
        for name in ("example_seg", "example_seg_fast")
    )
    n_labels = int(max(reference.max(), prediction.max()))
    one_hot = [tensors(np.stack([m == k for k in range(n_labels + 1)]))[0][0] for m in (prediction, reference)]
    confusion = metrics.get_confusion_matrix(*one_hot, include_background=False)[0].long().tolist()
    scores = score(reference, prediction, (1.5, 1.5, 1.5), labels=range(1, n_labels + 1))
    for label, expected in enumerate(confusion, start=1):
        assert expected == in_their_order(scores[label].counts)
