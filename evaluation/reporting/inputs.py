"""What a report is made of: the scores of one or several methods, as they lie on disk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..comparison import MetricComparison
from ..dataset_labels import Label
from ..errors import EvaluationError
from ..output import SUMMARY_FILE, SUMMARY_FORMAT
from ..score_files import FOREGROUND, StoredScores, read_scores

Statistics = Mapping[str, Any]


@dataclass(frozen=True)
class CaseSource:
    """The files that a case was scored from.

    Attributes:
        prediction: File of the prediction.
        reference: File of the reference.
        source: What was read of the prediction: `labels`, `probabilities` or `logits`.
    """

    prediction: Path
    reference: Path
    source: str


@dataclass(frozen=True)
class Method:
    """One method's scores.

    Attributes:
        name: Its name in the report.
        stored: Values of metrics.csv.
        summary: Content of summary.json.
        files: Files of each case.
    """

    name: str
    stored: StoredScores
    summary: Mapping[str, Any]
    files: Mapping[str, CaseSource]

    @property
    def folder(self) -> Path:
        """Return the folder of the scores."""
        return self.stored.path.parent

    @property
    def labels(self) -> list[Label]:
        """Return the labels that were scored."""
        entries = self.summary["labels"].items()
        return [Label(tuple(int(value) for value in key.split("+")), entry["name"]) for key, entry in entries]

    def statistics(self, label: str, metric: str) -> Statistics | None:
        """Return the statistics of a metric over cases.

        Args:
            label: Key of a label, or `foreground`.
            metric: Name of the metric.

        Returns:
            Statistics as in summary.json; None if the label or the metric isn't there.
        """
        own = self.summary["foreground_mean"] if label == FOREGROUND else self.summary["labels"].get(label, {})
        return own.get("metrics", own.get("mean_of_cases", {})).get(metric)

    def case_value(self, case: str, label: str, metric: str) -> float:
        """Return one value; of `foreground` the mean over the labels with a finite value; nan where there is none."""
        if label != FOREGROUND:
            return self.stored.values.get((label, metric), {}).get(case, float("nan"))
        labels = [key for key, name in self.stored.values if name == metric and key != "0"]
        values = np.array([self.stored.values[key, metric].get(case, np.nan) for key in labels])
        finite = values[np.isfinite(values)]
        return float(finite.mean()) if finite.size else float("inf" if np.isinf(values).any() else "nan")


@dataclass(frozen=True)
class ReportInputs:
    """Everything that the figures and tables show.

    Attributes:
        methods: The methods, in the order to show them.
        rows: Keys of the labels to show, `foreground` for the mean over labels.
        label_names: Name by key, `foreground` among them.
        metrics: Metrics to show.
        comparisons: What `compare_methods` found; empty with one method.
    """

    methods: Sequence[Method]
    rows: Sequence[str]
    label_names: Mapping[str, str]
    metrics: Sequence[str]
    comparisons: Sequence[MetricComparison]

    @property
    def labels(self) -> list[str]:
        """Return the keys of the labels, without `foreground`."""
        return [row for row in self.rows if row != FOREGROUND]

    @property
    def overall(self) -> str:
        """Return what stands for the whole segmentation: `foreground`, or else the first label to show."""
        return FOREGROUND if FOREGROUND in self.rows else self.rows[0]


def read_method(name: str, folder: Path) -> Method:
    """Read what an evaluation wrote.

    Args:
        name: Name of the method.
        folder: Folder with metrics.csv and summary.json, or the path of that metrics.csv.

    Returns:
        The method.

    Raises:
        EvaluationError: If a file is missing or of another kind.
    """
    stored = read_scores(folder, "--scores")
    path = stored.path.with_name(SUMMARY_FILE)
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if summary["format"] != SUMMARY_FORMAT:
            raise ValueError(f"format {summary['format']!r}")
        files = {
            entry["case"]: CaseSource(Path(entry["prediction"]), Path(entry["reference"]), entry["source"])
            for entry in summary["files"]
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"--scores {path}: must be the {SUMMARY_FILE} that belongs to {stored.path.name}, got: {error!r}; "
            "score the predictions again"
        ) from error
    return Method(name, stored, summary, files)
