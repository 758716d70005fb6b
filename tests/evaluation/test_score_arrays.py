"""The functional interface `evaluation.score`."""

import pickle

import numpy as np
import pytest

from evaluation import MetricOptions, Scores, score


def test_binary_input_has_one_label_whose_metrics_are_attributes(cube):
    scored = score(cube(10), cube(10, shift=1), spacing_mm=(1, 1, 1))
    assert list(scored) == [1]
    assert scored.dice == scored[1].dice == pytest.approx(0.9)
    assert scored.nsd_2mm == scored[1].nsd(2.0)


def test_labels_default_to_all_non_zero_values():
    scores = score(np.array([[1, 5, 0]]), np.array([[1, 0, 7]]), (1, 1))
    assert list(scores) == [1, 5, 7]
    assert scores[5].is_missed and not scores[5].is_spurious
    assert scores[7].is_spurious and not scores[7].is_missed


def test_attribute_of_several_labels_says_to_choose_one():
    scores = score(np.array([[1, 2]]), np.array([[1, 2]]), (1, 1))
    with pytest.raises(AttributeError, match=r"dice: these are scores of 2 labels \(1, 2\)"):
        scores.dice  # noqa: B018
    with pytest.raises(AttributeError, match="no 'dcie'"):
        scores[1].dcie  # noqa: B018


def test_metrics_have_the_names_of_the_table_in_its_order(cube):
    names = list(score(cube(4), cube(4), (1, 1, 1), nsd_tolerance_mm=1.5)[1].metrics())
    expected = "dice iou precision sensitivity specificity vs voe hd_mm hd95_mm assd_mm masd_mm nsd_1.5mm"
    expected += " rvd reference_ml prediction_ml"
    assert names == expected.split()


def test_several_tolerances_share_one_score(cube):
    scored = score(cube(10), cube(10, shift=2), (1, 1, 1), nsd_tolerance_mm=(1, 2, 3))
    assert scored.nsd_1mm < scored.nsd_2mm == scored.nsd_3mm == 1


def test_tolerance_by_label_leaves_other_labels_at_2_mm():
    label_map = np.array([[1, 1, 2, 2]])
    scores = score(label_map, label_map, (1, 1), nsd_tolerance_mm={2: 0.5})
    assert [name for name in scores[1].metrics() if name.startswith("nsd")] == ["nsd_2mm"]
    assert [name for name in scores[2].metrics() if name.startswith("nsd")] == ["nsd_0.5mm"]


def test_scores_survive_pickling(cube):
    scores = score(cube(4), cube(4, shift=1), (1, 1, 1))
    assert dict(pickle.loads(pickle.dumps(scores))) == dict(scores)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint64, np.float32])
def test_label_type_changes_nothing(cube, dtype):
    reference, prediction = cube(8), cube(8, shift=2)
    expected = score(reference, prediction, (1, 2, 3))[1]
    assert score(reference.astype(dtype), prediction.astype(dtype), (1, 2, 3))[1] == expected


def test_memory_order_changes_nothing(blobs):
    reference, prediction = blobs(2, (12, 14, 16))
    expected = score(reference, prediction, (1, 2, 3))[1].metrics()
    arranged = [
        (np.asfortranarray(reference), prediction),
        (reference, np.asfortranarray(prediction)),
        (np.asfortranarray(reference), np.asfortranarray(prediction)),
        (np.moveaxis(np.moveaxis(reference, 1, 0).copy(), 0, 1), prediction[:, :, ::-1].copy()[:, :, ::-1]),
    ]
    for one, other in arranged:
        assert score(one, other, (1, 2, 3))[1].metrics() == pytest.approx(expected, rel=1e-12)


def test_bytes_of_another_machine_score_the_same(blobs):
    reference, prediction = (mask.astype(np.int16) for mask in blobs(2, (12, 14, 16)))
    swapped = reference.astype(reference.dtype.newbyteorder())
    assert score(swapped, prediction, (1, 2, 3))[1] == score(reference, prediction, (1, 2, 3))[1]


