"""Scores of probabilities in memory, against scikit-learn and against numbers worked out by hand."""

import math
import tracemalloc

import numpy as np
import pytest

from evaluation import calibration, score_probabilities
from evaluation.engine.probability_counts import N_RANK_BINS
from evaluation.probability_scores import CALIBRATION_METRICS, THRESHOLDS, ProbabilityScores

CLIP = 1e-7


def softmax(logits):
    return exact_softmax(logits).astype(np.float32)


def exact_softmax(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(0))
    return powers / powers.sum(0)


def test_surest_error_of_the_distribution_costs_the_clipped_logarithm():
    whole = score_probabilities(np.array([[1, 0]]), np.array([[[1.0, 1.0]], [[0.0, 0.0]]])).multiclass
    assert whole.cross_entropy == pytest.approx(-math.log(1e-7) / 2, rel=1e-6)
    assert whole.brier == (1**2 + 1**2) / 2 and whole.ece == 0.5


@pytest.fixture
def image():
    """Return a reference with labels 0 to 3 and logits (4, D, H, W) that agree with it more or less."""
    rng = np.random.default_rng(0)
    reference = rng.choice(4, (20, 21, 22), p=[0.7, 0.2, 0.07, 0.03]).astype(np.uint8)
    logits = rng.normal(0, 4, (4, *reference.shape)).astype(np.float32)
    np.put_along_axis(logits, reference[None].astype(int), rng.normal(4, 4, (1, *reference.shape)), axis=0)
    return reference, logits


