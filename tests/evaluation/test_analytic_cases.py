"""Drawings whose answer is known, in every definition of surface and direction; voxels alone are in test_surface.py."""

import math
from itertools import product

import numpy as np
import pytest

from evaluation import MetricOptions, score
from evaluation.surface import dual_distances

DEFINITIONS = [
    MetricOptions(boundary=boundary, nsd_boundary=boundary, hd_directions=directions)
    for boundary, directions in product(("voxel", "dual"), ("max", "union"))
]
every_definition = pytest.mark.parametrize("options", DEFINITIONS, ids=lambda o: f"{o.boundary}-{o.hd_directions}")
BOTH_SURFACES = [MetricOptions(boundary=boundary, nsd_boundary=boundary) for boundary in ("voxel", "dual")]
both_surfaces = pytest.mark.parametrize("options", BOTH_SURFACES, ids=lambda o: o.boundary)


@every_definition
def test_box_of_20_moved_by_3_voxels_is_3_spacings_away(cube, options):
    scored = score(cube(20), cube(20, shift=3), (0.9766,) * 3, options=options)
    assert scored.dice == pytest.approx(17 / 20)  # 17 of 20 layers are shared
    assert scored.iou == pytest.approx(17 / 23)
    assert scored.hd_mm == scored.hd95_mm == pytest.approx(3 * 0.9766) == pytest.approx(2.9298)
    assert scored.vs == 1 and scored.rvd == 0
    assert scored.reference_ml == scored.prediction_ml == pytest.approx(20**3 * 0.9766**3 / 1000)


@every_definition
def test_slab_longer_by_2_slices_of_2_5_mm_is_5_mm_away(cube, options):
    reference = cube((6, 30, 30))
    prediction = reference | np.roll(reference, 2, axis=0)
    scored = score(reference, prediction, (2.5, 1, 1), nsd_tolerance_mm=(4.99, 5), options=options)
    assert scored.hd_mm == scored.hd95_mm == pytest.approx(2 * 2.5)
    assert scored.dice == pytest.approx(2 * 6 / (6 + 8))
    assert scored.rvd == pytest.approx(2 / 6)
    assert scored.nsd(4.99) < scored.nsd(5) == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
@every_definition
def test_two_single_voxels_are_k_spacings_apart_in_every_definition(options, axis):
    spacing, k = (3.0, 1.5, 0.7), 5
    reference, prediction = np.zeros((2, 9, 9, 9), bool)
    reference[2, 2, 2] = True
    prediction[tuple(2 + k * (i == axis) for i in range(3))] = True
    scored = score(reference, prediction, spacing, options=options)
    assert scored.hd_mm == pytest.approx(k * spacing[axis])
    # of a voxel's eight dual nodes four are k and four are k - 1 spacings from the other voxel
    mean = k if options.boundary == "voxel" else k - 0.5
    assert scored.assd_mm == pytest.approx(mean * spacing[axis])
    assert scored.masd_mm == pytest.approx(mean * spacing[axis])
    assert scored.dice == 0 and scored.vs == 1


@pytest.mark.parametrize("t", [1, 3])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 1.1)])
def test_box_grown_by_t_is_t_from_inside_and_t_root_3_from_its_corners_on_the_dual_grid(cube, bits, t, spacing):
    inner, outer = cube(12), cube(12 + 2 * t)
    distances = dual_distances(bits(outer), bits(inner), spacing)
    corner = t * math.sqrt(sum(size**2 for size in spacing))  # t * sqrt(3) voxels if they are cubes
    assert distances.from_reference.percentile_mm(100) == pytest.approx(corner)
    from_inside = distances.from_prediction.apart_mm
    assert from_inside.min() == pytest.approx(t * min(spacing))  # every node lies on a face, t voxels from the outer's
    # the middle of a face is t voxels away, or 6 + t along an axis whose voxels are smaller
    assert from_inside.max() == pytest.approx(min(t * max(spacing), (6 + t) * min(spacing)))
    assert score(outer, inner, spacing).hd_mm == pytest.approx(corner)


def sphere(radius_mm, spacing_mm, size_mm=80):
    axis = (np.arange(round(size_mm / spacing_mm)) + 0.5) * spacing_mm - size_mm / 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    return z**2 + y**2 + x**2 <= radius_mm**2


def test_dual_spheres_have_the_known_distances_and_too_large_an_area(bits):
    """Radii 30 and 33 at 1 mm: no discretisation gives the true 3.0 mm; this one gives 3.46 and 2.57."""
    small, large = sphere(30, 1.0), sphere(33, 1.0)
    scored = score(small, large, (1, 1, 1), options=MetricOptions(boundary="dual"), nsd_tolerance_mm=(2, 3.5))
    assert scored.hd_mm == pytest.approx(math.sqrt(12), abs=0.01)  # 2, 2, 2 voxels
    assert scored.assd_mm == pytest.approx(2.57, abs=0.01)
    assert scored.nsd(3.5) == 1
    area = dual_distances(bits(small), bits(large), (1, 1, 1)).from_reference.size
    assert 1.08 < area / (4 * math.pi * 30**2) < 1.17


