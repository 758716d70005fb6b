"""The file curves.json: written so that it is complete or not there, and read back."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .curves import CURVES_FORMAT, FORMAT_VERSION
from .errors import EvaluationError
from .output import renamed_when_complete

CURVES_FILE = "curves.json"


@dataclass(frozen=True)
class ThresholdCurve:
    """A metric of the mask p >= t by threshold t; arrays of shape (T,).

    Attributes:
        mean: Mean over the cases where it applies; nan without any.
        n: Number of these.
        n_na: Number of cases where both masks are empty, or that have no channel for the label.
        pooled: The metric of TP, FP and FN summed over cases.
    """

    mean: np.ndarray
    n: np.ndarray
    n_na: np.ndarray
    pooled: np.ndarray


@dataclass(frozen=True)
class ReliabilityCurve:
    """How often things were so, by how probable they were said to be; arrays of shape (B,), pooled over cases.

    Attributes:
        n_voxels: Voxels in each bin.
        mean_probability: Mean of their probabilities; nan without voxels.
        fraction_positive: Share of them that are true; nan without voxels.
    """

    n_voxels: np.ndarray
    mean_probability: np.ndarray
    fraction_positive: np.ndarray


@dataclass(frozen=True)
class LabelCurves(ReliabilityCurve):
    """Curves of one label against all others.

    Attributes:
        name: The label's name.
        dice: Dice by threshold.
        iou: IoU by threshold.
        calibration: For each metric `mean` (None without a number), `n` and `n_na` over cases.
    """

    name: str
    dice: ThresholdCurve
    iou: ThresholdCurve
    calibration: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Multiclass(ReliabilityCurve):
    """Reliability of the likeliest label.

    Attributes:
        values: For each metric of the whole distribution `mean` (None without a number), `n` and `n_na` over cases.
    """

    values: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Curves:
    """What curves.json holds.

    Attributes:
        n_cases: Number of cases.
        thresholds: Shape (T,), ascending from 0 to 1.
        bin_edges: Shape (B + 1,), ascending from 0 to 1.
        labels: Curves by the label's key.
        multiclass: Scores of all labels together; None for regions.
        cases: Values by case, as they are in the file.
        definitions: What each number means.
    """

    n_cases: int
    thresholds: np.ndarray
    bin_edges: np.ndarray
    labels: Mapping[str, LabelCurves]
    multiclass: Multiclass | None
    cases: list[dict[str, Any]]
    definitions: Mapping[str, str]


def write_curves(path: Path, content: Mapping[str, Any]) -> None:
    """Write curves.json.

    Args:
        path: The file, in a folder that exists.
        content: What `make_curves` returned.

    Raises:
        EvaluationError: If it can't be written.
    """
    try:
        with renamed_when_complete(path) as (part,):
            part.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{path}: can't be written: {error.strerror}; make room") from error


def remove_curves(folder: Path) -> None:
    """Delete the curves of an earlier evaluation, which don't belong to new scores beside them.

    Args:
        folder: Folder of the scores; a file of another kind is left alone.
    """
    with contextlib.suppress(EvaluationError, OSError):
        read_curves(folder)
        (folder / CURVES_FILE).unlink()


def read_curves(path: Path) -> Curves:
    """Read curves.json.

    Args:
        path: The file, or the folder that holds it.

    Returns:
        Its content.

    Raises:
        EvaluationError: If it is missing, damaged or of another kind.
    """
    path = path / CURVES_FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{path}: must be a readable JSON file, got: {error}; score with --also calibration"
        ) from error
    kind = (content.get("format"), content.get("format_version")) if isinstance(content, dict) else None
    if kind != (CURVES_FORMAT, FORMAT_VERSION):
        raise EvaluationError(f"{path}: must be of format {CURVES_FORMAT} {FORMAT_VERSION}, got {kind}; score again")
    try:
        return _curves(content)
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"{path}: is damaged: {error!r}; score again") from error


def _curves(content: Mapping[str, Any]) -> Curves:
    whole = content["multiclass"]
    labels = {
        key: LabelCurves(
            **_reliability(entry["reliability"]),
            name=entry["name"],
            dice=_threshold_curve(entry["dice"]),
            iou=_threshold_curve(entry["iou"]),
            calibration=entry["calibration"],
        )
        for key, entry in content["labels"].items()
    }
    return Curves(
        content["n_cases"],
        _numbers(content["thresholds"]),
        _numbers(content["bin_edges"]),
        labels,
        Multiclass(**_reliability(whole["reliability"]), values=whole["values"]) if whole else None,
        content["cases"],
        content["definitions"],
    )


def _threshold_curve(entry: Mapping[str, Any]) -> ThresholdCurve:
    n, n_na = (np.array(entry[name], dtype=np.int64) for name in ("n", "n_na"))
    return ThresholdCurve(_numbers(entry["mean"]), n, n_na, _numbers(entry["pooled"]))


def _reliability(entry: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {
        "n_voxels": np.array(entry["n_voxels"], dtype=np.int64),
        "mean_probability": _numbers(entry["mean_probability"]),
        "fraction_positive": _numbers(entry["fraction_positive"]),
    }


def _numbers(values: list[float | None]) -> np.ndarray:
    return np.array(values, dtype=float)  # None becomes nan