def expected(truth, p):
    """Return the metrics of one label as scikit-learn has them, and the calibration error as it is defined."""
    from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

    truth, p = truth.ravel(), p.ravel().astype(np.float64)
    bins = np.minimum((p * 15).astype(int), 14)
    gaps = [abs(p[bins == b].mean() - truth[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return {
        "cross_entropy": log_loss(truth, np.clip(p, CLIP, 1 - CLIP), labels=[0, 1]),
        "brier": brier_score_loss(truth, p),
        "ece": sum(gaps),
        "auroc": roc_auc_score(truth, p),
        "ap": average_precision_score(truth, p),
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_match_scikit_learn(image, dtype):
    reference, logits = image
    p = softmax(logits).astype(dtype)
    scores = score_probabilities(reference, p)
    assert list(scores.labels) == [1, 2, 3]
    for label, own in scores.labels.items():
        assert own.metrics() == pytest.approx(expected(reference == label, p[label]), abs=1e-6)


@pytest.mark.parametrize("logits_too", [False, True])
def test_whole_distribution_matches_scikit_learn(image, logits_too):
    from sklearn.metrics import log_loss

    reference, logits = image
    logits /= 2  # so that none is clipped
    p = exact_softmax(logits)
    scores = score_probabilities(reference, logits if logits_too else p, logits=logits_too)
    flat = p.reshape(4, -1).T
    assert scores.multiclass.cross_entropy == pytest.approx(
        log_loss(reference.ravel(), flat, labels=range(4)), abs=1e-6
    )
    hot = np.eye(4)[reference.ravel()]
    assert scores.multiclass.brier == pytest.approx(((flat - hot) ** 2).sum(1).mean(), abs=1e-6)
    top, bins = flat.max(1), np.minimum((flat.max(1) * 15).astype(int), 14)
    hits = flat.argmax(1) == reference.ravel()
    ece = sum(abs(top[bins == b].sum() - hits[bins == b].sum()) for b in range(15)) / len(top)
    assert scores.multiclass.ece == pytest.approx(ece, abs=1e-6)


def test_logits_score_as_their_probabilities(image):
    reference, logits = image
    by_logits = score_probabilities(reference, logits * 30, logits=True)  # exp of these overflows a float32
    by_probabilities = score_probabilities(reference, softmax(logits * 30))
    assert by_logits.source == "logits"
    for label, own in by_logits.labels.items():
        assert own.metrics() == pytest.approx(by_probabilities.labels[label].metrics(), abs=1e-6)
    assert by_logits.multiclass.metrics() == pytest.approx(by_probabilities.multiclass.metrics(), abs=1e-6)


def test_logits_of_regions_score_as_their_probabilities(image):
    reference, logits = image
    with np.errstate(over="ignore"):
        p = (1 / (1 + np.exp(-logits[1:].astype(float)))).astype(np.float32)
    regions = [(1, 2, 3), (2, 3), 3]
    by_logits = score_probabilities(reference, logits[1:], regions=regions, logits=True)
    by_probabilities = score_probabilities(reference, p, regions=regions)
    assert list(by_logits.labels) == regions and by_logits.multiclass is None
    for channel, region in enumerate(regions):
        truth = np.isin(reference, region)
        assert by_logits.labels[region].metrics() == pytest.approx(expected(truth, p[channel]), abs=1e-6)
        assert by_probabilities.labels[region].metrics() == pytest.approx(expected(truth, p[channel]), abs=1e-6)


def test_region_of_exclusive_labels_has_the_sum_of_their_probabilities(image):
    reference, logits = image
    p = softmax(logits)
    scores = score_probabilities(reference, p, labels=[(1, 3)])
    assert scores.labels[1, 3].metrics() == pytest.approx(expected(np.isin(reference, (1, 3)), p[1] + p[3]), abs=1e-6)


def test_ranks_of_many_voxels_match_scikit_learn(monkeypatch):
    """Large images are ranked by histogram: millions of voxels, half of them within 1e-4 of 0 or 1."""
    monkeypatch.setattr(calibration, "_is_sorted", lambda *_: False)
    rng = np.random.default_rng(0)
    truth = rng.random((100, 200, 100)) < 0.05
    logit = rng.normal(np.where(truth, 5, -9), 4).astype(np.float32)
    p = (1 / (1 + np.exp(-logit.astype(float)))).astype(np.float32)
    scores = score_probabilities(truth.astype(np.uint8), np.stack([1 - p, p]))
    wanted = expected(truth, p)
    assert 0.9 < wanted["auroc"] < 0.999
    assert scores.labels[1].metrics() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_ranks_of_a_small_lesion_in_a_large_image_match_scikit_learn(monkeypatch, seed):
    monkeypatch.setattr(calibration, "_is_sorted", lambda *_: False)
    rng = np.random.default_rng(seed)
    truth = np.zeros((100, 200, 100), bool)
    truth[50:54, 50:55, 50:55] = True
    logit = rng.normal(np.where(truth, 3, -7), 3)
    p = (1 / (1 + np.exp(-logit))).astype(np.float32)
    own = score_probabilities(truth.astype(np.uint8), np.stack([1 - p, p])).labels[1].metrics()
    assert own == pytest.approx(expected(truth, p), abs=1e-6)


def test_histogram_keeps_float16_values_apart(image, monkeypatch):
    reference, logits = image
    p = softmax(logits).astype(np.float16)
    by_sorting = score_probabilities(reference, p)
    monkeypatch.setattr(calibration, "_is_sorted", lambda *_: False)
    by_counting = score_probabilities(reference, p)
    for label, own in by_sorting.labels.items():
        assert own.metrics() == pytest.approx(by_counting.labels[label].metrics(), rel=1e-12)


def test_two_by_two_by_hand():
    p = np.array([[0.9, 0.6], [0.4, 0.1]])
    own = score_probabilities(np.array([[1, 0], [1, 0]]), np.stack([1 - p, p])).labels[1]
    # pairs of a true and a false voxel: .9 > .6, .9 > .1, .4 > .1 in order, .4 < .6 not
    assert own.auroc == 3 / 4
    # precision is 1 at the first true voxel and 2/3 at the second
    assert own.ap == pytest.approx((1 + 2 / 3) / 2)
    assert own.brier == pytest.approx((0.1**2 + 0.6**2 + 0.6**2 + 0.1**2) / 4)
    assert own.cross_entropy == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.4) + math.log(0.9)) / 4)
    assert own.ece == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)  # each has a bin of its own


def test_ties_count_half():
    own = score_probabilities(np.array([[1, 0, 0, 1]]), np.full((2, 1, 4), 0.5)).labels[1]
    assert own.auroc == own.ap == 0.5


