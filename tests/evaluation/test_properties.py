"""What must hold for any pair of masks, on small arrays that hypothesis draws: the same ones in every run."""

from itertools import permutations

import numpy as np
import pytest

from evaluation import MetricOptions, score

pytest.importorskip("hypothesis", reason="needs hypothesis (pip install -e '.[dev]')")
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

settings.register_profile("evaluation", derandomize=True, deadline=None, max_examples=60, database=None)
claim = settings(settings.get_profile("evaluation"))

DISTANCES = ("hd_mm", "hd50_mm", "hd95_mm", "assd_mm", "masd_mm")
SYMMETRIC = ("dice", "iou", "vs", "voe", *DISTANCES, "nsd_1mm", "nsd_2.5mm")
TOLERANCES = (1.0, 2.5)
OPTIONS = [
    MetricOptions(hd_percentiles=(50, 95), hd_directions=directions, boundary=boundary, nsd_boundary=nsd_boundary)
    for directions, boundary, nsd_boundary in (("max", "voxel", "dual"), ("union", "dual", "voxel"))
]
SIZES = st.sampled_from((0.4, 0.9766, 1.0, 2.5, 3.0))


@st.composite
def shapes(draw, ndim=None):
    """Draw a shape of 2 or 3 axes; axes of length 1 are likely."""
    ndim = ndim or draw(st.sampled_from((2, 3)))
    return tuple(draw(st.one_of(st.just(1), st.integers(2, 7))) for _ in range(ndim))


@st.composite
def masks(draw, shape):
    """Draw a mask: random, full, empty, a single voxel, or a box."""
    kind = draw(st.sampled_from(("random", "random", "box", "voxel", "full", "empty")))
    if kind == "random":
        return draw(arrays.arrays(bool, shape))
    mask = np.full(shape, kind == "full")
    if kind == "voxel":
        mask[tuple(draw(st.integers(0, n - 1)) for n in shape)] = True
    if kind == "box":
        ends = [sorted((draw(st.integers(0, n)), draw(st.integers(0, n)))) for n in shape]
        mask[tuple(slice(*pair) for pair in ends)] = True
    return mask


@st.composite
def pairs(draw, ndim=None):
    """Draw two masks of one shape, a voxel size and definitions."""
    shape = draw(shapes(ndim))
    spacing = tuple(draw(SIZES) for _ in shape)
    return draw(masks(shape)), draw(masks(shape)), spacing, draw(st.sampled_from(OPTIONS))


def metrics(reference, prediction, spacing, options=OPTIONS[0], tolerances=TOLERANCES, label=1):
    """Return the metrics of one label."""
    scores = score(reference, prediction, spacing, [label], nsd_tolerance_mm=tolerances, options=options)
    return scores[label].metrics()


def assert_same(found, expected, names=None):
    names = names or list(expected)
    found, expected = ({name: values[name] for name in names} for values in (found, expected))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@claim
@given(pairs())
def test_swapped_maps_swap_what_has_a_direction_and_nothing_else(pair):
    reference, prediction, spacing, options = pair
    there = metrics(reference, prediction, spacing, options)
    back = metrics(prediction, reference, spacing, options)
    assert_same(back, there, SYMMETRIC)
    turned = {
        "precision": there["sensitivity"],
        "sensitivity": there["precision"],
        "reference_ml": there["prediction_ml"],
        "prediction_ml": there["reference_ml"],
    }
    assert_same(back, turned)
    if reference.any() and prediction.any():
        # (P - R) / R there, (R - P) / P back
        assert (1 + there["rvd"]) * (1 + back["rvd"]) == pytest.approx(1)


