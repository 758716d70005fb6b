"""Means by method and label."""

import numpy as np

from ...definitions import direction, is_distance
from ..inputs import ReportInputs
from ..style import Picture, as_picture, new_figure
from ..titles import metric_title

_MOST_COLUMNS = 14
"""Of labels beside each other; more of them stand below each other."""


def draw_heat_map(inputs: ReportInputs, metric: str) -> Picture:
    """Draw the mean of a metric for each method and label.

    Args:
        inputs: The scores.
        metric: Metric to draw.

    Returns:
        The picture.
    """
    methods, labels = inputs.methods, inputs.rows
    cells = np.array([[_cell(method.statistics(label, metric)) for label in labels] for method in methods])
    means = np.array([[_mean(method.statistics(label, metric)) for label in labels] for method in methods])
    names = [[method.name for method in methods], [inputs.label_names[label] for label in labels]]
    if len(labels) > _MOST_COLUMNS:
        cells, means, names = cells.T, means.T, names[::-1]
    width, height = 2.2 + 0.85 * means.shape[1], 1.5 + 0.5 * means.shape[0]
    figure, (axes,) = new_figure(max(width, 6.0), height)
    sign = direction(metric) or 1
    highest = float(np.nanmax(means, initial=0)) or 1.0
    limits = (min(0.0, float(np.nanmin(means, initial=0))), 1.0 if sign > 0 and highest <= 1 else highest)
    colors = "viridis" if sign > 0 else "viridis_r"
    image = axes.imshow(means, aspect="auto", cmap=colors, vmin=limits[0], vmax=limits[1])
    figure.colorbar(image, ax=axes, pad=0.02, label=metric_title(metric))
    for y, x in np.ndindex(means.shape):
        dark = sign * (means[y, x] - np.mean(limits)) < 0
        axes.text(x, y, str(cells[y, x]), ha="center", va="center", color="white" if dark else "black")
    axes.set_yticks(range(len(names[0])), names[0])
    axes.set_xticks(range(len(names[1])), names[1], rotation=30, ha="right")
    axes.grid(visible=False)
    infinite = "" if not is_distance(metric) else " A distance of inf (one mask empty) counts as the image's diagonal."
    caption = f"Mean over cases; m: {inputs.missed_of} in which the label was missed.{infinite}"
    return as_picture(figure, f"heat_map_{metric}", metric_title(metric), caption)


def _mean(statistics: object) -> float:
    if not isinstance(statistics, dict):
        return float("nan")
    mean = statistics.get("mean_inf_as_diagonal", statistics["mean"])
    return float("nan") if mean is None else float(mean)


def _cell(statistics: object) -> str:
    mean = _mean(statistics)
    if not isinstance(statistics, dict) or np.isnan(mean):
        return "–"
    missed = f"\n{statistics['n_missed']} m" if statistics["n_missed"] else ""
    return f"{mean:.3f}{missed}" if abs(mean) < 10 else f"{mean:.1f}{missed}"
