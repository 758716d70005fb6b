"""Statistics of two methods on the same cases: paired differences, tests, and how sure a claimed win is."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05

_MOST_EXACT = 50
_DIGITS = 12
"""Differences that agree in so many digits after the point tie."""


@dataclass(frozen=True)
class PairedResult:
    """What the same cases say about two methods A and B.

    Attributes:
        n_cases: Cases that both have a value for.
        n_clusters: Patients that these belong to; `n_cases` if each case is one.
        difference: Mean of A - B.
        low: Lower end of its 95 % confidence interval (BCa bootstrap over clusters); nan with fewer than 3 clusters.
        high: Upper end.
        p: Two-sided p of the Wilcoxon signed-rank test of the clusters' mean differences; 1 if none differs.
        correlation: Pearson's, of the two methods' values; nan if one doesn't vary.
        favoured: 1 if the test speaks for A being larger, -1 for B, by the sum of ranks; 0 if for neither. The mean can
            say otherwise where a few cases differ much.
        n_greater: Cases in which A is larger.
        n_less: Cases in which B is larger.
        false_claim: Probability that the method that is ahead on these cases isn't in truth; 0.5 if none is ahead.
    """

    n_cases: int
    n_clusters: int
    difference: float
    low: float
    high: float
    p: float
    correlation: float
    false_claim: float
    favoured: int
    n_greater: int
    n_less: int

    def is_sure(self, p: float) -> bool:
        """Return whether a p, of this test or adjusted, is significant and the test speaks for the better mean."""
        return bool(p < SIGNIFICANCE and self.favoured == np.sign(self.difference))


def compare_pair(
    a: np.ndarray,
    b: np.ndarray,
    clusters: Sequence[Hashable],
    *,
    resamples: int,
    seed: int,
) -> PairedResult:
    """Compare two methods' values of one metric.

    Args:
        a: Values of method A, finite, shape (n,), n >= 1.
        b: Values of method B on the same cases.
        clusters: Patient of each case; cases of one patient are drawn together.
        resamples: Bootstrap samples, >= 100.
        seed: Seed of the bootstrap.

    Returns:
        The comparison.

    Source:
        Efron 1987 (BCa); Wilcoxon 1945; arXiv:2505.04720 (probability of a false claim).
    """
    sums, sizes = cluster_sums(a - b, clusters)
    low, high = _bca_interval(sums, sizes, resamples, seed)
    return PairedResult(
        n_cases=len(a),
        n_clusters=len(sums),
        difference=float((a - b).mean()),
        low=low,
        high=high,
        p=signed_rank_p(sums / sizes),
        correlation=_correlation(a, b),
        false_claim=false_claim_probability(a, b),
        favoured=_favoured(sums / sizes),
        n_greater=int(((a - b).round(_DIGITS) > 0).sum()),
        n_less=int(((a - b).round(_DIGITS) < 0).sum()),
    )


def _favoured(differences: np.ndarray) -> int:
    differences = differences.round(_DIGITS)
    return int(np.sign(np.sign(differences) @ stats.rankdata(np.abs(differences))))


def cluster_sums(values: np.ndarray, clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of the values of each cluster, and how many they are.

    Args:
        values: Shape (n,).
        clusters: Cluster of each value.

    Returns:
        Two arrays (clusters,), clusters in the order of their names.
    """
    _, number = np.unique(np.asarray(clusters), return_inverse=True)
    return np.bincount(number, weights=values), np.bincount(number).astype(float)


def _bca_interval(sums: np.ndarray, sizes: np.ndarray, resamples: int, seed: int) -> tuple[float, float]:
    means = sums / sizes
    if len(sums) < 3:
        return float("nan"), float("nan")
    if np.ptp(means) == 0:
        return float(means[0]), float(means[0])

    def mean(drawn_sums: np.ndarray, drawn_sizes: np.ndarray, axis: int) -> np.ndarray:
        return drawn_sums.sum(axis=axis) / drawn_sizes.sum(axis=axis)

    found = stats.bootstrap(
        (sums, sizes),
        mean,
        n_resamples=resamples,
        paired=True,
        vectorized=True,
        method="BCa",
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def signed_rank_p(differences: np.ndarray, alternative: str = "two-sided") -> float:
    """Return the p of Wilcoxon's signed-rank test; differences of 0 are left out.

    It is exact for up to 50 differences, those of one size sharing their mean rank; beyond, the normal approximation.

    Args:
        differences: Shape (n,).
        alternative: `two-sided`, `greater` or `less`.

    Returns:
        In (0, 1]; 1 if no difference is left.
    """
    differences = differences.round(_DIGITS)
    differences = differences[differences != 0]
    if not differences.size:
        return 1.0
    if differences.size > _MOST_EXACT:
        return float(stats.wilcoxon(differences, alternative=alternative, method="asymptotic", correction=True).pvalue)
    ranks = (2 * stats.rankdata(np.abs(differences))).astype(int)  # twice the ranks, which are whole numbers then
    positive = ranks[differences > 0].sum()
    chances = _signed_rank_distribution(ranks)
    at_least, at_most = chances[positive:].sum(), chances[: positive + 1].sum()
    p = {"greater": at_least, "less": at_most, "two-sided": 2 * min(at_least, at_most)}[alternative]
    return min(1.0, float(p))


def _signed_rank_distribution(ranks: np.ndarray) -> np.ndarray:
    """Return the chance of each sum of ranks with a positive sign if signs are drawn like coins."""
    ways = np.ones(1)
    for rank in ranks.tolist():
        more = np.zeros(ways.size + rank)
        more[: ways.size] = ways
        more[rank:] += ways
        ways = more
    return ways / 2.0**ranks.size


def false_claim_probability(a: np.ndarray, b: np.ndarray) -> float:
    """Return the probability that the method with the better mean on these cases isn't better in truth.

    Args:
        a: Values of one method, shape (n,).
        b: Values of the other on the same cases.

    Returns:
        In [0, 0.5]; nan for fewer than two cases, 0.5 for equal means.

    Source:
        arXiv:2505.04720: Student's t with n - 1 degrees of freedom at -sqrt(n) |mean difference| / s, where
        s^2 = sA^2 + sB^2 - 2 r sA sB is the variance of the differences.
    """
    if len(a) < 2:
        return float("nan")
    differences = a - b
    mean, deviation = abs(differences.mean()), differences.std(ddof=1)
    if mean == 0:
        return 0.5
    return float(stats.t.cdf(-np.sqrt(len(a)) * mean / deviation, len(a) - 1)) if deviation else 0.0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or min(np.ptp(a), np.ptp(b)) < 1e-12:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the number of tests.

    Args:
        p: p-values of one family of tests.

    Returns:
        Adjusted ones in the same order, each at most 1.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()
