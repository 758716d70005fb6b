"""Surface distances: cases whose answer follows from the drawing, and agreement with MONAI."""

import numpy as np
import pytest

from evaluation import score
from evaluation.surface import (
    DirectedDistances,
    SurfaceDistances,
    assd_mm,
    hausdorff_mm,
    masd_mm,
    surface_dice,
    voxel_distances,
)


def directed(distances, sizes=None):
    """Return distances of one direction; those that are 0 are shared elements."""
    distances = np.asarray(distances, float)
    sizes = None if sizes is None else np.asarray(sizes, float)
    apart = distances > 0
    shared_size = (~apart).sum() if sizes is None else sizes[~apart].sum()
    return DirectedDistances(
        distances[apart], int((~apart).sum()), None if sizes is None else sizes[apart], shared_size
    )


def all_mm(one_way):
    """Return every distance of one direction, ascending."""
    return np.sort(np.concatenate([np.zeros(one_way.n_shared), one_way.apart_mm]))


def sphere(radius_mm, spacing_mm, size_mm=80):
    axis = (np.arange(round(size_mm / spacing_mm)) + 0.5) * spacing_mm - size_mm / 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    return z**2 + y**2 + x**2 <= radius_mm**2


def test_hd_is_shift_times_spacing_for_a_moved_cube(cube):
    reference, prediction = cube(20), cube(20, shift=3)
    scored = score(reference, prediction, spacing_mm=(0.9766,) * 3)
    assert scored.hd_mm == pytest.approx(3 * 0.9766)
    assert scored.hd95_mm == pytest.approx(3 * 0.9766)
    assert scored.dice == pytest.approx(1 - 3 / 20)