@claim
@given(pairs(), st.randoms(use_true_random=False))
def test_permuted_and_mirrored_axes_change_nothing(pair, random):
    reference, prediction, spacing, options = pair
    order = random.choice(list(permutations(range(reference.ndim))))
    flips = tuple(slice(None, None, random.choice((1, -1))) for _ in order)
    turned = [mask.transpose(order)[flips] for mask in (reference, prediction)]
    found = metrics(*turned, tuple(spacing[axis] for axis in order), options)
    assert_same(found, metrics(reference, prediction, spacing, options))


@claim
@given(pairs(), st.sampled_from((0.1, 0.5, 3.0, 1000.0)))
def test_spacing_scales_distances_and_leaves_shares_alone(pair, factor):
    reference, prediction, spacing, options = pair
    once = metrics(reference, prediction, spacing, options)
    scaled = tuple(tolerance * factor for tolerance in TOLERANCES)
    other = metrics(reference, prediction, tuple(size * factor for size in spacing), options, scaled)
    expected = {name: value * factor if name in DISTANCES else value for name, value in once.items()}
    for name in ("reference_ml", "prediction_ml"):
        expected[name] = once[name] * factor**3
    assert list(other.values()) == pytest.approx(list(expected.values()), rel=1e-9, abs=1e-12, nan_ok=True)


@claim
@given(shapes(), st.data())
def test_renumbered_labels_keep_their_scores(shape, data):
    label_maps = [data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 3))) for _ in range(2)]
    numbers = data.draw(st.lists(st.integers(1, 2**31 - 1), min_size=3, max_size=3, unique=True))
    renumber = np.array([0, *numbers], np.int64)
    spacing = tuple(data.draw(SIZES) for _ in shape)
    before = score(*label_maps, spacing, labels=[1, 2, 3])
    after = score(*(renumber[label_map] for label_map in label_maps), spacing, labels=numbers)
    for label, number in zip((1, 2, 3), numbers, strict=True):
        assert after[number].counts == before[label].counts
        assert_same(after[number].metrics(), before[label].metrics())


@claim
@given(shapes(), st.data())
def test_labels_score_alone_as_among_others(shape, data):
    label_maps = [data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 3))) for _ in range(2)]
    spacing = tuple(data.draw(SIZES) for _ in shape)
    together = score(*label_maps, spacing, labels=[1, 2, 3])
    for label in (1, 2, 3):
        alone = score(*(label_map == label for label_map in label_maps), spacing, labels=[1])[1]
        assert alone.counts == together[label].counts
        assert_same(alone.metrics(), together[label].metrics())


def arrangements(array):
    """Yield the same values in other types and memory layouts."""
    for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.int64, np.float32, ">i2", ">u4"):
        yield array.astype(dtype)
    yield np.asfortranarray(array)
    yield np.ascontiguousarray(array[::-1])[::-1]
    yield np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 7, array.dtype)
    wide[..., ::2] = array
    yield wide[..., ::2]
    thick = np.full((2 * array.shape[0] + 3, *array.shape[1:]), 5, array.dtype)
    thick[2 : 2 + 2 * array.shape[0] : 2] = array
    yield thick[2 : 2 + 2 * array.shape[0] : 2]
    framed = np.pad(array, 1, constant_values=3)
    yield framed[(slice(1, -1),) * array.ndim]
    read_only = array.copy()
    read_only.flags.writeable = False
    yield read_only


@claim
@given(shapes(), st.data())
def test_type_and_memory_layout_change_nothing(shape, data):
    reference, prediction = (data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 2))) for _ in range(2))
    spacing = tuple(data.draw(SIZES) for _ in shape)
    expected = score(reference, prediction, spacing, labels=[1, 2])
    kept = reference.copy(), prediction.copy()
    layouts = list(arrangements(reference)), list(arrangements(prediction))
    n = len(layouts[0])
    for number in range(n):
        other = data.draw(st.integers(0, n - 1))
        found = score(layouts[0][number], layouts[1][other], spacing, labels=[1, 2])
        for label in (1, 2):
            assert found[label].counts == expected[label].counts
            assert_same(found[label].metrics(), expected[label].metrics())
    assert (reference == kept[0]).all() and (prediction == kept[1]).all()


