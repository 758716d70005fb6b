"""Scores that an evaluation left on disk, read back."""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .definitions import is_distance
from .errors import EvaluationError
from .output import METRICS_FILE, SUMMARY_FILE

FOREGROUND = "foreground"
"""Stands for the mean over labels where a label is named."""

_COLUMNS = {"case", "label", "label_name", "metric", "value"}


@dataclass(frozen=True)
class StoredScores:
    """What one evaluation wrote.

    Attributes:
        path: The file metrics.csv.
        values: Value by (label, metric), then by case; that of sliced images is the mean over slices with a finite
            value.
        label_names: Name of each label.
        diagonals_mm: Length of the image's diagonal by case, where summary.json says it.
        penalised: As `values`, with each inf counted as the diagonal of its image; inf where that isn't known.
        n_infinite: How many values are inf, by (label, metric), then by case; cases without any are left out.
        references: File of the reference by case, where summary.json says it.
        definitions: What summary.json says each number means.
        unannotated: Keys of the labels that nobody has annotated, by case, where summary.json says it.
    """

    path: Path
    values: dict[tuple[str, str], dict[str, float]]
    label_names: dict[str, str]
    diagonals_mm: dict[str, float] = field(default_factory=dict)
    penalised: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    n_infinite: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, str] = field(default_factory=dict)
    unannotated: dict[str, list[str]] = field(default_factory=dict)

    @property
    def cases(self) -> set[str]:
        """Return the cases that were scored."""
        return {case for by_case in self.values.values() for case in by_case}


def read_scores(path: Path, option: str) -> StoredScores:
    """Read metrics.csv, and summary.json beside it.

    Args:
        path: The folder of an evaluation, or its metrics.csv.
        option: Option that named it, for the message.

    Returns:
        The scores.

    Raises:
        EvaluationError: If there are none, or the file is of another kind.
    """
    file = path / METRICS_FILE if path.is_dir() else path
    collected: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    names: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if not set(reader.fieldnames or ()) >= _COLUMNS:
                raise EvaluationError(
                    f"{option} {file}: must have the columns {', '.join(sorted(_COLUMNS))}, got {reader.fieldnames}; "
                    "give the folder that python -m evaluation.test3d wrote"
                )
            for row in reader:
                collected[row["label"], row["metric"]][row["case"]].append(float(row["value"]))
                names[row["label"]] = row["label_name"]
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(
            f"{option} {file}: must be readable, got: {error}; score the predictions first"
        ) from error
    except (TypeError, ValueError) as error:
        if isinstance(error, EvaluationError):
            raise
        raise EvaluationError(f"{option} {file}: every value must be a number, got: {error}; score again") from error
    if not collected:
        raise EvaluationError(f"{option} {file}: must hold scores, got none; score the predictions first")
    return _stored(file, collected, names)


def _stored(
    file: Path, collected: Mapping[tuple[str, str], Mapping[str, list[float]]], names: dict[str, str]
) -> StoredScores:
    summary = _summary(file.with_name(SUMMARY_FILE))
    diagonals_mm = {entry["case"]: float(entry["diagonal_mm"]) for entry in summary["files"]}
    references = {entry["case"]: str(entry["reference"]) for entry in summary["files"] if "reference" in entry}
    definitions = summary.get("definitions", {})
    unannotated = summary.get("options", {}).get("unannotated_labels", {})
    stored = StoredScores(
        file, {}, names, diagonals_mm, references=references, definitions=definitions, unannotated=unannotated
    )
    for key, by_case in collected.items():
        stored.values[key] = {case: _mean(found) for case, found in by_case.items()}
        penalty = diagonals_mm if is_distance(key[1]) else {}
        stored.penalised[key] = {case: _penalised(found, penalty.get(case)) for case, found in by_case.items()}
        counts = {case: sum(map(math.isinf, found)) for case, found in by_case.items()}
        stored.n_infinite[key] = {case: count for case, count in counts.items() if count}
    return stored


def _penalised(values: list[float], diagonal_mm: float | None) -> float:
    if diagonal_mm is None:
        return _mean(values)
    numbers = [diagonal_mm if math.isinf(value) else value for value in values if not math.isnan(value)]
    return float(np.mean(numbers)) if numbers else math.nan


def _mean(values: list[float]) -> float:
    if len(values) == 1:
        return values[0]
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        return float(np.mean(finite))
    return math.inf if any(map(math.isinf, values)) else math.nan


def _summary(path: Path) -> dict[str, Any]:
    """Return what summary.json says, without any file where it isn't there or is of another kind."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        return summary if all("case" in one and "diagonal_mm" in one for one in summary["files"]) else {"files": []}
    except (OSError, ValueError, KeyError, TypeError):
        return {"files": []}


def read_patients(path: Path, cases: Iterable[str]) -> dict[str, str]:
    """Read which patient each case is of.

    Args:
        path: CSV file with the columns `case` and `patient`.
        cases: Cases that are needed.

    Returns:
        Patient by case.

    Raises:
        EvaluationError: If the file is of another kind, or a case is missing in it.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"case", "patient"} <= set(reader.fieldnames or ()):
                raise EvaluationError(f"--patients {path}: must have the columns case,patient, got {reader.fieldnames}")
            patients = {row["case"]: row["patient"] for row in reader}
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(
            f"--patients {path}: must be a readable CSV file, got: {error}; check the path"
        ) from error
    missing = sorted(case for case in cases if not patients.get(case))
    if missing:
        raise EvaluationError(
            f"--patients {path}: must name the patient of every case, got none for {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}; add {'it' if len(missing) == 1 else 'them'}"
        )
    return patients