def test_sure_errors_cost_the_clipped_logarithm():
    own = score_probabilities(np.array([[1, 0]]), np.array([[[1.0, 0.0]], [[0.0, 1.0]]])).labels[1]
    assert own.cross_entropy == pytest.approx(-math.log(1e-7))
    assert (own.brier, own.ece, own.auroc) == (1, 1, 0)


@pytest.mark.parametrize("value", [0, 1])
def test_areas_are_nan_where_one_class_is_missing(value):
    p = np.random.default_rng(0).random((5, 5))
    metrics = score_probabilities(np.full((5, 5), value), np.stack([1 - p, p])).labels[1].metrics()
    assert math.isnan(metrics["auroc"]) and math.isnan(metrics["ap"])
    assert all(math.isfinite(metrics[name]) for name in ("cross_entropy", "brier", "ece"))


def test_ignored_voxels_count_nowhere(image):
    reference, logits = image
    p = softmax(logits)
    marked = reference.copy()
    marked[:10] = 9
    cropped = score_probabilities(reference[10:], p[:, 10:])
    ignoring = score_probabilities(marked, p, ignore_label=9)
    for label, own in ignoring.labels.items():
        assert own.metrics() == pytest.approx(cropped.labels[label].metrics(), rel=1e-12)
        np.testing.assert_array_equal(own.by_threshold, cropped.labels[label].by_threshold)
    assert ignoring.multiclass.metrics() == pytest.approx(cropped.multiclass.metrics(), rel=1e-12)
    nothing = score_probabilities(np.full_like(reference, 9), p, ignore_label=9)
    assert all(math.isnan(value) for value in nothing.labels[1].metrics().values())
    assert math.isnan(nothing.multiclass.brier)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_overlap_by_threshold_is_that_of_the_masks(dtype):
    rng = np.random.default_rng(0)
    reference = (rng.random((30, 40)) < 0.3).astype(np.uint8)
    on_the_grid = rng.integers(0, 201, reference.shape) / 200
    p = np.where(rng.random(reference.shape) < 0.5, on_the_grid, rng.random(reference.shape)).astype(dtype)
    own = score_probabilities(reference, np.stack([1 - p, p])).labels[1]
    for threshold, dice, iou in zip(THRESHOLDS, own.dice(), own.iou(), strict=True):
        mask = p.astype(np.float32).astype(np.float64) >= threshold
        both, either = (mask & (reference == 1)).sum(), (mask | (reference == 1)).sum()
        assert (dice, iou) == (2 * both / (both + either), both / either)


def test_overlap_of_two_empty_masks_is_not_applicable():
    p = np.full((4, 4), 0.3)
    dice = score_probabilities(np.zeros((4, 4), int), np.stack([1 - p, p])).labels[1].dice()
    assert (dice[THRESHOLDS <= 0.3] == 0).all() and np.isnan(dice[THRESHOLDS > 0.301]).all()


