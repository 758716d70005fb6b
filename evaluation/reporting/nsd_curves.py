"""Normalised surface distance at many tolerances, computed from the files that were scored."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..case_log import CaseLog
from ..case_scores import CaseScores
from ..cases import score_cases
from ..dataset_labels import Label
from ..metric_choice import MetricChoice
from ..metric_options import MetricOptions, nsd_name
from ..score_files import FOREGROUND
from .case_tasks import case_tasks
from .inputs import Method

N_TOLERANCES = 21


@dataclass(frozen=True)
class NsdCurves:
    """Values at each tolerance.

    Attributes:
        tolerances_mm: Tolerances in mm, ascending.
        values: By method, then by label: values (cases, tolerances), nan where the label is in neither map.
        warnings: Cases that couldn't be read again.
    """

    tolerances_mm: Sequence[float]
    values: Mapping[str, Mapping[str, np.ndarray]]
    warnings: Sequence[str]

    def mean(self, method: str, label: str) -> np.ndarray:
        """Return the mean over cases at each tolerance.

        Args:
            method: Name of the method.
            label: Key of the label; `foreground` for the mean over labels within each case.

        Returns:
            Shape (tolerances,), nan without any value.
        """
        by_label = self.values[method]
        if label == FOREGROUND:
            foreground = [values for key, values in by_label.items() if key != "0"]
            return _mean(_mean(np.stack(foreground))) if foreground else np.full(len(self.tolerances_mm), math.nan)
        return _mean(by_label[label]) if label in by_label else np.full(len(self.tolerances_mm), math.nan)


def _differs(
    method: Method, scored: Sequence[CaseScores], tolerances_mm: Sequence[float], by_label: Mapping[str, np.ndarray]
) -> bool:
    """Return whether a value isn't what metrics.csv says, at a tolerance that was scored."""
    for label, values in by_label.items():
        for column, tolerance in enumerate(tolerances_mm):
            known = method.stored.values.get((label, nsd_name(tolerance)), {})
            for case, value in zip(scored, values[:, column], strict=True):
                if not np.isclose(value, known.get(case.case, value), rtol=0, atol=1e-6, equal_nan=True):
                    return True
    return False


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean along the first axis, nan left out."""
    there = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(axis=0) / there.sum(axis=0)


def compute_nsd_curves(
    methods: Sequence[Method], largest_mm: float, log_folder: Path, *, workers: int, progress: bool
) -> NsdCurves:
    """Score the files of each method again at many tolerances.

    Args:
        methods: The methods; summary.json names their files.
        largest_mm: Largest tolerance in mm, > 0.
        log_folder: Folder for the finished cases, so that a killed run goes on where it was.
        workers: Number of processes.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The curves.
    """
    tolerances = tuple(np.linspace(0, largest_mm, N_TOLERANCES).round(6).tolist())
    values: dict[str, dict[str, np.ndarray]] = {}
    warnings: list[str] = []
    for number, method in enumerate(methods):
        if method.lacks_dataset:
            path = method.summary["options"]["dataset_json"]
            warnings.append(f"NSD by tolerance: {method.name} is left out, its {path} can't be read any more")
            values[method.name] = {}
            continue
        options = MetricOptions(hd_percentiles=(), nsd_boundary=method.summary["options"]["nsd_boundary"])
        tasks = case_tasks(method, MetricChoice(options, tolerances))
        log = CaseLog(log_folder / str(number))
        scored, failures = score_cases(tasks, workers, progress, log, f"NSD curve of {method.name}")
        warnings += [f"NSD by tolerance, {method.name}: {failure.message}" for failure in failures]
        scored = [case.for_labels(tuple(method.labels), tasks[0].metrics) for case in scored]
        values[method.name] = _by_label(scored, method.labels, len(tolerances))
        if _differs(method, scored, tolerances, values[method.name]):
            warnings.append(f"NSD by tolerance: {method.name} is left out, its files aren't those that were scored")
            values[method.name] = {}
    return NsdCurves(tolerances, values, warnings)


def _by_label(scored: Sequence[CaseScores], labels: Sequence[Label], n_tolerances: int) -> dict[str, np.ndarray]:
    """Return the values of each label, shape (cases, tolerances); of slices the mean over a case's."""
    names = MetricOptions(hd_percentiles=()).names(range(n_tolerances))
    first = names.index(nsd_name(0))
    return {
        label.key: np.array(
            [_mean(case.values[label.key][:, first : first + n_tolerances]) for case in scored]
        ).reshape(-1, n_tolerances)
        for label in labels
    }
