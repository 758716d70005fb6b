"""The two files of an evaluation, written so that they are complete or not there."""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .case_scores import CaseScores
from .errors import EvaluationError
from .metric_choice import MetricChoice

METRICS_FILE = "metrics.csv"
SUMMARY_FILE = "summary.json"
SUMMARY_FORMAT = "segmentation-evaluation"


def prepare_output(folder: Path) -> None:
    """Make the output folder and see to it that results can be written there.

    Args:
        folder: The folder; its parents are made too.

    Raises:
        EvaluationError: If it can't be written to, or holds a summary.json of another program.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = _temporary(folder / METRICS_FILE)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise EvaluationError(
            f"--output {folder}: must be a folder that can be written to, got: {error.strerror}; choose another"
        ) from error
    summary = folder / SUMMARY_FILE
    if summary.exists() and not _is_ours(summary):
        raise EvaluationError(
            f"--output {folder}: holds a {SUMMARY_FILE} that another program wrote; choose another folder"
        )


def _is_ours(summary: Path) -> bool:
    try:
        content = json.loads(summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == SUMMARY_FORMAT


def write_results(
    folder: Path,
    cases: Sequence[CaseScores],
    metrics: MetricChoice,
    summary: Mapping[str, Any],
    *,
    by_slice: bool,
) -> tuple[Path, Path]:
    """Write metrics.csv and summary.json.

    Both are written under temporary names and renamed when both are complete.

    Args:
        folder: Folder, which exists.
        cases: Scores, in the order to write them.
        metrics: Metrics of each label.
        summary: Content of summary.json: None where there is no number, no nan and no inf.
        by_slice: Whether an image is a slice, so that rows say which.

    Returns:
        Paths of the two files.

    Raises:
        EvaluationError: If they can't be written.
    """
    metrics_path, summary_path = folder / METRICS_FILE, folder / SUMMARY_FILE
    try:
        with renamed_when_complete(metrics_path, summary_path) as (metrics_part, summary_part):
            _write_metrics(metrics_part, cases, metrics, by_slice)
            text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
            summary_part.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{folder}: the results can't be written: {error.strerror}; make room") from error
    return metrics_path, summary_path


@contextmanager
def renamed_when_complete(*paths: Path) -> Iterator[list[Path]]:
    """Give temporary names to write to, and rename the files when the block ends without an error.

    Args:
        paths: Files to write.

    Yields:
        A temporary path for each.
    """
    parts = [_temporary(path) for path in paths]
    try:
        yield parts
        for part, path in zip(parts, paths, strict=True):
            part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _write_metrics(path: Path, cases: Sequence[CaseScores], metrics: MetricChoice, by_slice: bool) -> None:
    header = ["case", "label", "label_name", "metric", "value"] + (["axis", "slice"] if by_slice else [])
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for case in cases:
            writer.writerows(_rows(case, metrics))


def _rows(case: CaseScores, metrics: MetricChoice) -> Iterator[list[str | float]]:
    """Yield rows; the writer makes of a float the shortest text that reads back as the same, or nan, inf, -inf."""
    columns = [(label.key, label.name, metrics.names(label), case.values[label.key].tolist()) for label in case.labels]
    for index in range(len(case.diagonals_mm)):
        position = [] if case.axis is None else [str(case.axis), str(index)]
        for key, label_name, names, values in columns:
            for name, value in zip(names, values[index], strict=True):
                yield [case.case, key, label_name, name, value, *position]
