"""Reliability of probabilities, and Dice as a function of the threshold."""

from collections.abc import Iterator, Mapping

import numpy as np

from ...curves_file import Curves, LabelCurves
from ..inputs import ReportInputs
from ..style import Picture, as_picture, facets, legend_below, method_color


def draw_reliability(inputs: ReportInputs, curves: Mapping[str, Curves]) -> Picture:
    """Draw the share of positive voxels against the mean probability, bin by bin, for each label.

    Args:
        inputs: The scores.
        curves: Content of curves.json by method, of the methods that have one.

    Returns:
        The picture.
    """
    labels = _labels(inputs, curves)
    figure, axes = facets([inputs.label_names[label] for label in labels])
    for one, label in zip(axes, labels, strict=True):
        one.plot([0, 1], [0, 1], color="black", lw=0.7, ls=":")
        for name, color, own in _curves_of(inputs, curves, label):
            sizes = 8 + 10 * np.log10(np.maximum(own.n_voxels, 1))
            one.plot(own.mean_probability, own.fraction_positive, color=color, lw=1.3, label=name)
            one.scatter(own.mean_probability, own.fraction_positive, s=sizes, color=color, alpha=0.7)
        one.set_xlim(-0.03, 1.03)
        one.set_ylim(-0.03, 1.03)
        one.set_xlabel("predicted probability")
        one.set_ylabel("share of positives")
    legend_below(figure, axes[0])
    caption = (
        "Voxels of all cases in 15 bins of their predicted probability; dots grow with the logarithm of their number. "
        "On the dotted line probabilities are true; below it they are too high."
    )
    return as_picture(figure, "reliability", "Reliability", caption)


def draw_thresholds(inputs: ReportInputs, curves: Mapping[str, Curves]) -> Picture:
    """Draw the mean Dice over cases against the threshold for each label.

    Args:
        inputs: The scores.
        curves: Content of curves.json by method, of the methods that have one.

    Returns:
        The picture.
    """
    labels = _labels(inputs, curves)
    figure, axes = facets([inputs.label_names[label] for label in labels])
    for one, label in zip(axes, labels, strict=True):
        for name, color, own in _curves_of(inputs, curves, label):
            thresholds, mean = np.asarray(curves[name].thresholds), own.dice.mean
            one.plot(thresholds, mean, color=color, lw=1.4, label=name)
            if np.isfinite(mean).any():
                best = int(np.nanargmax(mean))
                one.plot(thresholds[best], mean[best], "o", color=color, ms=5)
        one.axvline(0.5, color="black", lw=0.7, ls=":")
        one.set_xlim(0, 1)
        one.set_ylim(0, 1.02)
        one.set_xlabel("threshold")
        one.set_ylabel("Dice")
    legend_below(figure, axes[0])
    caption = (
        "Mean Dice over cases if a voxel belongs to the label from this probability on; dot: the best threshold, which "
        "must be applied to other data than those it was chosen on (python -m evaluation.threshold)."
    )
    return as_picture(figure, "thresholds", "Dice by threshold", caption)


def _labels(inputs: ReportInputs, curves: Mapping[str, Curves]) -> list[str]:
    return [label for label in inputs.labels if any(label in one.labels for one in curves.values())]


def _curves_of(
    inputs: ReportInputs, curves: Mapping[str, Curves], label: str
) -> Iterator[tuple[str, str, LabelCurves]]:
    """Yield name, colour and curves of each method that has curves of a label."""
    for number, method in enumerate(inputs.methods):
        own = curves[method.name].labels.get(label) if method.name in curves else None
        if own is not None:
            yield method.name, method_color(number), own
