"""Overlap at thresholds that were chosen before, against that at 0.5."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .case_scores import CaseScores
from .curves import mean_of_numbers
from .dataset_labels import Label
from .errors import EvaluationError
from .label_score import label_key
from .output import renamed_when_complete
from .threshold_choice import METRICS, PLAIN_THRESHOLD, ThresholdChoice, index_of

CASES_FILE = "threshold_scores.csv"
MEANS_FILE = "threshold_scores.json"
SCORES_FORMAT = "segmentation-threshold-scores"
COLUMNS = tuple(f"{metric}{suffix}" for metric in METRICS for suffix in ("", "_at_half"))


@dataclass(frozen=True)
class ThresholdScore:
    """Overlap of one label in one case.

    Attributes:
        case: Name of the case.
        label: The label.
        threshold: The threshold chosen for it.
        values: Dice there and at 0.5, IoU there and at 0.5 (`COLUMNS`); nan where both masks are empty.
    """

    case: str
    label: Label
    threshold: float
    values: tuple[float, ...]


def scores_at(choice: ThresholdChoice, cases: Sequence[CaseScores], labels: Sequence[Label]) -> list[ThresholdScore]:
    """Look up the overlap of every case and label.

    Args:
        choice: Thresholds.
        cases: Scores of the cases, each with those of its probabilities.
        labels: Labels; those without a threshold are left out.

    Returns:
        Overlap by case and label.
    """
    return [score for case in cases for score in _of_case(choice, case, labels)]


def _of_case(choice: ThresholdChoice, case: CaseScores, labels: Sequence[Label]) -> Iterator[ThresholdScore]:
    assert case.probabilities is not None, "these are scores of probabilities"
    half = index_of(PLAIN_THRESHOLD)
    for label in labels:
        chosen, own = choice.labels.get(label.key), case.probabilities.labels.get(label_key(label.values))
        if chosen is not None and own is not None:
            places = [index_of(chosen.threshold), half]
            values = (*own.dice()[places].tolist(), *own.iou()[places].tolist())
            yield ThresholdScore(case.case, label, chosen.threshold, values)


def means_of(scores: Sequence[ThresholdScore]) -> dict[str, dict[str, Any]]:
    """Average over cases.

    Args:
        scores: Overlap by case and label.

    Returns:
        For each label its name, threshold, and for each of `COLUMNS` the mean (None without a number) and its n.
    """
    means = {}
    for label, threshold in dict.fromkeys((score.label, score.threshold) for score in scores):
        mean, n = mean_of_numbers(np.array([score.values for score in scores if score.label == label]))
        averages = {
            column: {"mean": None if math.isnan(m) else m, "n": count}
            for column, m, count in zip(COLUMNS, mean.tolist(), n.tolist(), strict=True)
        }
        means[label.key] = {"name": label.name, "threshold": threshold, **averages}
    return means


def write_threshold_scores(folder: Path, scores: Sequence[ThresholdScore], more: Mapping[str, Any]) -> list[Path]:
    """Write threshold_scores.csv, a row a case and label, and threshold_scores.json, the means.

    Args:
        folder: Folder, which exists.
        scores: Overlap by case and label.
        more: Further entries of the second file, plain JSON values.

    Returns:
        Paths of the two files.

    Raises:
        EvaluationError: If they can't be written.
    """
    paths = [folder / CASES_FILE, folder / MEANS_FILE]
    content = {"format": SCORES_FORMAT, "format_version": 1, "labels": means_of(scores), **more}
    try:
        with renamed_when_complete(*paths) as (csv_part, json_part):
            with csv_part.open("w", encoding="utf-8", newline="") as stream:
                writer = csv.writer(stream, lineterminator="\n")
                writer.writerow(["case", "label", "label_name", "threshold", *COLUMNS])
                for score in scores:
                    values = map(float, score.values)
                    writer.writerow([score.case, score.label.key, score.label.name, score.threshold, *values])
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
            json_part.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{folder}: the scores can't be written: {error.strerror}; make room") from error
    return paths
