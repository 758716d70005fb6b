"""Rankings of methods on the same cases, and how stable they are when other cases are drawn.

Three ways, as challenges use them: `aggregate_then_rank` orders the means; `rank_then_aggregate` orders the mean ranks
within cases; `test_then_rank` orders by the number of methods that are significantly worse.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from .paired_tests import cluster_sums, holm, signed_rank_p

SIGNIFICANCE = 0.05
_RANK_BY_TEST_RESAMPLES = 100
"""Bootstrap samples of rankings by tests, which take a thousand times as long as the others."""


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


def aggregate_then_rank(goodness: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """Rank methods by the mean of their values.

    Args:
        goodness: Values, larger is better, shape (n, m): cases by methods.
        clusters: Patient of each case; not used.

    Returns:
        Ranks, shape (m,).
    """
    del clusters
    return stats.rankdata(-goodness.mean(axis=0))


def rank_then_aggregate(goodness: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """Rank methods by the mean of their ranks within cases.

    Args:
        goodness: Values, larger is better, shape (n, m): cases by methods.
        clusters: Patient of each case; not used.

    Returns:
        Ranks, shape (m,).
    """
    del clusters
    return stats.rankdata(stats.rankdata(-goodness, axis=1).mean(axis=0))


def test_then_rank(goodness: np.ndarray, clusters: Sequence[Hashable]) -> np.ndarray:
    """Rank methods by how many others are significantly worse: one-sided Wilcoxon tests, Holm over all pairs.

    Args:
        goodness: Values, larger is better, shape (n, m): cases by methods.
        clusters: Patient of each case; a test sees each patient's mean difference.

    Returns:
        Ranks, shape (m,).
    """
    n_methods = goodness.shape[1]
    pairs = [(i, j) for i in range(n_methods) for j in range(n_methods) if i != j]
    p = []
    for better, worse in pairs:
        sums, sizes = cluster_sums(goodness[:, better] - goodness[:, worse], clusters)
        p.append(signed_rank_p(sums / sizes, "greater"))
    wins = np.zeros(n_methods)
    for (better, _), adjusted in zip(pairs, holm(p), strict=True):
        wins[better] += adjusted < SIGNIFICANCE
    return stats.rankdata(-wins)


test_then_rank.__test__ = False  # type: ignore[attr-defined]  # its name makes pytest think otherwise

RANKINGS: dict[str, Callable[[np.ndarray, Sequence[Hashable]], np.ndarray]] = {
    "aggregate_then_rank": aggregate_then_rank,
    "rank_then_aggregate": rank_then_aggregate,
    "test_then_rank": test_then_rank,
}


def rank_methods(way: str, goodness: np.ndarray, clusters: Sequence[Hashable], *, resamples: int, seed: int) -> Ranking:
    """Rank methods, and again for bootstrap samples of the patients.

    Args:
        way: One of `RANKINGS`.
        goodness: Values, larger is better, shape (n, m): cases by methods, finite.
        clusters: Patient of each case; cases of one patient are drawn together.
        resamples: Bootstrap samples; rankings by tests take 100 at most.
        seed: Seed of the bootstrap.

    Returns:
        The ranking.

    Source:
        Wiesenfarth et al. 2021, Scientific Reports 11:2369 (challengeR).
    """
    rank = RANKINGS[way]
    ranks = rank(goodness, clusters)
    rng = np.random.default_rng(seed)
    names, number = np.unique(np.asarray(clusters), return_inverse=True)
    members = [np.flatnonzero(number == cluster) for cluster in range(len(names))]
    n_methods = goodness.shape[1]
    shares, taus = np.zeros((n_methods, n_methods)), []
    count = min(resamples, _RANK_BY_TEST_RESAMPLES) if way == "test_then_rank" else resamples
    for _ in range(count):
        drawn = rng.integers(0, len(members), len(members))
        cases = np.concatenate([members[cluster] for cluster in drawn])
        # a patient that is drawn twice is two patients
        labels = np.repeat(np.arange(len(drawn)), [len(members[cluster]) for cluster in drawn])
        again = rank(goodness[cases], labels.tolist())
        shares[np.arange(n_methods), again.astype(int) - 1] += 1 / count
        taus.append(stats.kendalltau(ranks, again).statistic)
    known = [tau for tau in taus if not np.isnan(tau)]
    return Ranking(ranks, shares, float(np.mean(known)) if known else float("nan"))
