"""Dual-grid distances equal those of the surface-distance package, in 3D and 2D.

Theirs, as their source has it: each element counts with its area (3D) or length (2D); a robust Hausdorff distance is
the larger of two directed percentiles, each the smallest distance that covers that share of the area, not
interpolated; average distances are directed; the surface Dice compares `distance <= tolerance` without any slack.
"""

import warnings

import numpy as np
import pytest

from evaluation import MetricOptions, score
from evaluation.contour_table import contour_lengths_mm, surface_areas_mm2
from evaluation.surface import dual_distances

package = pytest.importorskip("surface_distance", reason="needs surface-distance (pip install -e '.[dev]')")
PERCENTILES = (10.3, 49.7, 90.1, 95, 99.2)  # at exactly half of a regular shape, theirs is a matter of rounding
TOLERANCES = (0.45, 1.05, 2.05, 7.3)  # between the distances that voxels can have: rounding decides nothing
GRIDS = [
    ((17, 20, 23), (1.0, 1.0, 1.0)),
    ((17, 20, 23), (2.5, 0.7, 1.1)),
    ((9, 40, 30), (0.4, 3.0, 0.9766)),
    ((41, 52), (1.0, 1.0)),
    ((41, 52), (0.7, 2.3)),
]


def theirs(reference, prediction, spacing_mm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it uses names that SciPy is about to drop
        return package.compute_surface_distances(reference, prediction, spacing_mm)


def robust_hausdorff_of_union(found, percent):
    """Return their percentile over the elements of both surfaces together."""
    distances = np.concatenate([found["distances_gt_to_pred"], found["distances_pred_to_gt"]])
    areas = np.concatenate([found["surfel_areas_gt"], found["surfel_areas_pred"]])
    order = np.argsort(distances, kind="stable")
    shares = np.cumsum(areas[order]) / areas.sum()
    return distances[order][min(np.searchsorted(shares, percent / 100), len(order) - 1)]


def assert_equal_scores(reference, prediction, spacing_mm):
    """Compare every metric that both have, to a millionth."""
    found = theirs(reference, prediction, spacing_mm)
    expected = {f"hd{p}_mm": package.compute_robust_hausdorff(found, p) for p in PERCENTILES}
    expected["hd_mm"] = package.compute_robust_hausdorff(found, 100)
    expected |= {f"nsd_{t}mm": package.compute_surface_dice_at_tolerance(found, t) for t in TOLERANCES}
    expected["masd_mm"] = sum(package.compute_average_surface_distance(found)) / 2
    areas = [found[f"surfel_areas_{side}"].sum() for side in ("gt", "pred")]
    expected["assd_mm"] = np.dot(package.compute_average_surface_distance(found), areas) / sum(areas)
    expected["dice"] = package.compute_dice_coefficient(reference, prediction)
    options = MetricOptions(boundary="dual", hd_percentiles=PERCENTILES)
    scored = score(reference, prediction, spacing_mm, nsd_tolerance_mm=TOLERANCES, options=options)[1].metrics()
    assert {name: scored[name] for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_random_masks_matches_surface_distance(random_pair, shape, spacing):
    for seed in range(3):
        assert_equal_scores(*random_pair(shape, seed), spacing)


def test_real_organs_matches_surface_distance(real_pairs):
    assert len(real_pairs) >= 5
    for pair in real_pairs:
        assert_equal_scores(*pair)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_real_organs_matches_surface_distance(real_pairs, axis):
    shared = [pair for pair in real_pairs if (pair[0] & pair[1]).any()]
    assert len(shared) >= 2
    for reference, prediction, spacing in shared:
        middle = int(np.median(np.argwhere(reference & prediction)[:, axis]))
        in_plane = spacing[:axis] + spacing[axis + 1 :]
        assert_equal_scores(reference.take(middle, axis), prediction.take(middle, axis), in_plane)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_each_direction_matches_surface_distance(blobs, bits, shape, spacing):
    reference, prediction = blobs(5, shape)
    found = theirs(reference, prediction, spacing)
    ours = dual_distances(bits(reference), bits(prediction), spacing)
    means = [one_way.total_mm / one_way.size for one_way in ours.both]
    assert means == pytest.approx(package.compute_average_surface_distance(found), rel=1e-9)
    assert [one_way.size for one_way in ours.both] == pytest.approx(
        [found["surfel_areas_gt"].sum(), found["surfel_areas_pred"].sum()], rel=1e-9
    )
    for tolerance in TOLERANCES:
        overlaps = [one_way.size_within(tolerance) / one_way.size for one_way in ours.both]
        assert overlaps == pytest.approx(package.compute_surface_overlap_at_tolerance(found, tolerance), rel=1e-9)


def test_union_of_both_directions_is_the_percentile_of_their_joined_lists(blobs):
    options = MetricOptions(boundary="dual", hd_directions="union", hd_percentiles=PERCENTILES)
    n_apart = 0
    for shape, spacing in GRIDS:
        reference, prediction = blobs(6, shape)
        found = theirs(reference, prediction, spacing)
        scored = score(reference, prediction, spacing, options=options)
        for percentile in PERCENTILES:
            assert scored.hd(percentile) == pytest.approx(robust_hausdorff_of_union(found, percentile), rel=1e-6)
            n_apart += scored.hd(percentile) != package.compute_robust_hausdorff(found, percentile)
    assert n_apart > 3  # else it would show nothing that the larger directed percentile doesn't


@pytest.mark.parametrize("spacing", [(1, 1, 1), (2.5, 0.7, 1.1), (0.3, 4.0, 1.0)])
def test_area_of_each_of_256_cells_matches_surface_distance(spacing):
    from surface_distance.lookup_tables import create_table_neighbour_code_to_surface_area

    expected = np.asarray(create_table_neighbour_code_to_surface_area(spacing))
    mirrored = [int(f"{code:08b}"[::-1], 2) for code in range(256)]  # there the first corner is the highest bit
    assert surface_areas_mm2(spacing) == pytest.approx(expected[mirrored], rel=1e-9)


@pytest.mark.parametrize("spacing", [(1, 1), (0.5, 2), (3, 1)])
def test_length_of_each_of_16_cells_matches_surface_distance(spacing):
    from surface_distance.lookup_tables import create_table_neighbour_code_to_contour_length

    expected = np.asarray(create_table_neighbour_code_to_contour_length(spacing))
    mirrored = [int(f"{code:04b}"[::-1], 2) for code in range(16)]
    assert contour_lengths_mm(spacing) == pytest.approx(expected[mirrored], rel=1e-9)


def test_one_slice_in_3d_has_areas_where_2d_has_lengths(blobs):
    reference, prediction = blobs(3, (40, 50))
    assert_equal_scores(reference, prediction, (2.0, 3.0))
    assert_equal_scores(reference[None], prediction[None], (1.0, 2.0, 3.0))
    options = MetricOptions(boundary="dual")
    flat = score(reference, prediction, (2, 3), options=options)
    volume = score(reference[None], prediction[None], (1, 2, 3), options=options)
    # the sheet's two faces, mostly shared, are surface in 3D only
    assert volume.hd_mm <= flat.hd_mm
    assert flat.assd_mm > 1.5 * volume.assd_mm


@pytest.mark.parametrize(("steps", "spacing_mm"), [(3, 0.1), (7, 0.1), (3, 0.7), (6, 0.35)])
def test_tolerance_equal_to_a_distance_accepts_it_where_surface_distance_leaves_it_to_rounding(steps, spacing_mm):
    reference, prediction = np.zeros((2, 5, 5, 20), bool)
    reference[2, 2, 3] = prediction[2, 2, 3 + steps] = True
    tolerance = round(steps * spacing_mm, 6)  # as a person types it: 0.3, while 3 * 0.1 is 0.30000000000000004
    spacing = (5.0, 5.0, spacing_mm)
    assert score(reference, prediction, spacing, nsd_tolerance_mm=tolerance).nsd(tolerance) == 1
    rounded = package.compute_surface_dice_at_tolerance(theirs(reference, prediction, spacing), tolerance)
    assert (rounded < 1) == (steps * spacing_mm > tolerance)
