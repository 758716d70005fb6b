"""Rankings of methods on the same cases, and how stable they are when other cases are drawn.

Three ways, as challenges use them: `aggregate_then_rank` orders the means; `rank_then_aggregate` orders the mean ranks
within cases; `test_then_rank` orders by the number of methods that are significantly worse.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
from scipy import stats

from .paired_tests import SIGNIFICANCE, cluster_sums, holm, signed_rank_p

RANKINGS = ("aggregate_then_rank", "rank_then_aggregate", "test_then_rank")

_TESTED_RESAMPLES = 100
"""Bootstrap samples of rankings by tests, which take a thousand times as long as the others."""

_DIGITS = 12
"""Means that agree in so many digits after the point tie."""


@dataclass(frozen=True)
class Ranking:
    """A ranking and its stability.

    Attributes:
        ranks: Rank of each method, 1 the best, ties averaged, shape (m,).
        rank_shares: Share of the bootstrap samples in which method i has rank j + 1 (rounded down), shape (m, m).
        tau: Mean Kendall tau-b between the ranking and those of the bootstrap samples; nan where all methods tie.
    """

    ranks: np.ndarray
    rank_shares: np.ndarray
    tau: float


def _ranks_of_means(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the ranks of the weighted means of points (cases, methods), for weights (samples, cases)."""
    means = weights @ points / weights.sum(axis=1, keepdims=True)
    return stats.rankdata(-means.round(_DIGITS), axis=1)


def _ranks_by_tests(goodness: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """Return the ranks by how many methods are significantly worse: one-sided Wilcoxon tests, Holm over all pairs."""
    n_methods = goodness.shape[1]
    pairs = list(permutations(range(n_methods), 2))
    p = []
    for better, worse in pairs:
        sums, sizes = cluster_sums(goodness[:, better] - goodness[:, worse], clusters)
        p.append(signed_rank_p(sums / sizes, "greater"))
    wins = np.zeros(n_methods)
    for (better, _), adjusted in zip(pairs, holm(p), strict=True):
        wins[better] += adjusted < SIGNIFICANCE
    return stats.rankdata(-wins)


def rank_methods(way: str, goodness: np.ndarray, clusters: Sequence[Hashable], *, resamples: int, seed: int) -> Ranking:
    """Rank methods, and again for bootstrap samples of the patients.

    Args:
        way: One of `RANKINGS`.
        goodness: Values, larger is better, shape (n, m): cases by methods, finite.
        clusters: Patient of each case; cases of one patient are drawn together, and a test sees their mean difference.
        resamples: Bootstrap samples; rankings by tests take 100 at most.
        seed: Seed of the bootstrap.

    Returns:
        The ranking.

    Source:
        Wiesenfarth et al. 2021, Scientific Reports 11:2369 (challengeR).
    """
    _, number = np.unique(np.asarray(clusters), return_inverse=True)
    n_clusters = number.max() + 1
    drawn = np.random.default_rng(seed).integers(0, n_clusters, (resamples, n_clusters))
    if way == "test_then_rank":
        ranks = _ranks_by_tests(goodness, clusters)
        samples = np.array([_ranks_by_tests(*_sample(goodness, number, one)) for one in drawn[:_TESTED_RESAMPLES]])
    else:
        points = goodness if way == "aggregate_then_rank" else -stats.rankdata(-goodness, axis=1)
        times = np.stack([np.bincount(one, minlength=n_clusters) for one in drawn])
        ranks = _ranks_of_means(points, np.ones((1, len(points))))[0]
        samples = _ranks_of_means(points, times[:, number].astype(float))
    shares = np.stack([(samples.astype(int) == rank + 1).mean(axis=0) for rank in range(goodness.shape[1])], axis=1)
    tau = _kendall_tau(ranks, samples)
    known = tau[~np.isnan(tau)]
    return Ranking(ranks, shares, float(known.mean()) if known.size else float("nan"))


def _sample(goodness: np.ndarray, number: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the cases of the drawn clusters; a cluster that is drawn twice is two."""
    members = [np.flatnonzero(number == cluster) for cluster in drawn]
    return goodness[np.concatenate(members)], [i for i, cases in enumerate(members) for _ in cases]


def _kendall_tau(ranks: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Return Kendall's tau-b between ranks (m,) and each of some others (samples, m); nan where all tie."""
    first, second = np.array(list(combinations(range(len(ranks)), 2))).T
    own, others = np.sign(ranks[first] - ranks[second]), np.sign(samples[:, first] - samples[:, second])
    with np.errstate(invalid="ignore"):
        return (others @ own) / np.sqrt((own**2).sum() * (others**2).sum(axis=1))