def test_maps_of_different_types_score_like_equal_ones(cube):
    reference, prediction = cube(8), cube(8, shift=2)
    expected = score(reference, prediction, (1, 2, 3))[1]
    assert score(reference.astype(np.int32), prediction.astype(np.uint8), (1, 2, 3))[1] == expected


def test_more_labels_than_fit_a_matrix_score_like_few():
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 5000, (20, 20, 20), dtype=np.int32)
    prediction = np.where(rng.random(reference.shape) < 0.5, reference, 0)
    scores = score(reference, prediction, (1, 1, 1))
    assert len(scores) == len(set(np.unique(reference)) - {0}) > 2048
    for label in (*list(scores)[:3], *list(scores)[-3:]):
        alone = score(reference, prediction, (1, 1, 1), labels=[label])[label]
        assert scores[label].metrics() == pytest.approx(alone.metrics(), nan_ok=True)


def test_options_choose_percentiles_directions_and_surfaces(blobs):
    reference, prediction = blobs(2, (12, 14, 16))
    plain = score(reference, prediction, (1, 2, 3))[1]
    options = MetricOptions(hd_percentiles=(50, 99.5), hd_directions="union", boundary="dual", nsd_boundary="voxel")
    chosen = score(reference, prediction, (1, 2, 3), options=options)[1]
    names = [name for name in chosen.metrics() if name.startswith("hd")]
    assert names == ["hd_mm", "hd50_mm", "hd99.5_mm"]
    assert chosen.hd(50) == chosen.hd50_mm <= chosen.hd(99.5) <= chosen.hd(100) == chosen.hd_mm
    assert chosen.dice == plain.dice
    assert chosen.nsd_2mm != plain.nsd_2mm and chosen.assd_mm != plain.assd_mm


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hd_percentiles": (0,)}, "hd_percentiles must be > 0 and < 100, got 0"),
        ({"hd_percentiles": (100,)}, "the maximum is always there as hd_mm"),
        ({"hd_directions": "mean"}, "hd_directions must be one of max, union, got 'mean'"),
        ({"boundary": "mesh"}, "boundary must be one of voxel, dual, got 'mesh'"),
        ({"nsd_boundary": ""}, "nsd_boundary must be one of voxel, dual, got ''"),
    ],
)
def test_bad_options_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MetricOptions(**wrong)


def test_large_label_values_score_like_small_ones(cube):
    reference, prediction = cube(8).astype(np.int32), cube(8, shift=2).astype(np.int32)
    expected = score(reference, prediction, (1, 1, 1))[1]
    scores = score(reference * 2_000_000_000, prediction * 2_000_000_000, (1, 1, 1))
    assert list(scores) == [2_000_000_000]
    assert scores[2_000_000_000] == expected
    assert np.isnan(score(reference * 70_000, prediction * 70_000, (1, 1, 1), labels=[3])[3].dice)


def test_background_is_scored_when_asked(cube):
    reference, prediction = cube(8), cube(8, shift=2)
    scores = score(reference, prediction, (1, 1, 1), labels=[0, 1])
    inverted = score(~reference, ~prediction, (1, 1, 1))
    assert scores[0] == inverted[1]


def test_ignored_voxels_are_left_out():
    reference = np.array([[1, 1, 0, 0, 9, 9]])
    prediction = np.array([[1, 1, 0, 0, 1, 0]])
    scored = score(reference, prediction, (1, 1), labels=[0, 1], ignore_label=9)
    assert scored[1].dice == 1 and scored[1].hd_mm == 0
    assert scored[1].counts.true_negatives == 2
    assert scored[0].counts.reference_voxels == 2


