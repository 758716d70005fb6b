"""The table that is printed at the end of an evaluation."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_NOTE = (
    "n counts values of Dice; distances average finite values only, leaving out images where one mask is empty "
    "(n_missed, n_spurious).\nEvery metric is in metrics.csv, every definition in summary.json."
)
_COUNTS = ("n", "n_na", "n_missed", "n_spurious")


def format_table(summary: Mapping[str, Any]) -> str:
    """Lay out Dice, a Hausdorff distance and NSD per label, with the number of values behind each.

    Args:
        summary: Content of summary.json.

    Returns:
        One table, or two for slices (pooled, and mean of cases), ready to print.
    """
    views = list(summary["foreground_mean"])
    units = {"metrics": "images", "pooled_over_slices": "all slices", "mean_of_cases": "mean of each case"}
    tables = [f"{units[view]}: mean (standard deviation)\n{layout(_rows(summary, view))}" for view in views]
    return "\n\n".join([f"Cases scored: {summary['n_cases']}", *tables, _NOTE])


def _rows(summary: Mapping[str, Any], view: str) -> list[list[str]]:
    foreground = summary["foreground_mean"][view]
    entries = [(key, entry["name"], entry[view]) for key, entry in summary["labels"].items()]
    one_empty = any(s["dice"]["n_missed"] + s["dice"]["n_spurious"] for _, _, s in entries)
    if len(entries) > 1 and foreground:
        entries.append(("mean", "foreground", foreground))
    hd = next((name for _, _, s in entries for name in s if re.fullmatch(r"hd.+_mm", name)), "hd_mm")
    nsd = list(dict.fromkeys(name for _, _, s in entries for name in s if name.startswith("nsd_")))
    header = [
        "label",
        "name",
        "Dice",
        _hd_title(hd),
        *["(inf = diagonal)"] * one_empty,
        *map(_nsd_title, nsd),
        *_COUNTS,
    ]
    rows = [header]
    for key, name, s in entries:
        row = [key, name, _mean(s["dice"]), _mean(s[hd])]
        row += [_number(s[hd]["mean_inf_as_diagonal"])] * one_empty
        rows.append([*row, *(_mean(s.get(metric)) for metric in nsd), *(str(s["dice"][count]) for count in _COUNTS)])
    return rows


def _hd_title(metric: str) -> str:
    return f"{metric.removesuffix('_mm').upper()} mm"


def _nsd_title(metric: str) -> str:
    return f"NSD at {metric.removeprefix('nsd_').removesuffix('mm')} mm"


def _mean(statistics: Mapping[str, Any] | None) -> str:
    if statistics is None or statistics["mean"] is None:
        return "-"
    spread = "" if statistics["std"] is None else f" ({_number(statistics['std'])})"
    return _number(statistics["mean"]) + spread


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def layout(rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table: the first two columns to the left, numbers to the right, a line below the header.

    Args:
        rows: Cells, the header first.

    Returns:
        The table.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
