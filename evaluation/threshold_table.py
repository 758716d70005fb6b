"""The tables that the threshold command prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from .report_table import layout
from .threshold_choice import ThresholdChoice

_TITLES = {"dice": "Dice", "iou": "IoU"}


def format_choice(choice: ThresholdChoice, n_cases: int) -> str:
    """Lay out the chosen thresholds.

    Args:
        choice: The thresholds.
        n_cases: Number of cases that they were chosen on.

    Returns:
        The table, ready to print.
    """
    title = _TITLES[choice.metric]
    rows = [["label", "name", "threshold", f"{title} there", "n", f"{title} at 0.5", "n at 0.5"]]
    for key, own in choice.labels.items():
        values = [_number(own.value), str(own.n), _number(own.value_at_half), str(own.n_at_half)]
        rows.append([key, own.name, f"{own.threshold:.3f}", *values])
    how = "voxels of all cases pooled" if choice.pooled else "mean over the n cases where it applies"
    return f"Cases: {n_cases}\n{title}: {how}\n{layout(rows)}"


def format_applied(means: Mapping[str, Mapping[str, Any]], n_cases: int) -> str:
    """Lay out the overlap at thresholds that were chosen before.

    Args:
        means: What `means_of` returned.
        n_cases: Number of cases scored.

    Returns:
        The table, ready to print.
    """
    header = ["label", "name", "threshold"]
    for title in _TITLES.values():
        header += [f"{title} there", "n", f"{title} at 0.5", "n at 0.5"]
    rows: list[Sequence[str]] = [header]
    for key, own in means.items():
        cells = [key, own["name"], f"{own['threshold']:.3f}"]
        for metric in _TITLES:
            for column in (metric, f"{metric}_at_half"):
                cells += [_number(own[column]["mean"]), str(own[column]["n"])]
        rows.append(cells)
    return f"Cases: {n_cases}\nmean over the n cases where it applies\n{layout(rows)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
