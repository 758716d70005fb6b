"""Compare methods that were scored on the same cases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .definitions import direction, is_distance
from .errors import EvaluationError
from .paired_tests import PairedResult, compare_pair, holm
from .rankings import RANKINGS, Ranking, rank_methods
from .score_files import FOREGROUND, StoredScores

DEFAULT_RESAMPLES = 2000


@dataclass(frozen=True)
class MetricComparison:
    """All methods under one metric of one label.

    Attributes:
        label: Key of the label, or `foreground` for the mean over labels.
        label_name: Its name.
        metric: Name of the metric.
        better: 1 if more is better, -1 if less is.
        cases: Cases that every method has a value for.
        n_patients: Patients that these belong to.
        values: Values, shape (cases, methods); inf replaced.
        n_infinite: How many values were inf, by method.
        pairs: For each pair of methods what the cases say, keys in the order of the methods.
        p_holm: p of each pair, adjusted for all pairs of this metric and label.
        rankings: By way of ranking; none if more of the metric is neither better nor worse.
    """

    label: str
    label_name: str
    metric: str
    better: int
    cases: tuple[str, ...]
    n_patients: int
    values: np.ndarray
    n_infinite: tuple[int, ...]
    pairs: Mapping[tuple[str, str], PairedResult]
    p_holm: Mapping[tuple[str, str], float]
    rankings: Mapping[str, Ranking]


def compare_methods(
    methods: Mapping[str, StoredScores],
    *,
    metrics: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    patients: Mapping[str, str] | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> tuple[list[MetricComparison], list[str]]:
    """Compare methods on the cases that all of them were scored on.

    Args:
        methods: Scores by name of the method, at least two.
        metrics: Metrics to compare; by default Dice, the first percentile of the surface distance, and NSD.
        labels: Keys or names of labels, `foreground` for the mean over labels; by default all of them.
        patients: Patient by case; by default each case is a patient of its own.
        resamples: Bootstrap samples.
        seed: Seed of the bootstrap.

    Returns:
        One comparison a label and metric, and what a reader should know.

    Raises:
        EvaluationError: If there is nothing to compare.
    """
    if len(methods) < 2:
        raise EvaluationError(f"a comparison needs at least two methods, got {', '.join(methods) or 'none'}; add one")
    shared = set.intersection(*(stored.cases for stored in methods.values()))
    if not shared:
        raise EvaluationError("the methods must have cases in common, got none; compare scores of one data set")
    warnings = [
        f"{name}: {len(stored.cases - shared)} cases that another method lacks are left out of the comparison"
        for name, stored in methods.items()
        if stored.cases - shared
    ]
    warnings += check_same_data(methods)
    common = common_keys(list(methods.values()))
    wanted_metrics = choose_metrics(common, metrics)
    names = {label: name for stored in methods.values() for label, name in stored.label_names.items()}
    wanted_labels = choose_labels(common, names, labels)
    comparisons = []
    for label in wanted_labels:
        for metric in wanted_metrics:
            if label != FOREGROUND and (label, metric) not in common:
                continue
            table = _Table.of(methods, label, metric, sorted(shared), common)
            if not table.cases:
                why = table.warnings[0] if table.warnings else "no case has a value by every method"
                warnings.append(f"{names.get(label, label)}, {metric}: left out, {why}")
                continue
            warnings += table.warnings
            comparisons.append(_compare(table, list(methods), names.get(label, label), patients, resamples, seed))
    if not comparisons:
        raise EvaluationError("no label has values by every method, so there is nothing to compare; check the labels")
    return comparisons, list(dict.fromkeys(warnings))


def check_same_data(methods: Mapping[str, StoredScores]) -> list[str]:
    """Refuse methods whose labels mean different things.

    Args:
        methods: Scores by name of the method.

    Returns:
        Warnings: of labels with several names, other definitions, and cases scored against different files.

    Raises:
        EvaluationError: If one method's name of a label is another method's name of another label.
    """
    warnings = []
    (first, own), *others = methods.items()
    for other, stored in others:
        for label, name in own.label_names.items():
            theirs = stored.label_names.get(label, name)
            if theirs != name and theirs in own.label_names.values():
                raise EvaluationError(
                    f"label {label} must be the same for all methods, got {name} by {first} and {theirs} by {other}; "
                    "bring the label maps to one numbering"
                )
            if theirs != name:
                warnings.append(f"label {label} is {name} by {first} and {theirs} by {other}")
        defined = [name for name, text in own.definitions.items() if stored.definitions.get(name, text) != text]
        if defined:
            warnings.append(
                f"{first} and {other} were scored by different definitions of {', '.join(defined)}, so their values "
                "can't be compared; score them alike"
            )
        differing = [case for case, file in own.references.items() if stored.references.get(case, file) != file]
        if differing:
            warnings.append(
                f"{first} and {other}: {len(differing)} cases, {differing[0]} first, were scored against different "
                "reference files"
            )
        shared = own.cases & stored.cases
        otherwise = sorted(case for case in shared if own.unannotated.get(case) != stored.unannotated.get(case))
        if otherwise:
            warnings.append(
                f"{first} and {other}: {len(otherwise)} cases, {otherwise[0]} first, were scored with different labels "
                "left out as unannotated (dataset.json); score them alike"
            )
    return warnings


def common_keys(methods: Sequence[StoredScores]) -> list[tuple[str, str]]:
    """Return each (label, metric) that all methods have values of, in the order of the files."""
    known = list(dict.fromkeys(key for stored in methods for key in stored.values))
    return [key for key in known if all(key in stored.values for stored in methods)]


def choose_metrics(common: Sequence[tuple[str, str]], wanted: Sequence[str] | None) -> list[str]:
    """Return the metrics to show.

    Args:
        common: Each (label, metric) that all methods have.
        wanted: Metrics; None for Dice, the first percentile of the surface distance, and NSD.

    Returns:
        Names of metrics.

    Raises:
        EvaluationError: If a method lacks one.
    """
    there = list(dict.fromkeys(metric for _, metric in common))
    if wanted is None:
        percentiles = [metric for metric in there if metric.startswith("hd") and metric != "hd_mm"]
        nsd = [metric for metric in there if metric.startswith("nsd_")]
        chosen = [metric for metric in ("dice", *(percentiles[:1] or ["hd_mm"]), *nsd) if metric in there]
        return chosen or there
    for metric in wanted:
        if metric not in there:
            raise EvaluationError(f"--metrics: {metric} must be one that all methods have ({', '.join(there)})")
    return list(dict.fromkeys(wanted))


def choose_labels(
    common: Sequence[tuple[str, str]], names: Mapping[str, str], wanted: Sequence[str] | None
) -> list[str]:
    """Return the labels to show.

    Args:
        common: Each (label, metric) that all methods have.
        names: Name of each label.
        wanted: Keys or names, `foreground` for the mean over labels; None for all, with that mean if there are several.

    Returns:
        Keys of labels.

    Raises:
        EvaluationError: If a method lacks one.
    """
    there = list(dict.fromkeys(label for label, _ in common))
    foreground = [label for label in there if label != "0"]
    if wanted is None:
        return [*there, *([FOREGROUND] if len(foreground) > 1 else [])]
    by_name = {names[label]: label for label in there} | {label: label for label in there} | {FOREGROUND: FOREGROUND}
    for label in wanted:
        if label not in by_name:
            raise EvaluationError(f"--labels: {label} must be one that all methods have ({', '.join(by_name)})")
    return list(dict.fromkeys(by_name[label] for label in wanted))


@dataclass(frozen=True)
class _Table:
    """Values of one label and metric that are there for every method, cases by methods."""

    label: str
    metric: str
    cases: tuple[str, ...]
    values: np.ndarray
    n_infinite: tuple[int, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        methods: Mapping[str, StoredScores],
        label: str,
        metric: str,
        cases: Sequence[str],
        common: Sequence[tuple[str, str]],
    ) -> "_Table":
        labels = [label] if label != FOREGROUND else [key for key, name in common if name == metric and key != "0"]
        if label == FOREGROUND and len(labels) < len({key for key, _ in common if key != "0"}):
            return cls(label, metric, (), np.zeros((0, len(methods))), (), ("only some labels have it",))
        by_label = np.array(
            [
                [[stored.penalised[key, metric].get(case, math.nan) for stored in methods.values()] for case in cases]
                for key in labels
            ]
        )  # labels, cases, methods
        n_infinite = [
            sum(stored.n_infinite[key, metric].get(case, 0) for key in labels for case in cases)
            for stored in methods.values()
        ]
        diagonals = {case: mm for stored in methods.values() for case, mm in stored.diagonals_mm.items()}
        replaced, warnings = _finite(by_label, metric, cases, diagonals)
        # a label that one method has no value for is left out for all: else their means would be over different labels
        there = ~np.isnan(replaced).any(axis=2, keepdims=True)
        count = there.sum(axis=0)
        values = np.where(there, replaced, 0).sum(axis=0) / np.maximum(count, 1)
        kept = count[:, 0] > 0
        chosen = tuple(case for case, keep in zip(cases, kept, strict=True) if keep)
        return cls(label, metric, chosen, values[kept], tuple(n_infinite), warnings)


def _finite(
    values: np.ndarray, metric: str, cases: Sequence[str], diagonals_mm: Mapping[str, float]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Replace inf by the image's diagonal, or by the largest distance of all where that isn't known."""
    if not np.isinf(values).any():
        return values, ()
    finite = values[np.isfinite(values)]
    fallback = float(finite.max()) if finite.size else 0.0
    penalty = np.array([diagonals_mm.get(case, fallback) if is_distance(metric) else fallback for case in cases])
    known = all(case in diagonals_mm for case in cases)
    warning = () if known else (f"{metric}: inf counts as {fallback:g}, the largest value: no summary.json says more",)
    return np.where(np.isinf(values), penalty[None, :, None], values), warning


def _compare(
    table: _Table,
    methods: Sequence[str],
    label_name: str,
    patients: Mapping[str, str] | None,
    resamples: int,
    seed: int,
) -> MetricComparison:
    clusters = [patients[case] if patients else case for case in table.cases]
    pairs = {}
    for a, b in combinations(range(len(methods)), 2):
        columns = table.values[:, a], table.values[:, b]
        pairs[methods[a], methods[b]] = compare_pair(*columns, clusters, resamples=resamples, seed=seed)
    adjusted = holm([result.p for result in pairs.values()])
    better = direction(table.metric)
    rankings = {}
    if better:
        for way in RANKINGS:
            rankings[way] = rank_methods(way, better * table.values, clusters, resamples=resamples, seed=seed)
    return MetricComparison(
        label=table.label,
        label_name=label_name,
        metric=table.metric,
        better=better,
        cases=table.cases,
        n_patients=len(set(clusters)),
        values=table.values,
        n_infinite=table.n_infinite,
        pairs=pairs,
        p_holm=dict(zip(pairs, adjusted, strict=True)),
        rankings=rankings,
    )
