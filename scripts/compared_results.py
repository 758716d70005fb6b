"""What `compare_methods.py` has measured: the cells and their tables."""

import csv
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from compared_methods import DATASETS, METHODS

Scores = dict[str, dict[str, dict[str, float | str]]]


def cell_file(method: str, dataset: str, minutes: float, root: Path = Path()) -> Path:
    """Return the JSON file of a cell.

    Args:
        method: A key of `METHODS`.
        dataset: Name of the data set.
        minutes: CPU minutes of training.
        root: The repository.
    """
    return root / "bundles" / METHODS[method].bundle / "docs/results" / f"{dataset}-{method}-{minutes:g}min.json"


def read_scores(file: Path) -> Scores:
    """Read Dice and HD95 of each label and case.

    Args:
        file: `metrics.csv`.

    Returns:
        label -> metric -> case -> value; values that are not finite as text.
    """
    scores: Scores = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["metric"] in ("dice", "hd95_mm"):
                value = float(row["value"])
                kept = round(value, 4) if math.isfinite(value) else row["value"]
                scores.setdefault(row["label_name"], {}).setdefault(row["metric"], {})[row["case"]] = kept
    return scores


def mean_dice(scores: Scores) -> dict[str, float]:
    """Return the mean over cases of each label's Dice, and under "mean" that of the labels.

    Args:
        scores: As `read_scores` returns them.

    Returns:
        Means by label; nan for a label that neither map of any case has, and it does not count in "mean".
    """
    means = {label: _mean(map(float, metrics["dice"].values())) for label, metrics in scores.items()}
    return {**means, "mean": _mean(means.values())}


def _mean(values: Iterable[float]) -> float:
    """Return the mean of those that are numbers; nan if none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return statistics.fmean(numbers) if numbers else math.nan


def overview(minutes: float, root: Path = Path()) -> str:
    """Return a Markdown table: method x runner x data set, mean Dice of the labels; cells not run are shown as such.

    Args:
        minutes: CPU minutes of training.
        root: The repository.
    """
    runs = {(method.title, "nnU-Net" if method.trainer else "bundle"): key for key, method in METHODS.items()}
    heads = [f"{name}: Dice | iterations" for name in DATASETS.values()]
    lines = [f"| method | runner | {' | '.join(heads)} |", "|---|---|" + "---|---|" * len(DATASETS)]
    for (title, runner), key in runs.items():
        cells = [_read(cell_file(key, dataset, minutes, root)) for dataset in DATASETS]
        values = [
            f"{mean_dice(cell['scores'])['mean']:.3f} | {cell['iterations']}" if cell else "not run | –"
            for cell in cells
        ]
        lines.append(f"| {title} | {runner} | {' | '.join(values)} |")
    return "\n".join(lines)


def by_label() -> str:
    """Return every cell there is as a Markdown table with a line for each label."""
    lines = ["| data set | method | CPU minutes | iterations | label | Dice | HD95 mm | cases | missed |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for file in sorted(Path().glob("bundles/*/docs/results/Dataset*min.json")):
        cell = json.loads(file.read_text(encoding="utf-8"))
        means = mean_dice(cell["scores"])
        for label, metrics in cell["scores"].items():
            finite = [float(v) for v in metrics["hd95_mm"].values() if math.isfinite(float(v))]
            distance = f"{statistics.fmean(finite):.2f}" if finite else "–"
            missed = sum(math.isinf(float(v)) for v in metrics["hd95_mm"].values())
            lines.append(
                f"| {cell['dataset']} | {cell['method']} | {cell['cpu_minutes']:g} | {cell['iterations']} "
                f"| {label} | {means[label]:.3f} | {distance} | {len(metrics['dice'])} | {missed} |"
            )
    return "\n".join(lines)


def _read(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
