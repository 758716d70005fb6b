"""The area table: areas that follow from the drawing, symmetries, and agreement with MONAI's table."""

from itertools import permutations, product

import numpy as np
import pytest

from evaluation.contour_table import contour_lengths_mm, surface_areas_mm2
from evaluation.surface import dual_distances, surface_dice

CORNERS = list(product((0, 1), repeat=3))
SPACINGS = [(1, 1, 1), (1, 2, 3), (3, 1, 2), (2.5, 0.9766, 0.9766)]


def code_of(inside):
    return sum(1 << bit for bit, corner in enumerate(CORNERS) if corner in inside)


def test_area_of_one_corner_is_that_of_the_triangle_it_cuts_off():
    # vertices in the middle of three unit edges: equilateral with side sqrt(1/2)
    assert surface_areas_mm2((1, 1, 1))[code_of({(0, 0, 0)})] == pytest.approx(np.sqrt(3) / 4 / 2)


def test_area_of_a_flat_face_is_the_area_of_a_voxel_face():
    areas = surface_areas_mm2((2, 3, 5))
    for axis, area in enumerate((3 * 5, 2 * 5, 2 * 3)):
        assert areas[code_of({corner for corner in CORNERS if corner[axis] == 0})] == pytest.approx(area)


def test_area_of_an_edge_is_a_diagonal_band():
    assert surface_areas_mm2((2, 3, 5))[code_of({(0, 0, 0), (0, 0, 1)})] == pytest.approx(5 * np.hypot(2, 3) / 2)


def test_area_of_a_corner_with_its_three_neighbours_is_a_regular_hexagon():
    code = code_of({(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)})
    assert surface_areas_mm2((1, 1, 1))[code] == pytest.approx(3 * np.sqrt(3) / 2 * 0.5)


def test_empty_and_full_cells_have_no_surface():
    assert surface_areas_mm2((1, 2, 3))[[0, 255]].tolist() == [0, 0]
    assert contour_lengths_mm((1, 2))[[0, 15]].tolist() == [0, 0]


@pytest.mark.parametrize("spacing", SPACINGS)
def test_mask_and_complement_have_the_same_surface(spacing):
    areas = surface_areas_mm2(spacing)
    assert areas == pytest.approx(areas[::-1])


def test_areas_are_the_same_in_all_48_orientations_of_the_cell():
    areas = surface_areas_mm2((1, 1, 1))
    for order, flips in product(permutations(range(3)), product((0, 1), repeat=3)):
        for code in range(256):
            inside = {corner for bit, corner in enumerate(CORNERS) if code >> bit & 1}
            moved = {tuple(corner[order[i]] ^ flips[i] for i in range(3)) for corner in inside}
            assert areas[code_of(moved)] == pytest.approx(areas[code])


def test_contour_lengths_in_2d():
    lengths = contour_lengths_mm((2, 3))  # bit 2*y + x
    assert lengths[0b0001] == pytest.approx(np.hypot(2, 3) / 2)
    assert lengths[0b0011] == pytest.approx(3)  # upper row inside: the contour runs along x
    assert lengths[0b0101] == pytest.approx(2)
    assert lengths[0b1001] == pytest.approx(np.hypot(2, 3))


def test_area_of_a_box_is_that_of_its_faces_with_bevelled_edges(bits):
    box = bits(np.ones((10, 10, 10), bool))
    total = dual_distances(box, box, (1, 1, 1)).from_reference.size
    faces, edges, corners = 6 * 9 * 9, 12 * 9 * np.sqrt(2) / 2, 8 * np.sqrt(3) / 8
    assert total == pytest.approx(faces + edges + corners)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_area_table_matches_monai(spacing):
    utils = pytest.importorskip("monai.metrics.utils")
    expected = np.asarray(utils.create_table_neighbour_code_to_surface_area(spacing)[0])
    mirrored = [int(f"{code:08b}"[::-1], 2) for code in range(256)]  # there the first corner is the highest bit
    assert surface_areas_mm2(spacing) == pytest.approx(expected[mirrored], rel=1e-6)


@pytest.mark.parametrize("spacing", [(1, 1), (0.5, 2), (3, 1)])
def test_length_table_matches_monai(spacing):
    utils = pytest.importorskip("monai.metrics.utils")
    expected = np.asarray(utils.create_table_neighbour_code_to_contour_length(spacing)[0])
    mirrored = [int(f"{code:04b}"[::-1], 2) for code in range(16)]
    assert contour_lengths_mm(spacing) == pytest.approx(expected[mirrored], rel=1e-6)


def test_nsd_of_a_moved_slab_is_0_below_the_shift_and_1_at_it(bits):
    reference, prediction = np.zeros((2, 20, 40, 40), bool)
    reference[5:12], prediction[8:15] = True, True  # fills the image in plane: two flat sheets and a narrow rim
    distances = dual_distances(bits(reference), bits(prediction), (1, 1, 1))
    assert surface_dice(distances, 3) == 1
    # two sheets of 39 x 39 and a rim of about 4 x 39 x 7: what is left is the rim and what lies near it
    assert 0.2 < surface_dice(distances, 2.9) < 0.4


def test_nsd_accepts_a_distance_equal_to_the_tolerance_despite_rounding(bits):
    reference, prediction = np.zeros((2, 9, 9, 9), bool)
    reference[1, 1, 1] = prediction[1, 1, 4] = True  # 3 * 0.1 is 0.30000000000000004
    assert surface_dice(dual_distances(bits(reference), bits(prediction), (0.1, 0.1, 0.1)), 0.3) == 1


@pytest.mark.parametrize("tolerance", [-1, np.nan, np.inf])
def test_nsd_refuses_a_tolerance_that_makes_no_sense(tolerance, cube, bits):
    with pytest.raises(ValueError, match="must be a number >= 0, got"):
        surface_dice(dual_distances(bits(cube(4)), bits(cube(4)), (1, 1, 1)), tolerance)


@pytest.mark.parametrize(("shape", "spacing"), [((20, 22, 24), (2.5, 0.8, 1.1)), ((40, 44), (0.7, 1.9))])
@pytest.mark.parametrize("tolerance", [0.75, 1.6, 3.0])
def test_nsd_of_blobs_matches_monai(blobs, bits, shape, spacing, tolerance):
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_surface_dice

    reference, prediction = (np.pad(mask, 2) for mask in blobs(4, shape))
    masks = [torch.tensor(mask)[None, None] for mask in (prediction, reference)]
    expected = compute_surface_dice(
        *masks, [tolerance], include_background=True, spacing=list(spacing), use_subvoxels=True
    ).item()
    distances = dual_distances(bits(reference), bits(prediction), spacing)
    assert surface_dice(distances, tolerance) == pytest.approx(expected, abs=1e-6)