def test_hd_of_a_slab_two_slices_longer_is_two_slices(cube):
    reference, prediction = cube((20, 20, 20)), cube((20, 20, 20))
    prediction[30:32, 10:30, 10:30] = True
    scored = score(reference, prediction, spacing_mm=(2.5, 1, 1))
    assert scored.hd_mm == pytest.approx(2 * 2.5)
    assert scored.hd95_mm == pytest.approx(2 * 2.5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_two_single_voxels_are_k_spacings_apart(axis):
    spacing, k = (3.0, 1.5, 0.7), 5
    reference, prediction = np.zeros((2, 9, 9, 9), bool)
    reference[2, 2, 2] = True
    prediction[tuple(2 + k * (i == axis) for i in range(3))] = True
    scored = score(reference, prediction, spacing)
    for name in ("hd_mm", "hd95_mm", "assd_mm", "masd_mm"):
        assert getattr(scored, name) == pytest.approx(k * spacing[axis])


@pytest.mark.parametrize("t", [1, 3])
def test_box_grown_by_t_is_t_from_inside_and_t_root_3_from_its_corners(cube, bits, t):
    inner, outer = cube(12), cube(12 + 2 * t)
    distances = voxel_distances(bits(outer), bits(inner), (1, 1, 1))
    assert all_mm(distances.from_reference).max() == pytest.approx(t * np.sqrt(3))
    assert all_mm(distances.from_prediction).min() == all_mm(distances.from_prediction).max() == t
    assert hausdorff_mm(distances) == pytest.approx(t * np.sqrt(3))


def test_hd_of_concentric_spheres_approaches_the_gap_as_voxels_shrink():
    errors = []
    for spacing in (4.0, 2.0, 1.0):
        scored = score(sphere(30, spacing), sphere(33, spacing), (spacing,) * 3)
        errors.append(abs(scored.assd_mm - 3.0))
    assert errors == sorted(errors, reverse=True)
    assert scored.hd_mm == pytest.approx(3.46, abs=0.01)
    assert scored.assd_mm == pytest.approx(2.89, abs=0.01)


def test_identical_masks_have_distance_0_and_dice_1(blobs):
    mask, _ = blobs(0, (20, 21, 22))
    scored = score(mask, mask, (1, 2, 3))
    assert (scored.dice, scored.hd_mm, scored.hd95_mm, scored.assd_mm, scored.masd_mm) == (1, 0, 0, 0, 0)
    assert scored.nsd_2mm == 1


def test_disjoint_boxes_are_measured_across_the_gap():
    reference, prediction = np.zeros((2, 1, 1, 20), bool)
    reference[..., 2:4] = prediction[..., 10:12] = True
    scored = score(reference, prediction, (1, 1, 0.5))
    assert scored.dice == 0
    assert scored.hd_mm == pytest.approx(8 * 0.5)
    # nearest distances: 8 - 0 and 7 voxels from the left, 7 and 8 from the right
    assert scored.assd_mm == pytest.approx((8 + 7 + 7 + 8) / 4 * 0.5)


def test_image_edge_counts_as_border(cube):
    full = np.ones((5, 6, 7), bool)
    assert score(full, cube((3, 4, 5), shape=(5, 6, 7)), (1, 1, 1)).hd_mm == pytest.approx(np.sqrt(3))


def test_one_slice_volume_equals_its_2d_image(blobs, bits):
    reference, prediction = blobs(3, (40, 50))
    flat, volume = score(reference, prediction, (2, 3)), score(reference[None], prediction[None], (1, 2, 3))
    assert volume.dice == flat.dice
    # in one slice every voxel is at the image edge, so the volume's surface is the whole mask
    mask, flat_mask = bits(reference[None]), bits(reference)
    sheet = voxel_distances(mask, mask, (1, 2, 3)).from_reference.size
    assert sheet == reference.sum() > voxel_distances(flat_mask, flat_mask, (2, 3)).from_reference.size


def test_assd_is_pooled_and_masd_is_the_mean_of_both_means():
    distances = SurfaceDistances(directed([0, 0, 3]), directed([1]))
    assert assd_mm(distances) == pytest.approx((0 + 0 + 3 + 1) / 4)
    assert masd_mm(distances) == pytest.approx((1 + 1) / 2)


def test_means_and_percentiles_of_a_dual_surface_are_weighted_by_area():
    distances = SurfaceDistances(directed([0, 1, 2], [5, 3, 2]), directed([4], [10]))
    assert assd_mm(distances) == pytest.approx((0 * 5 + 1 * 3 + 2 * 2 + 4 * 10) / 20)
    assert masd_mm(distances) == pytest.approx((7 / 10 + 40 / 10) / 2)
    # shares of the first surface within 0, 1 and 2 mm: 0.5, 0.8, 1
    assert [distances.from_reference.percentile_mm(p) for p in (50, 51, 80, 81, 100)] == [0, 1, 1, 2, 2]
    assert surface_dice(distances, 1) == pytest.approx(8 / 20)


def test_percentile_by_area_takes_exactly_its_share_despite_rounding():
    halves = directed([1] * 8 + [2] * 8, [0.1] * 16)  # eight times 0.1 add up to 0.7999999999999999
    assert [halves.percentile_mm(p) for p in (50, 50.1)] == [1, 2]
    shared = directed([0] * 8 + [2], [0.1] * 8 + [0.8])
    assert [
        DirectedDistances(shared.apart_mm, 8, shared.apart_sizes, sum([0.1] * 8)).percentile_mm(p) for p in (50, 51)
    ] == [0, 2]


def test_hd95_is_the_larger_directed_percentile_linearly_interpolated():
    distances = SurfaceDistances(directed(np.arange(11)), directed(np.zeros(100)))
    assert hausdorff_mm(distances, 95) == pytest.approx(9.5)  # 95 % of the way from 0 to 10
    with pytest.raises(ValueError, match="percentile must be in"):
        hausdorff_mm(distances, 101)


def test_percentile_of_the_union_is_that_of_both_directions_together():
    distances = SurfaceDistances(directed(np.arange(11)), directed(np.zeros(100)))
    everything = np.concatenate([np.arange(11), np.zeros(100)])
    assert hausdorff_mm(distances, 95, "union") == pytest.approx(np.percentile(everything, 95)) == 4.5
    assert hausdorff_mm(distances, 100, "union") == 10
    with pytest.raises(ValueError, match="directions must be one of max, union, got 'mean'"):
        hausdorff_mm(distances, 95, "mean")


@pytest.mark.parametrize("percentile", [1, 37.5, 50, 90, 99.9])
def test_percentiles_with_shared_elements_left_out_are_numpys(percentile):
    rng = np.random.default_rng(0)
    for n_zero in (0, 1, 7, 40):
        values = np.concatenate([np.zeros(n_zero), rng.random(23) + 0.1])
        assert directed(values).percentile_mm(percentile) == pytest.approx(np.percentile(values, percentile))


def test_distances_are_symmetric_in_the_two_maps(blobs):
    reference, prediction = blobs(5, (18, 20, 22))
    there, back = (score(a, b, (2, 1, 0.5)) for a, b in ((reference, prediction), (prediction, reference)))
    for name in ("dice", "hd_mm", "hd95_mm", "assd_mm", "masd_mm", "nsd_2mm"):
        assert getattr(there, name) == pytest.approx(getattr(back, name), abs=1e-12)
    assert there.precision == back.sensitivity


def test_permuted_axes_change_nothing(blobs):
    reference, prediction = blobs(6, (18, 20, 22))
    spacing = (2.0, 1.0, 0.5)
    straight = score(reference, prediction, spacing)
    turned = score(reference.transpose(2, 0, 1), prediction.transpose(2, 0, 1), (0.5, 2.0, 1.0))
    assert turned.metrics() == pytest.approx(straight.metrics(), abs=1e-12)


def test_distances_scale_with_spacing(blobs):
    reference, prediction = blobs(7, (18, 20, 22))
    once, thrice = score(reference, prediction, (1, 1, 1)), score(reference, prediction, (3, 3, 3))
    assert thrice.hd95_mm == pytest.approx(3 * once.hd95_mm)
    assert thrice.assd_mm == pytest.approx(3 * once.assd_mm)


def test_far_blob_is_found_by_a_multi_component_prediction(cube):
    reference = cube(6, shape=(60, 60, 60))
    prediction = reference.copy()
    prediction[0, 0, 0] = True
    # from the stray voxel to the nearest corner (27, 27, 27) of the box
    assert score(reference, prediction, (1, 1, 1)).hd_mm == pytest.approx(27 * np.sqrt(3))


@pytest.mark.parametrize(("shape", "spacing"), [((20, 22, 24), (2.5, 0.8, 1.1)), ((40, 44), (0.7, 1.9))])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_hd_hd95_and_assd_of_blobs_matches_monai(blobs, bits, shape, spacing, seed):
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    reference, prediction = blobs(seed, shape)
    y_pred, y = (torch.tensor(mask)[None, None] for mask in (prediction, reference))
    keywords = {"include_background": True, "spacing": list(spacing)}
    scored = score(reference, prediction, spacing)
    assert scored.hd_mm == pytest.approx(compute_hausdorff_distance(y_pred, y, **keywords).item(), abs=1e-5)
    hd95 = compute_hausdorff_distance(y_pred, y, percentile=95, **keywords).item()
    assert scored.hd95_mm == pytest.approx(hd95, abs=1e-5)
    distances = voxel_distances(bits(reference), bits(prediction), spacing)
    one_way = [compute_average_surface_distance(a, b, **keywords).item() for a, b in ((y_pred, y), (y, y_pred))]
    assert all_mm(distances.from_prediction).mean() == pytest.approx(one_way[0], abs=1e-5)
    assert all_mm(distances.from_reference).mean() == pytest.approx(one_way[1], abs=1e-5)
    assert scored.masd_mm == pytest.approx(sum(one_way) / 2, abs=1e-5)
    # MONAI's symmetric distance is pooled, as ASSD is
    symmetric = compute_average_surface_distance(y_pred, y, symmetric=True, **keywords).item()
    assert scored.assd_mm == pytest.approx(symmetric, abs=1e-5)