def test_scores_survive_being_written_down(image):
    scores = score_probabilities(image[0], softmax(image[1]), labels=[1, (2, 3)])
    again = ProbabilityScores.from_plain(scores.to_plain())
    assert list(again.labels) == [1, (2, 3)]
    assert again.labels[2, 3].metrics() == scores.labels[2, 3].metrics()
    assert again.multiclass.metrics() == scores.multiclass.metrics()
    assert tuple(again.labels[1].metrics()) == CALIBRATION_METRICS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"probabilities": p * 1.01}, r"must be in \[0, 1\], got"),
        (lambda p: {"probabilities": p - 0.5}, r"are these logits\?"),
        (lambda p: {"probabilities": p[:, :-1]}, "for a reference of shape"),
        (lambda p: {"probabilities": p[:1]}, "a channel for the background and for each label, got 1"),
        (lambda p: {"labels": [4]}, "label 4 must have a channel, got 4 channels for labels 0 to 3"),
        (lambda p: {"regions": [1, 2]}, "each channel must be of one region, got 4 for 2"),
        (lambda p: {"regions": [1, 2, 3, (1, 2)], "labels": [(1, 3)]}, r"label 1\+3 must be a region with a channel"),
        (lambda p: {"probabilities": p * np.nan}, "must be numbers, got nan"),
        (lambda p: {"probabilities": p * np.inf, "logits": True}, "largest logit of each voxel must be finite"),
    ],
)
def test_bad_input_is_refused(image, change, message):
    p = np.maximum(softmax(image[1]), 1e-3)
    p[0, 0, 0, 0] = 1
    arguments = {"probabilities": p} | change(p)
    with pytest.raises(ValueError, match=message):
        score_probabilities(image[0], **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [-1]}, "a label must be an integer >= 0"),
        ({"labels": [1.5]}, "a label must be an integer >= 0"),
        ({"labels": [math.inf]}, "a label must be an integer >= 0"),
        ({"labels": [()]}, "a label must be an integer >= 0"),
        ({"labels": [(1, 1)]}, "a tuple of different ones"),
        ({"labels": [2**31]}, r"< 2\*\*31"),
        ({"labels": 1}, "labels must be a list of labels, got 1"),
        ({"labels": "12"}, "labels must be a list of labels, got '12'"),
        ({"regions": [1, 1, 2, 3]}, "a region of its own, got 1, 1, 2, 3"),
        ({"regions": [(1, 2), (2, 1), 2, 3]}, "a region of its own"),
        ({"regions": [1, 2, 3, -1]}, "a label must be an integer >= 0"),
        ({"ignore_label": -1}, "ignore_label must be an integer >= 0"),
        ({"ignore_label": 2**33}, "ignore_label must be an integer >= 0"),
        ({"ignore_label": 1.5}, "ignore_label must be an integer >= 0"),
        ({"dtype": object}, "must be real numbers, got values of type object"),
        ({"dtype": str}, "must be real numbers, got values of type <U"),
        ({"dtype": complex}, "must be real numbers, got values of type complex128"),
    ],
)
def test_labels_that_score_refuses_are_refused(arguments, message):
    p = np.full((4, 1, 2), 0.25).astype(arguments.pop("dtype", float))
    with pytest.raises(ValueError, match=message):
        score_probabilities(np.array([[0, 1]]), p, **arguments)


def test_region_may_be_given_as_a_list():
    p = np.full((3, 1, 2), 1 / 3)
    scores = score_probabilities(np.array([[0, 1]]), p, labels=[[1, 2], np.int64(1)])
    assert list(scores.labels) == [(1, 2), 1]


def test_image_is_sorted_where_that_takes_no_more_memory_than_counting():
    assert calibration._is_sorted(3 * N_RANK_BINS, 117) and not calibration._is_sorted(3 * N_RANK_BINS + 1, 117)
    assert 6_400_000 < 3 * N_RANK_BINS < 6_450_000  # what the definition of `ranks` says
    assert calibration._is_sorted(1 << 24, 1) and not calibration._is_sorted(1 << 24, 2)


@pytest.mark.parametrize("labels", [None, [1, (2, 3), 39]])
def test_many_labels_take_no_more_memory_than_some(monkeypatch, labels):
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 40, (6, 8, 10))
    logits = rng.normal(0, 3, (40, *reference.shape)).astype(np.float32)
    monkeypatch.setattr(calibration, "_is_sorted", lambda *_: False)
    monkeypatch.setattr(calibration, "MOST_RANK_BYTES", 1 << 40)
    expected = score_probabilities(reference, logits, labels, logits=True)
    monkeypatch.setattr(calibration, "MOST_RANK_BYTES", 2 * 12 * N_RANK_BINS)
    tracemalloc.start()
    scores = score_probabilities(reference, logits, labels, logits=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 12 * N_RANK_BINS
    assert list(scores.labels) == list(expected.labels)
    for label, own in expected.labels.items():
        assert scores.labels[label].metrics() == own.metrics()
    assert scores.multiclass.metrics() == expected.multiclass.metrics()


def test_rounding_just_outside_0_and_1_is_accepted():
    p = np.array([[1.0005, -0.0005]])
    own = score_probabilities(np.array([[1, 0]]), np.stack([1 - p, p])).labels[1]
    assert (own.brier, own.auroc) == (0, 1)
