"""The threshold at which each label overlaps best, and the file that keeps it."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .curves_file import Curves, LabelCurves, ThresholdCurve
from .errors import EvaluationError
from .label_map import LARGEST_VALUE
from .output import renamed_when_complete
from .probability_scores import THRESHOLDS

THRESHOLDS_FILE = "thresholds.json"
TABLE_FILE = "thresholds.csv"
THRESHOLDS_FORMAT = "segmentation-thresholds"
FORMAT_VERSION = 1
METRICS = ("dice", "iou")
PLAIN_THRESHOLD = 0.5
BIAS = (
    "values at the chosen thresholds are too good: they were chosen on the same cases; for numbers to report, apply "
    "the thresholds to other cases with --apply"
)


@dataclass(frozen=True)
class ChosenThreshold:
    """The threshold of one label.

    Attributes:
        name: The label's name.
        threshold: The mask is where the probability is >= this; one of `THRESHOLDS`.
        value: The metric there; None if both masks are empty in all cases.
        n: Number of cases behind it; all that were scored for the label if pooled.
        value_at_half: The metric at 0.5.
        n_at_half: Number of cases behind that.
    """

    name: str
    threshold: float
    value: float | None
    n: int
    value_at_half: float | None
    n_at_half: int


@dataclass(frozen=True)
class ThresholdChoice:
    """Thresholds of all labels.

    Attributes:
        metric: `dice` or `iou`.
        pooled: Whether it is that of voxels summed over cases, instead of the mean over cases.
        labels: Thresholds by the label's key.
        predictions: Folder that they were chosen on, without links or `..` in its path.
    """

    metric: str
    pooled: bool
    labels: Mapping[str, ChosenThreshold]
    predictions: str


def choose_thresholds(curves: Curves, metric: str, pooled: bool, predictions: Path) -> ThresholdChoice:
    """Choose for each label the threshold with the best value; among equals the one nearest to 0.5.

    Args:
        curves: Curves of the cases to choose on.
        metric: `dice` or `iou`.
        pooled: Whether voxels are summed over cases, instead of averaging over cases.
        predictions: Folder of the cases.

    Returns:
        The choice; 0.5 for a label that overlaps at no threshold, such as one that is in no reference.
    """
    n_cases = {key: sum(key in case["labels"] for case in curves.cases) for key in curves.labels}
    labels = {key: _chosen(own, metric, pooled, n_cases[key]) for key, own in curves.labels.items()}
    return ThresholdChoice(metric, pooled, labels, str(predictions.resolve()))


def index_of(threshold: float) -> int:
    """Return where a threshold is in `THRESHOLDS`.

    Args:
        threshold: The threshold.

    Raises:
        ValueError: If it isn't there.
    """
    index = round(threshold * (len(THRESHOLDS) - 1)) if 0 <= threshold <= 1 else -1
    if index < 0 or abs(THRESHOLDS[index] - threshold) >= 1e-9:
        raise ValueError(f"a threshold must be a multiple of {THRESHOLDS[1]:g} in [0, 1], got {threshold!r}")
    return index


def _chosen(curves: LabelCurves, metric: str, pooled: bool, n_cases: int) -> ChosenThreshold:
    curve: ThresholdCurve = getattr(curves, metric)
    values = curve.pooled if pooled else curve.mean
    n = np.full(len(values), n_cases) if pooled else curve.n
    half = index_of(PLAIN_THRESHOLD)
    best = half
    if np.nanmax(values, initial=0) > 0:  # at 0 all voxels are predicted, so there is a value even without the label
        equal = np.flatnonzero(values >= np.nanmax(values) - 1e-12)
        best = int(equal[np.argmin(np.abs(equal - half))])
    return ChosenThreshold(
        curves.name, float(THRESHOLDS[best]), _or_none(values[best]), int(n[best]), _or_none(values[half]), int(n[half])
    )


def write_thresholds(folder: Path, choice: ThresholdChoice, curves: Curves, more: Mapping[str, Any]) -> list[Path]:
    """Write thresholds.json, and the curves behind it as thresholds.csv.

    Args:
        folder: Folder, which exists.
        choice: The thresholds.
        curves: The curves.
        more: Further entries for thresholds.json, plain JSON values.

    Returns:
        Paths of the two files.

    Raises:
        EvaluationError: If they can't be written.
    """
    paths = [folder / THRESHOLDS_FILE, folder / TABLE_FILE]
    averaging = "voxels of all cases pooled" if choice.pooled else "mean over the n cases where it applies"
    head = {"format": THRESHOLDS_FORMAT, "format_version": FORMAT_VERSION, "averaging": averaging, "bias": BIAS}
    try:
        with renamed_when_complete(*paths) as (json_part, csv_part):
            text = json.dumps(head | asdict(choice) | dict(more), indent=2, ensure_ascii=False, allow_nan=False)
            json_part.write_text(text + "\n", encoding="utf-8")
            _write_table(csv_part, curves)
    except OSError as error:
        raise EvaluationError(f"{folder}: the thresholds can't be written: {error.strerror}; make room") from error
    return paths


def _write_table(path: Path, curves: Curves) -> None:
    columns = [f"{metric}_{column}" for metric in METRICS for column in ("mean", "n", "n_na", "pooled")]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["label", "label_name", "threshold", *columns])
        for key, label in curves.labels.items():
            for index, threshold in enumerate(curves.thresholds.tolist()):
                cells: list[float | str] = []
                for curve in (label.dice, label.iou):
                    cells += [float(curve.mean[index]), str(curve.n[index]), str(curve.n_na[index])]
                    cells += [float(curve.pooled[index])]
                writer.writerow([key, label.name, threshold, *cells])


def read_thresholds(path: Path) -> ThresholdChoice:
    """Read thresholds.json.

    Args:
        path: The file, or the folder that holds it.

    Returns:
        The choice.

    Raises:
        EvaluationError: If it is missing, of another kind, or holds a label or threshold that can't be.
    """
    path = path / THRESHOLDS_FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(f"--apply {path}: must be a readable JSON file, got: {error}; check the path") from error
    if not isinstance(content, dict) or content.get("format") != THRESHOLDS_FORMAT:
        raise EvaluationError(f"--apply {path}: must be the {THRESHOLDS_FILE} that this command wrote; choose another")
    if content.get("format_version") != FORMAT_VERSION:
        raise EvaluationError(
            f"--apply {path}: must be of format version {FORMAT_VERSION}, got {content.get('format_version')!r}; "
            "choose the thresholds again"
        )
    try:
        labels = {key: _checked(key, ChosenThreshold(**entry)) for key, entry in content["labels"].items()}
        if not labels:
            raise ValueError("it holds no threshold")
        return ThresholdChoice(content["metric"], content["pooled"], labels, str(content["predictions"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise EvaluationError(f"--apply {path}: is damaged: {error}; choose the thresholds again") from error


def _checked(key: str, chosen: ChosenThreshold) -> ChosenThreshold:
    values = [int(part) if part.isdecimal() and part.isascii() else -1 for part in key.split("+")]
    if not all(0 <= value <= LARGEST_VALUE for value in values):
        raise ValueError(f"a label must be an integer >= 0 and < 2**31, or several as in 1+2, got {key!r}")
    if isinstance(chosen.threshold, bool):
        raise ValueError(f"the threshold of label {key} must be a number, got {chosen.threshold}")
    index_of(chosen.threshold)
    return chosen


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