def test_sphere_volume_and_dice_approach_the_true_ones_as_voxels_shrink():
    true_ml, true_dice = 4 / 3 * math.pi * 30**3 / 1000, 2 * 30**3 / (30**3 + 33**3)
    errors = []
    for spacing in (4.0, 2.0, 1.0):
        scored = score(sphere(30, spacing), sphere(33, spacing), (spacing,) * 3)
        errors.append((abs(scored.reference_ml / true_ml - 1), abs(scored.dice - true_dice)))
    assert errors[-1] < (0.001, 0.001)
    assert errors[0][0] > errors[-1][0]


@both_surfaces
def test_hd_of_concentric_spheres_approaches_the_gap_in_both_surfaces(options):
    errors = []
    for spacing in (4.0, 2.0, 1.0):
        scored = score(sphere(30, spacing), sphere(33, spacing), (spacing,) * 3, options=options)
        errors.append(abs(scored.masd_mm - 3.0))
        assert abs(scored.hd_mm - 3.0) <= spacing * math.sqrt(3)  # a voxel's diagonal
    assert errors == sorted(errors, reverse=True)


@every_definition
def test_identical_masks_are_perfect_in_every_definition(blobs, options):
    mask, _ = blobs(0, (14, 15, 16))
    scored = score(mask, mask, (1, 2, 3), nsd_tolerance_mm=0, options=options)
    assert (scored.hd_mm, scored.hd95_mm, scored.assd_mm, scored.masd_mm) == (0, 0, 0, 0)
    assert scored.dice == scored.iou == scored.precision == scored.sensitivity == scored.specificity == scored.vs == 1
    assert scored.nsd(0) == 1 and scored.voe == scored.rvd == 0


@every_definition
def test_disjoint_boxes_are_their_shift_apart(options):
    reference, prediction = np.zeros((2, 6, 6, 30), bool)
    reference[1:5, 1:5, 2:5] = prediction[1:5, 1:5, 20:23] = True
    scored = score(reference, prediction, (1, 1, 0.5), nsd_tolerance_mm=(1, 9), options=options)
    assert scored.hd_mm == pytest.approx(18 * 0.5)  # each end is 18 voxels from the other's same end
    assert scored.dice == scored.iou == scored.precision == scored.sensitivity == 0
    assert scored.nsd(1) == 0 and scored.nsd(9) == 1


@every_definition
def test_mask_at_the_edge_of_the_image_scores_like_one_inside(options):
    reference, prediction = np.zeros((2, 12, 13, 14), bool)
    reference[:5, :6, :7], prediction[:5, :6, 2:9] = True, True  # at three of the image's faces
    inside = [np.pad(mask, 3) for mask in (reference, prediction)]
    at_edge = score(reference, prediction, (2, 1, 0.5), options=options)
    assert at_edge.hd_mm == pytest.approx(2 * 0.5)
    expected = score(*inside, (2, 1, 0.5), options=options)
    for name in ("hd_mm", "hd95_mm", "assd_mm", "masd_mm", "nsd_2mm", "dice"):
        assert getattr(at_edge, name) == pytest.approx(getattr(expected, name))


@every_definition
def test_full_image_has_its_faces_as_surface(options):
    full, half = np.ones((10, 8, 6), bool), np.zeros((10, 8, 6), bool)
    half[:5] = True
    same = score(full, full, (1, 1, 1), options=options)
    assert same.dice == same.nsd_2mm == 1 and same.hd_mm == 0
    assert math.isnan(same.specificity)  # there is no voxel to leave alone
    scored = score(full, half, (2, 1, 1), options=options)
    assert scored.hd_mm == pytest.approx(5 * 2)  # from the far face to the cut
    assert (scored.dice, scored.rvd) == (pytest.approx(2 / 3), pytest.approx(-1 / 2))


@both_surfaces
def test_stray_voxel_decides_hd_and_hardly_hd95(cube, options):
    reference = cube(20, shape=(60, 60, 60))
    prediction = reference.copy()
    prediction[0, 30, 30] = True
    scored = score(reference, prediction, (1, 1, 1), options=options)
    assert scored.hd_mm == pytest.approx(20)  # the box begins at 20
    assert scored.hd95_mm == 0
    # one voxel beside a border of 20**3 - 18**3, twice: only its own distance is above 0
    if options.boundary == "voxel":
        n = 20**3 - 18**3
        assert scored.assd_mm == pytest.approx(20 / (2 * n + 1))
        assert scored.masd_mm == pytest.approx(20 / (n + 1) / 2)


def test_one_slice_volume_has_the_overlap_of_its_image_in_every_definition(blobs):
    reference, prediction = blobs(3, (40, 50))
    for options in DEFINITIONS:
        flat = score(reference, prediction, (2, 3), options=options)
        volume = score(reference[None], prediction[None], (5, 2, 3), options=options)
        assert volume.counts == flat.counts
        assert math.isnan(flat.reference_ml) and volume.reference_ml == pytest.approx(reference.sum() * 30 / 1000)


@every_definition
def test_square_of_20_moved_by_3_pixels_in_2d(cube, options):
    reference, prediction = cube(20, shape=(40, 40)), cube(20, shift=3, shape=(40, 40))
    scored = score(reference, prediction, (2.0, 0.9766), nsd_tolerance_mm=(2.9, 2.93), options=options)
    assert scored.dice == pytest.approx(17 / 20)
    assert scored.hd_mm == pytest.approx(3 * 0.9766)
    assert scored.nsd(2.9) < scored.nsd(2.93) == 1
