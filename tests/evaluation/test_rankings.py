"""Rankings by mean, by ranks and by tests, and their stability."""

import numpy as np
import pytest
from scipy import stats

from evaluation.rankings import RANKINGS, _kendall_tau, rank_methods


def by(way, goodness):
    return rank_methods(way, np.asarray(goodness, float), range(len(goodness)), resamples=1, seed=0).ranks.tolist()


def test_one_outlier_turns_the_ranking_by_means_but_not_that_by_ranks():
    goodness = [[0.9, 0.8], [0.9, 0.8], [0.9, 0.8], [0.0, 0.8]]
    assert by("aggregate_then_rank", goodness) == [2, 1]
    assert by("rank_then_aggregate", goodness) == [1, 2]


def test_ties_share_the_mean_of_their_ranks():
    assert by("aggregate_then_rank", [[1, 1, 0]]) == [1.5, 1.5, 3]
    assert by("rank_then_aggregate", [[1, 1, 0], [1, 1, 0]]) == [1.5, 1.5, 3]


def test_ranking_by_tests_counts_significantly_worse_methods():
    rng = np.random.default_rng(0)
    base = rng.normal(0.7, 0.1, 30)
    goodness = np.stack([base + 0.05, base + 0.05 + rng.normal(0, 0.001, 30), base], axis=1)
    assert by("test_then_rank", goodness) == [1.5, 1.5, 3]  # the first two don't differ, both beat the third


@pytest.mark.parametrize("way", RANKINGS)
def test_clear_ranking_is_the_same_in_every_sample(way):
    rng = np.random.default_rng(1)
    base = rng.normal(0.5, 0.05, (25, 1))
    ranking = rank_methods(way, base + np.array([0.2, 0.0, 0.1]), list(range(25)), resamples=100, seed=0)
    assert ranking.ranks.tolist() == [1, 3, 2]
    assert ranking.rank_shares == pytest.approx(np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]]))
    assert ranking.tau == pytest.approx(1)


def test_toss_up_is_first_in_about_half_of_the_samples():
    rng = np.random.default_rng(2)
    ranking = rank_methods("aggregate_then_rank", rng.normal(0, 1, (40, 2)), list(range(40)), resamples=400, seed=0)
    assert ranking.rank_shares.sum(axis=1) == pytest.approx([1, 1])
    assert 0.05 < ranking.rank_shares[0, 0] < 0.95
    assert ranking.tau < 0.95


def test_tau_is_scipys():
    rng = np.random.default_rng(3)
    ranks = stats.rankdata(rng.integers(0, 3, 5))
    samples = stats.rankdata(rng.integers(0, 3, (30, 5)), axis=1)
    expected = [stats.kendalltau(ranks, sample).statistic for sample in samples]
    assert _kendall_tau(ranks, samples) == pytest.approx(expected, nan_ok=True)


def test_cases_of_a_patient_are_drawn_together():
    # one patient of twenty cases decides the mean: in some samples that patient isn't there
    goodness = np.array([[1.0, 0.0]] * 20 + [[0.0, 0.1]] * 5)
    alone = rank_methods("aggregate_then_rank", goodness, list(range(25)), resamples=300, seed=0)
    together = rank_methods("aggregate_then_rank", goodness, ["a"] * 20 + list("bcdef"), resamples=300, seed=0)
    assert alone.rank_shares[0, 0] == pytest.approx(1)
    assert together.rank_shares[0, 0] == pytest.approx(1 - (5 / 6) ** 6, abs=0.08)
