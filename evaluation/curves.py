"""Reliability and overlap by threshold, put together over cases: the content of curves.json."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .case_scores import CaseScores
from .dataset_labels import Label
from .definitions import describe_probabilities
from .label_score import label_key
from .probability_scores import (
    BIN_EDGES,
    CALIBRATION_METRICS,
    MULTICLASS_METRICS,
    THRESHOLDS,
    LabelProbabilityScore,
    MulticlassScore,
    ProbabilityScores,
    Reliability,
    dice_by_threshold,
    iou_by_threshold,
)

CURVES_FORMAT = "segmentation-curves"
FORMAT_VERSION = 1


def make_curves(cases: Sequence[CaseScores], labels: Sequence[Label]) -> dict[str, Any]:
    """Put together the curves of all cases.

    Args:
        cases: Scores of the cases, each with those of its probabilities.
        labels: Labels scored.

    Returns:
        Plain JSON values; None where there is no number, so there is no nan and no inf.
    """
    scored = {case.case: case.probabilities for case in cases if case.probabilities is not None}
    entries = {label.key: _label_entry(label, list(scored.values())) for label in labels}
    return {
        "format": CURVES_FORMAT,
        "format_version": FORMAT_VERSION,
        "n_cases": len(scored),
        "thresholds": THRESHOLDS.tolist(),
        "bin_edges": BIN_EDGES.tolist(),
        "labels": {key: entry for key, entry in entries.items() if entry is not None},
        "multiclass": _multiclass_entry([own.multiclass for own in scored.values() if own.multiclass is not None]),
        "cases": [_case_entry(name, own, labels) for name, own in scored.items()],
        "definitions": describe_probabilities(),
    }


def mean_of_numbers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average over cases.

    Args:
        values: Shape (cases, ...); nan where there is no number.

    Returns:
        Mean, nan without a number, and the number of cases that it is of, both of shape (...).
    """
    n = (~np.isnan(values)).sum(axis=0)
    total = np.nansum(values, axis=0)
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0), n


def _label_entry(label: Label, cases: Sequence[ProbabilityScores]) -> dict[str, Any] | None:
    key = label_key(label.values)
    scores = [own.labels[key] for own in cases if key in own.labels]
    if not scores:
        return None
    return {
        "name": label.name,
        "reliability": _reliability_entry([own.reliability for own in scores]),
        "dice": _threshold_entry(scores, LabelProbabilityScore.dice, dice_by_threshold, len(cases)),
        "iou": _threshold_entry(scores, LabelProbabilityScore.iou, iou_by_threshold, len(cases)),
        "calibration": {
            name: _mean_entry([own.metrics()[name] for own in scores], len(cases)) for name in CALIBRATION_METRICS
        },
    }


def _multiclass_entry(scores: Sequence[MulticlassScore]) -> dict[str, Any] | None:
    if not scores:
        return None
    return {
        "values": {
            name: _mean_entry([own.metrics()[name] for own in scores], len(scores)) for name in MULTICLASS_METRICS
        },
        "reliability": _reliability_entry([own.reliability for own in scores]),
    }


def _case_entry(name: str, scores: ProbabilityScores, labels: Sequence[Label]) -> dict[str, Any]:
    own = {label.key: scores.labels.get(label_key(label.values)) for label in labels}
    return {
        "case": name,
        "source": scores.source,
        "labels": {key: _plain_metrics(one.metrics()) for key, one in own.items() if one is not None},
        "multiclass": _plain_metrics(scores.multiclass.metrics()) if scores.multiclass is not None else None,
    }


def _reliability_entry(several: Sequence[Reliability]) -> dict[str, Any]:
    n, probability, true = np.sum([one.sums for one in several], axis=0)
    some = n > 0
    return {
        "n_voxels": n.astype(np.int64).tolist(),
        "mean_probability": _plain(np.divide(probability, n, out=np.full(n.shape, np.nan), where=some)),
        "fraction_positive": _plain(np.divide(true, n, out=np.full(n.shape, np.nan), where=some)),
    }


def _threshold_entry(
    scores: Sequence[LabelProbabilityScore],
    curve: Callable[[LabelProbabilityScore], np.ndarray],
    of_counts: Callable[..., np.ndarray],
    n_cases: int,
) -> dict[str, Any]:
    mean, n = mean_of_numbers(np.array([curve(own) for own in scores]))
    pooled = of_counts(*np.sum([own.overlap_counts() for own in scores], axis=0))
    return {"mean": _plain(mean), "n": n.tolist(), "n_na": (n_cases - n).tolist(), "pooled": _plain(pooled)}


def _mean_entry(values: Sequence[float], n_cases: int) -> dict[str, Any]:
    mean, n = mean_of_numbers(np.array(values, dtype=float))
    return {"mean": _or_none(float(mean)), "n": int(n), "n_na": n_cases - int(n)}


def _plain_metrics(metrics: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _or_none(value) for name, value in metrics.items()}


def _plain(values: np.ndarray) -> list[float | None]:
    return [_or_none(value) for value in values.tolist()]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