@claim
@given(pairs(), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 70)), min_size=3, max_size=3))
def test_background_around_the_masks_changes_nothing_but_specificity(pair, widths):
    # nor where the masks touch the image's edge: that counts as border already
    reference, prediction, spacing, options = pair
    padded = [np.pad(mask, widths[: mask.ndim]) for mask in (reference, prediction)]
    inside, outside = (metrics(*maps, spacing, options) for maps in ((reference, prediction), padded))
    assert_same(outside, inside, [name for name in inside if name != "specificity"])
    if padded[0].size > reference.size and prediction.any() and not reference.all():
        assert outside["specificity"] >= inside["specificity"]


@claim
@given(pairs())
def test_a_crop_that_holds_both_masks_changes_nothing_but_specificity(pair):
    reference, prediction, spacing, options = pair
    there = np.argwhere(reference | prediction)
    if not there.size:
        return
    box = tuple(slice(low, high + 1) for low, high in zip(there.min(0), there.max(0), strict=True))
    whole = metrics(reference, prediction, spacing, options)
    assert_same(metrics(reference[box], prediction[box], spacing, options), whole, set(whole) - {"specificity"})


@claim
@given(pairs())
def test_metrics_keep_their_bounds_and_orders(pair):
    reference, prediction, spacing, options = pair
    tolerances = (0, 0.5, 1, 2.5, 10_000)
    found = metrics(reference, prediction, spacing, options, tolerances)
    if not (reference.any() or prediction.any()):
        assert all(np.isnan(value) for value in found.values())
        return
    nsd = [found[f"nsd_{tolerance}mm"] for tolerance in tolerances]
    assert nsd == sorted(nsd) and nsd[0] >= 0 and nsd[-1] <= 1
    assert found["hd50_mm"] <= found["hd95_mm"] <= found["hd_mm"]
    assert found["assd_mm"] <= found["hd_mm"] * (1 + 1e-12) and found["masd_mm"] <= found["hd_mm"] * (1 + 1e-12)
    assert 0 <= found["iou"] <= found["dice"] <= 1 and 0 <= found["vs"] <= 1
    assert found["dice"] == pytest.approx(2 * found["iou"] / (1 + found["iou"]))
    assert found["dice"] <= found["vs"] + 1e-12
    assert found["voe"] == 1 - found["iou"]
    if not reference.any() or not prediction.any():
        assert {found[name] for name in DISTANCES} == {np.inf} and set(nsd) == {0}
        return
    assert nsd[-1] == 1
    diagonal = np.linalg.norm(np.multiply(reference.shape, spacing))
    assert found["hd_mm"] <= diagonal * (1 + 1e-12)
    assert (found["hd_mm"] == 0) == (found["assd_mm"] == 0) == (found["masd_mm"] == 0)
    if found["dice"] == 1:
        assert found["hd_mm"] == 0


@claim
@given(shapes(), st.data())
def test_hausdorff_distance_keeps_the_triangle_inequality(shape, data):
    spacing = tuple(data.draw(SIZES) for _ in shape)
    a, b, c = (data.draw(masks(shape)) for _ in range(3))
    if not (a.any() and b.any() and c.any()):
        return
    ab, bc, ac = (metrics(*two, spacing)["hd_mm"] for two in ((a, b), (b, c), (a, c)))
    assert ac <= ab + bc + 1e-9


@claim
@given(pairs(ndim=2), SIZES)
def test_overlap_of_an_image_is_that_of_a_volume_of_one_slice_and_its_distances_are_no_smaller(pair, thickness):
    reference, prediction, spacing, options = pair
    flat = metrics(reference, prediction, spacing, options)
    volume = metrics(reference[None], prediction[None], (thickness, *spacing), options)
    overlaps = ("dice", "iou", "precision", "sensitivity", "specificity", "vs", "voe", "rvd")
    assert_same(volume, flat, overlaps)
    if reference.any() or prediction.any():
        # every voxel of a sheet is border, so that a voxel's nearest one can only be nearer
        assert volume["hd_mm"] <= flat["hd_mm"] * (1 + 1e-12)


