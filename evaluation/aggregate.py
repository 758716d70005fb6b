"""Averages over cases, with the number of values behind each."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .case_scores import CaseScores
from .dataset_labels import Label
from .definitions import is_distance
from .metric_choice import MetricChoice

Statistics = dict[str, float | int | None]


@dataclass(frozen=True)
class Sample:
    """Values of one metric, one a unit: a case, a slice, or a mean over several.

    Attributes:
        values: Shape (n,); nan where the metric doesn't apply, inf where one mask is empty.
        penalised: The same with inf replaced by the diagonal of the image, shape (n,).
        n_missed: How often only the reference held a label.
        n_spurious: How often only the prediction held a label.
    """

    values: np.ndarray
    penalised: np.ndarray
    n_missed: int
    n_spurious: int

    def statistics(self, metric: str) -> Statistics:
        """Return mean, std, median and counts.

        Args:
            metric: Name of the metric; distances have a second mean.

        Returns:
            Statistics of the finite values (None where there are too few), `n` of them, `n_na` values that are nan,
            `n_missed`, `n_spurious`; for distances also `mean_inf_as_diagonal`.
        """
        finite = self.values[np.isfinite(self.values)]
        statistics: Statistics = {
            "mean": _or_none(finite, np.mean),
            "std": _or_none(finite, lambda values: np.std(values, ddof=1), at_least=2),
            "median": _or_none(finite, np.median),
            "n": int(finite.size),
            "n_na": int(np.isnan(self.values).sum()),
            "n_missed": self.n_missed,
            "n_spurious": self.n_spurious,
        }
        if is_distance(metric):
            applicable = self.penalised[~np.isnan(self.penalised)]
            statistics["mean_inf_as_diagonal"] = _or_none(applicable, np.mean)
        return statistics


def _or_none(values: np.ndarray, summary: Callable[[np.ndarray], float], at_least: int = 1) -> float | None:
    return float(summary(values)) if values.size >= at_least else None


def _means_of_finite(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row's finite values; without any, inf if one is inf, else nan."""
    without = np.where(np.isinf(values).any(axis=1), math.inf, math.nan)
    return _means_where(np.isfinite(values), values, without)


def _means_of_numbers(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row's values that aren't nan; nan without any."""
    return _means_where(~np.isnan(values), values, np.full(len(values), math.nan))


def _means_where(counts: np.ndarray, values: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Return the mean of each row's values that count, all rows with the same gaps at once."""
    means = without.copy()
    one_row = len(counts) == 1
    patterns, pattern_of = (counts, np.zeros(1)) if one_row else np.unique(counts, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        if pattern.any():
            rows = pattern_of == number
            means[rows] = np.ascontiguousarray(values[rows][:, pattern]).mean(axis=1)
    return means


class ScoreTable:
    """Scores of all cases, ready to be averaged."""

    def __init__(self, cases: Sequence[CaseScores], labels: Sequence[Label], metrics: MetricChoice) -> None:
        self._cases = cases
        self._labels = labels
        self._metrics = metrics

    def by_label(self, label: Label, *, case_means: bool) -> dict[str, Statistics]:
        """Average one label.

        Args:
            label: The label.
            case_means: Whether a unit is a case (the mean over its slices) rather than an image.

        Returns:
            Statistics by metric.
        """
        names = self._metrics.names(label)
        return {name: self._sample(label, name, case_means).statistics(name) for name in names}

    def foreground(self, *, case_means: bool) -> dict[str, Statistics]:
        """Average over labels in each unit, then over units. Label 0 is left out, and metrics that a label lacks.

        Args:
            case_means: Whether a unit is a case (the mean over its slices) rather than an image.

        Returns:
            Statistics by metric; `n_missed` and `n_spurious` are sums over labels.
        """
        labels = [label for label in self._labels if not label.is_background]
        names = dict.fromkeys(name for label in labels for name in self._metrics.names(label))
        result = {}
        for name in names:
            if not all(name in self._metrics.names(label) for label in labels):
                continue
            samples = [self._sample(label, name, case_means) for label in labels]
            by_unit = np.stack([sample.values for sample in samples], axis=1)
            penalised = np.stack([sample.penalised for sample in samples], axis=1)
            result[name] = Sample(
                _means_of_finite(by_unit),
                _means_of_numbers(penalised),
                sum(sample.n_missed for sample in samples),
                sum(sample.n_spurious for sample in samples),
            ).statistics(name)
        return result

    def _sample(self, label: Label, metric: str, case_means: bool) -> Sample:
        column = self._metrics.names(label).index(metric)
        row = list(self._labels).index(label)
        values = [case.values[label.key][:, column] for case in self._cases]
        penalised = [
            np.where(np.isinf(own), case.diagonals_mm, own) for own, case in zip(values, self._cases, strict=True)
        ]
        if case_means:
            values = [_means_of_finite(own[None]) for own in values]
            penalised = [_means_of_numbers(own[None]) for own in penalised]
        return Sample(
            np.concatenate([np.zeros(0), *values]),
            np.concatenate([np.zeros(0), *penalised]),
            sum(int(case.missed[:, row].sum()) for case in self._cases),
            sum(int(case.spurious[:, row].sum()) for case in self._cases),
        )