def test_label_0_can_be_ignored():
    reference, prediction = np.array([[0, 1, 1, 3], [0, 1, 2, 3]]), np.array([[0, 1, 1, 5], [0, 1, 1, 3]])
    scored = score(reference, prediction, (1, 1), labels=[1], ignore_label=0)[1]
    assert (scored.counts.true_positives, scored.counts.false_positives, scored.counts.true_negatives) == (3, 1, 2)


def test_labels_as_lists_are_regions():
    label_map = np.array([[1, 2, 0, 3]])
    assert score(label_map, label_map, (1, 1), labels=[[1, 2]])[1, 2].dice == 1


def test_huge_tolerance_accepts_everything(cube):
    assert score(cube(6), cube(6, shift=3), (1, 1, 1), nsd_tolerance_mm=1e200)[1].nsd(1e200) == 1


def test_repeated_percentiles_are_one_metric():
    assert MetricOptions(hd_percentiles=(95, 95.0, 99)).hd_percentiles == (95, 99)


@pytest.mark.parametrize("ignored", [-1, 2**31, 2**64])
def test_impossible_ignore_label_is_refused(ignored):
    with pytest.raises(ValueError, match="ignore_label must be an integer >= 0 and < 2"):
        score(np.zeros((2, 2)), np.zeros((2, 2)), (1, 1), ignore_label=ignored)


@pytest.mark.parametrize("labels", [1, "liver"])
def test_labels_that_are_no_list_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be a list of labels, got"):
        score(np.zeros((2, 2)), np.zeros((2, 2)), (1, 1), labels=labels)


@pytest.mark.parametrize(
    ("reference", "prediction", "spacing", "message"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), (1, 1), r"one shape, got \(2, 3\) and \(3, 2\)"),
        (np.zeros(3), np.zeros(3), (1,), r"must be \(D, H, W\) or \(H, W\), got shape \(3,\)"),
        (np.zeros((2, 3)), np.zeros((2, 3)), (1, 1, 1), "spacing_mm must be 2 numbers > 0"),
        (np.zeros((2, 3)), np.zeros((2, 3)), (1, 0), "spacing_mm must be 2 numbers > 0"),
        (np.full((2, 3), 0.5), np.zeros((2, 3)), (1, 1), "reference: label values must be integers, got 0.5"),
        (np.zeros((2, 3)), np.full((2, 3), np.nan), (1, 1), "prediction: label values must be integers, got nan"),
        (np.zeros((2, 3)), np.full((2, 3), np.inf), (1, 1), "prediction: label values must be integers, got inf"),
        (np.zeros((2, 3), int), np.full((2, 3), -1), (1, 1), "prediction: label values must be in"),
        (np.zeros((2, 0)), np.zeros((2, 0)), (1, 1), "at least one voxel"),
        (np.array([["a"]]), np.zeros((1, 1)), (1, 1), "reference: labels must be integers"),
        (np.array(1.0), np.array(1.0), (), r"got shape \(\)"),
        (np.full((1, 2), 2**31, np.float32), np.zeros((1, 2)), (1, 1), "reference: label values must be in"),
    ],
)
def test_bad_input_is_refused_with_what_is_needed(reference, prediction, spacing, message):
    with pytest.raises(ValueError, match=message):
        score(reference, prediction, spacing)


@pytest.mark.parametrize("labels", [[-1], [()], [(1, 1)], [1.5], ["liver"], [2**31], [2**64]])
def test_bad_labels_are_refused(labels):
    with pytest.raises(ValueError, match="a label must be an integer >= 0"):
        score(np.zeros((2, 2)), np.zeros((2, 2)), (1, 1), labels=labels)


def test_nothing_in_either_map_is_not_applicable_not_a_crash():
    empty = np.zeros((4, 4, 4), bool)
    scored = score(empty, empty, (1, 1, 1))
    assert isinstance(scored, Scores)
    assert all(np.isnan(value) for value in scored[1].metrics().values())


def test_example_in_the_docstring_runs():
    import doctest

    from evaluation import scoring

    assert doctest.testmod(scoring).failed == 0
