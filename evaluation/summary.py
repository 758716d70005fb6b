"""The content of summary.json."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .aggregate import ScoreTable, Statistics
from .case_scores import CaseFailure, CaseScores
from .dataset_labels import Label
from .definitions import describe
from .metric_choice import MetricChoice
from .output import SUMMARY_FORMAT

_MOST_NAMED = 3
"""Files that are named one by one in a warning that is true of each."""

_PACKAGES = ("medseg-plugins", "numpy", "numba", "scipy", "nibabel", "SimpleITK")


def make_summary(
    cases: Sequence[CaseScores],
    failures: Sequence[CaseFailure],
    unpredicted: Sequence[str],
    labels: Sequence[Label],
    metrics: MetricChoice,
    options: Mapping[str, Any],
    axis: int | None,
) -> dict[str, Any]:
    """Put together everything that a reader of the scores has to know.

    Args:
        cases: Scores of the cases, all with the same labels.
        failures: Cases that couldn't be scored.
        unpredicted: Cases with a reference only.
        labels: Labels scored.
        metrics: Metrics of each label.
        options: Options of the run, as plain JSON values.
        axis: Array axis that slices were cut along; None for whole images.

    Returns:
        Plain JSON values; None stands for a statistic of too few values, so there is no nan and no inf.
    """
    table = ScoreTable(cases, labels, metrics)
    used = dict.fromkeys(name for label in labels for name in metrics.names(label))
    sources = Counter(case.source for case in cases)
    return {
        "format": SUMMARY_FORMAT,
        "format_version": 1,
        "n_cases": len(cases),
        "labels": {
            label.key: {"name": label.name, **_averages(lambda m, of=label: table.by_label(of, case_means=m), axis)}
            for label in labels
        },
        "foreground_mean": _averages(lambda m: table.foreground(case_means=m), axis),
        "source": {"requested": options["source"], "used": dict(sorted(sources.items()))},
        "failures": [{"case": failure.case, "message": failure.message} for failure in failures],
        "references_without_prediction": list(unpredicted),
        "warnings": _grouped([warning for case in cases for warning in case.warnings]),
        "definitions": describe(used, metrics.options, slices=axis is not None),
        "options": dict(options),
        "versions": versions(),
        "files": [
            {
                "case": case.case,
                "prediction": _absolute(case.prediction_file),
                "reference": _absolute(case.reference_file),
                "source": case.source,
                "diagonal_mm": float(case.diagonals_mm.mean()),
            }
            for case in cases
        ],
    }


def _grouped(warnings: Sequence[str]) -> list[str]:
    """Say once what is true of many files."""
    by_text: dict[str, list[str]] = {}
    for warning in warnings:
        file, _, text = warning.partition(": ")
        by_text.setdefault(text, []).append(file)
    lines = []
    for text, files in by_text.items():
        many = len(files) > _MOST_NAMED
        lines += [f"{files[0]} and {len(files) - 1} more: {text}"] if many else [f"{file}: {text}" for file in files]
    return lines


def _averages(average: Any, axis: int | None) -> dict[str, dict[str, Statistics]]:
    if axis is None:
        return {"metrics": average(False)}
    return {"pooled_over_slices": average(False), "mean_of_cases": average(True)}


def _absolute(path: Path) -> str:
    return str(path.absolute())


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the scores depend on.

    Returns:
        Version by name; `not installed` for a package that runs from a source folder.
    """
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