@claim
@given(pairs(ndim=2), st.integers(2, 4))
def test_overlap_of_repeated_slices_is_that_of_one(pair, times):
    reference, prediction, spacing, _ = pair
    one = metrics(reference, prediction, spacing)
    stacked = metrics(*(np.repeat(mask[None], times, 0) for mask in (reference, prediction)), (1.0, *spacing))
    assert_same(stacked, one, ("dice", "iou", "precision", "sensitivity", "specificity", "vs", "voe", "rvd"))


@claim
@given(shapes(), st.data())
def test_region_scores_as_the_mask_of_its_values(shape, data):
    label_maps = [data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 4))) for _ in range(2)]
    values = tuple(data.draw(st.lists(st.integers(0, 4), min_size=2, max_size=5, unique=True)))
    spacing = tuple(data.draw(SIZES) for _ in shape)
    region = score(*label_maps, spacing, labels=[values])[values]
    united = score(*(np.isin(label_map, values) for label_map in label_maps), spacing, labels=[1])[1]
    assert region.counts == united.counts
    assert_same(region.metrics(), united.metrics())


@claim
@given(shapes(), st.data())
def test_ignored_voxels_count_as_if_they_were_not_there(shape, data):
    reference, prediction = (data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 2))) for _ in range(2))
    ignored = data.draw(arrays.arrays(bool, shape))
    marked = np.where(ignored, 9, reference)
    spacing = tuple(data.draw(SIZES) for _ in shape)
    found = score(marked, prediction, spacing, labels=[1, 2], ignore_label=9)
    cleared = score(
        np.where(ignored, 0, reference), np.where(ignored, 0, prediction), spacing, labels=[1, 2]
    )  # a voxel that is in neither mask has no surface either
    for label in (1, 2):
        keep = ~ignored
        expected = [
            int(np.count_nonzero(keep & a & b))
            for a, b in (
                (reference == label, prediction == label),
                (reference != label, prediction == label),
                (reference == label, prediction != label),
                (reference != label, prediction != label),
            )
        ]
        counts = found[label].counts
        found_counts = [counts.true_positives, counts.false_positives, counts.false_negatives, counts.true_negatives]
        assert found_counts == expected
        metrics_of_label = cleared[label].metrics()
        assert_same(found[label].metrics(), metrics_of_label, [n for n in metrics_of_label if n != "specificity"])


@claim
@given(pairs(), st.sampled_from((0.5, 1.0, 2.0, 5.0)), st.randoms(use_true_random=False))
def test_lesions_and_boundary_iou_know_neither_order_of_axes_nor_which_map_is_the_reference(pair, width_mm, random):
    reference, prediction, spacing, _ = pair
    order = random.choice(list(permutations(range(reference.ndim))))
    options = MetricOptions(also=("lesions", "boundary_iou"), boundary_width_mm=width_mm)
    there = metrics(reference, prediction, spacing, options)
    names = list(there)[-8:]
    turned = metrics(reference.transpose(order), prediction.transpose(order), [spacing[a] for a in order], options)
    assert_same(turned, there, names)
    back = metrics(prediction, reference, spacing, options)
    assert_same(back, there, ["pq", "sq", "rq", names[-1]])
    assert_same(back, {"lesion_fp": there["lesion_fn"], "lesion_fn": there["lesion_fp"]})
    if reference.any() or prediction.any():
        assert 0 <= there["pq"] <= there["rq"] <= 1
        assert 0 <= there[names[-1]] <= 1
        assert (there["lesion_tp"] == 0) == (there["dice"] == 0)
