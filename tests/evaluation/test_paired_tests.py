"""Paired statistics: cases worked by hand, and agreement with SciPy's own functions."""

import itertools

import numpy as np
import pytest
from scipy import stats

from evaluation.paired_tests import cluster_sums, compare_pair, false_claim_probability, holm, signed_rank_p

CASES = [f"case_{number}" for number in range(20)]


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    a = rng.normal(0.8, 0.05, 20)
    return a, a - rng.normal(0.02, 0.03, 20)


def test_interval_without_patients_is_scipys_bca_of_the_mean(pair):
    found = compare_pair(*pair, CASES, resamples=500, seed=3)
    order = np.argsort(CASES)  # clusters are taken in the order of their names
    expected = stats.bootstrap(
        ((pair[0] - pair[1])[order],), np.mean, n_resamples=500, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.low < found.difference < found.high
    assert (found.n_cases, found.n_clusters) == (20, 20)


def test_patients_with_several_cases_widen_the_interval(pair):
    a, b = (np.repeat(values[:10], 2) for values in pair)  # two equal cases of each of ten patients
    alone = compare_pair(a, b, CASES, resamples=1000, seed=0)
    together = compare_pair(a, b, [f"patient_{number // 2}" for number in range(20)], resamples=1000, seed=0)
    assert together.n_clusters == 10
    assert together.difference == alone.difference
    assert together.high - together.low > 1.2 * (alone.high - alone.low)
    assert together.p > alone.p


def test_cluster_sums_follow_the_names():
    sums, sizes = cluster_sums(np.array([1.0, 2, 4, 8]), ["b", "a", "b", "c"])
    assert sums.tolist() == [2, 5, 8]
    assert sizes.tolist() == [1, 2, 1]


def test_equal_methods_have_an_interval_of_nothing_and_p_1(pair):
    found = compare_pair(pair[0], pair[0], CASES, resamples=100, seed=0)
    assert (found.difference, found.low, found.high, found.p, found.false_claim) == (0, 0, 0, 1, 0.5)
    assert found.correlation == pytest.approx(1)


def test_two_patients_are_too_few_for_an_interval():
    found = compare_pair(np.array([1.0, 2.0]), np.array([0.5, 1.0]), ["a", "b"], resamples=100, seed=0)
    assert np.isnan(found.low) and np.isnan(found.high)


def test_signed_rank_test_leaves_differences_of_0_out():
    differences = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert signed_rank_p(differences) == 2 / 2**5  # the most extreme of 2^5 signs, and its mirror image
    assert signed_rank_p(np.append(differences, [0.0, 0.0])) == 2 / 2**5
    assert signed_rank_p(np.zeros(4)) == 1


def test_false_claim_is_the_paired_t_tests_one_sided_p(pair):
    expected = stats.ttest_rel(*pair, alternative="greater").pvalue
    assert false_claim_probability(*pair) == pytest.approx(expected)
    assert false_claim_probability(*pair[::-1]) == pytest.approx(expected)  # of whichever is ahead


def test_false_claim_follows_its_formula(pair):
    a, b = pair
    n, r = len(a), np.corrcoef(a, b)[0, 1]
    deviation = np.sqrt(a.var(ddof=1) + b.var(ddof=1) - 2 * a.std(ddof=1) * b.std(ddof=1) * r)
    expected = stats.t.cdf(np.sqrt(n) * (b.mean() - a.mean()) / deviation, n - 1)
    assert false_claim_probability(a, b) == pytest.approx(expected)


def test_holm_multiplies_by_the_tests_that_are_left():
    # ordered: .01 * 3, .02 * 2, .03 * 1, never below the one before
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize("n", [3, 4, 5, 9])
def test_wilcoxon_is_exact_with_ties_too(n):
    # all differences positive and of one size: only one of 2^n draws of signs is as extreme on either side
    assert signed_rank_p(np.ones(n)) == pytest.approx(2 / 2**n)
    assert signed_rank_p(np.ones(n), "greater") == pytest.approx(1 / 2**n)
    assert signed_rank_p(-np.ones(n), "greater") == pytest.approx(1)


def test_wilcoxon_with_ties_is_the_share_of_all_signs():
    differences = np.array([1.0, 1, -1, 2, 2, -3, 4, 0])
    ranks = stats.rankdata(np.abs(differences[differences != 0]))
    observed = ranks[differences[differences != 0] > 0].sum()
    sums = np.array([ranks @ signs for signs in itertools.product((0, 1), repeat=7)])
    assert signed_rank_p(differences, "greater") == pytest.approx((sums >= observed - 1e-9).mean())
    assert signed_rank_p(differences, "less") == pytest.approx((sums <= observed + 1e-9).mean())
