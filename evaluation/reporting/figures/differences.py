"""Paired differences between methods, with their confidence intervals."""

from itertools import combinations

from matplotlib import colormaps

from ...paired_tests import SIGNIFICANCE
from ..inputs import ReportInputs
from ..style import Picture, as_picture, facets, legend_below
from ..titles import metric_title

_MOST_LINES = 120


def _pair_color(number: int) -> tuple[float, ...]:
    """Return the colour of a pair of methods, none of which is a method's."""
    return colormaps["tab20b"]((number * 5 % 20 + 0.5) / 20)


def draw_differences(inputs: ReportInputs) -> Picture:
    """Draw the mean difference of each pair of methods by label, one metric beside the other.

    Args:
        inputs: The scores of at least two methods, compared.

    Returns:
        The picture.
    """
    names = [method.name for method in inputs.methods]
    pairs = list(combinations(names, 2))
    metrics = list(dict.fromkeys(comparison.metric for comparison in inputs.comparisons))
    labels = [row for row in inputs.rows if any(comparison.label == row for comparison in inputs.comparisons)]
    if len(pairs) * len(labels) > _MOST_LINES:
        labels = [inputs.overall] if inputs.overall in labels else labels[:1]
    height = 0.9 + len(labels) * (0.16 * len(pairs) + 0.22)
    figure, axes = facets([f"{metric_title(metric)}: difference" for metric in metrics], 4.2, height, most_columns=3)
    for one, metric in zip(axes, metrics, strict=True):
        for comparison in inputs.comparisons:
            if comparison.metric != metric or comparison.label not in labels:
                continue
            for number, pair in enumerate(pairs):
                result = comparison.pairs[pair]
                y = labels.index(comparison.label) + 0.7 * ((number + 0.5) / len(pairs) - 0.5)
                sure = result.is_sure(comparison.p_holm[pair])
                color = _pair_color(number)
                one.plot([result.low, result.high], [y, y], color=color, lw=1.5)
                one.plot([result.difference], [y], "o", color=color, mfc=color if sure else "white", ms=5)
        one.axvline(0, color="black", lw=0.8)
        one.set_yticks(range(len(labels)), [inputs.label_names[label] for label in labels])
        one.set_ylim(len(labels) - 0.5, -0.5)
        one.grid(axis="y", visible=False)
    for number, (first, second) in enumerate(pairs):
        axes[0].plot([], [], "o-", color=_pair_color(number), label=f"{first} − {second}")
    legend_below(figure, axes[0])
    caption = (
        "Mean over cases of the first method's value minus the second's, with its 95 % BCa bootstrap interval; filled: "
        f"Wilcoxon test below {SIGNIFICANCE:g} after Holm's adjustment, in the direction of the mean. A value of inf "
        "counts as the image's diagonal."
    )
    if len(labels) < len(inputs.rows):
        caption += f" Only {inputs.label_names[labels[0]]}; all labels are in the table."
    return as_picture(figure, "differences", "Paired differences", caption)
