"""Values of a metric by label and method: boxes, and a dot for each case."""

from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..inputs import ReportInputs
from ..style import Picture, as_picture, method_color, new_figure
from ..titles import metric_title

_LABELS_A_ROW = 12
_WIDTH = 0.8
"""Of the boxes of all methods together, where labels are 1 apart."""


def draw_boxes(inputs: ReportInputs, metric: str) -> Picture:
    """Draw boxes and dots.

    Args:
        inputs: The scores.
        metric: Metric to draw.

    Returns:
        The picture; values of inf stand as triangles above the highest finite one.
    """
    labels = list(inputs.labels)
    n_rows = ceil(len(labels) / _LABELS_A_ROW)
    by_row = [labels[i::1][:_LABELS_A_ROW] for i in range(0, len(labels), _LABELS_A_ROW)]
    widest = max(len(row) for row in by_row)
    width = float(np.clip(1.2 + widest * (0.4 + 0.36 * len(inputs.methods)), 6.4, 18))
    figure, axes = new_figure(width, 3.3 * n_rows + 0.5, n_rows, 1, sharey=True)
    values = [[_values(inputs, number, label, metric) for label in labels] for number in range(len(inputs.methods))]
    finite = np.concatenate([one[np.isfinite(one)] for by_label in values for one in by_label] or [np.zeros(0)])
    top = float(finite.max()) * 1.06 if finite.size else 1.0
    for row, (one, shown) in enumerate(zip(axes, by_row, strict=True)):
        for number in range(len(inputs.methods)):
            _draw_method(one, number, len(inputs.methods), values[number][row * _LABELS_A_ROW :][: len(shown)], top)
        one.set_xticks(range(len(shown)), [inputs.label_names[label] for label in shown])
        one.tick_params(axis="x", rotation=25 if max(len(inputs.label_names[label]) for label in shown) > 9 else 0)
        one.set_xlim(-0.6, widest - 0.4)
        one.grid(axis="x", visible=False)
        one.set_ylabel(metric_title(metric))
    names = [method.name for method in inputs.methods]
    handles = [Line2D([], [], color=method_color(i), lw=6, alpha=0.6) for i in range(len(names))]
    figure.legend(handles, names, loc="outside lower center", ncols=6)
    n_infinite = sum(int(np.isinf(one).sum()) for by_label in values for one in by_label)
    infinite = f" {n_infinite} values are inf (one mask empty): triangles." if n_infinite else ""
    caption = f"A dot a case; boxes from the first to the third quartile, whiskers to 1.5 times that range.{infinite}"
    return as_picture(figure, f"boxes_{metric}", metric_title(metric), caption)


def _values(inputs: ReportInputs, number: int, label: str, metric: str) -> np.ndarray:
    by_case = inputs.methods[number].stored.values.get((label, metric), {})
    values = np.array([by_case[case] for case in sorted(by_case)], dtype=float)
    return values[~np.isnan(values)]


def _draw_method(axes: Axes, number: int, n_methods: int, by_label: list[np.ndarray], top: float) -> None:
    width = _WIDTH / n_methods
    color = method_color(number)
    spread = np.random.default_rng(number)
    for place, values in enumerate(by_label):
        x = place - _WIDTH / 2 + width * (number + 0.5)
        finite = values[np.isfinite(values)]
        if finite.size:
            box = axes.boxplot(finite, positions=[x], widths=0.8 * width, showfliers=False, patch_artist=True)
            box["boxes"][0].set(facecolor=color, alpha=0.35, edgecolor=color)
            for part in ("whiskers", "caps", "medians"):
                for line in box[part]:
                    line.set(color="black" if part == "medians" else color)
        jitter = spread.uniform(-0.22, 0.22, len(values)) * width
        is_finite = np.isfinite(values)
        axes.plot(x + jitter[is_finite], finite, ".", color=color, ms=3.5, alpha=0.65)
        if not is_finite.all():
            axes.plot(x + jitter[~is_finite], np.full((~is_finite).sum(), top), "^", color=color, ms=5)
