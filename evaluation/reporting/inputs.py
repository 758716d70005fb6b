"""What a report is made of: the scores of one or several methods, as they lie on disk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..comparison import MetricComparison
from ..dataset_labels import DatasetLabels, Label, Unannotated, read_dataset_json
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

    @cached_property
    def dataset(self) -> DatasetLabels | None:
        """Return what dataset.json says, None if there was none or it isn't there any more."""
        path = self.summary["options"]["dataset_json"]
        try:
            dataset = read_dataset_json(Path(path)) if path else None
        except EvaluationError:
            return None
        by_key = {label.key: label for label in dataset.labels} if dataset else {}
        listed = self.summary["options"].get("unannotated_labels", {})
        by_case = {case: tuple(by_key[key] for key in keys if key in by_key) for case, keys in listed.items()}
        return replace(dataset, unannotated=Unannotated(dataset.path, by_case)) if dataset else None

    @property
    def lacks_dataset(self) -> bool:
        """Return whether the scores were made with a dataset.json that can't be read any more."""
        return self.dataset is None and self.summary["options"]["dataset_json"] is not None

    @property
    def ignore_label(self) -> int | None:
        """Return the value of the reference's voxels that were left out."""
        return self.dataset.ignore_label if self.dataset else None

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

    def case_value(self, case: str, label: str, metric: str) -> tuple[float, int]:
        """Return one value, each inf counted as the image's diagonal.

        Args:
            case: Name of the case.
            label: Key of a label, or `foreground` for the mean over labels.
            metric: Name of the metric.

        Returns:
            The value, nan where there is none, and how many inf were replaced for it.
        """
        stored = self.stored
        labels = [key for key, name in stored.values if name == metric and key != "0"]
        keys = [(key, metric) for key in (labels if label == FOREGROUND else [label])]
        values = [stored.penalised.get(key, {}).get(case, float("nan")) for key in keys]
        numbers = [value for value in values if not np.isnan(value)]
        n_infinite = sum(stored.n_infinite.get(key, {}).get(case, 0) for key in keys)
        return (float(np.mean(numbers)) if numbers else float("nan")), n_infinite

    @property
    def is_sliced(self) -> bool:
        """Return whether slices were scored instead of whole images."""
        return self.summary["options"]["axis"] is not None


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
    def drawable_labels(self) -> list[str]:
        """Return the labels that images can show: those of `rows`, or all where only their mean is shown."""
        labels = self.labels or [label.key for label in self.methods[0].labels]
        return [label for label in labels if label != "0"]

    @property
    def missed_of(self) -> str:
        """Return what a missed label is counted in: `cases` or `slices`."""
        return "slices" if any(method.is_sliced for method in self.methods) else "cases"

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
        if summary["format_version"] != 1 or not isinstance(summary["definitions"], dict):
            raise ValueError(f"format_version {summary['format_version']!r}")
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
