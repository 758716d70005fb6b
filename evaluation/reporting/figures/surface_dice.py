"""Normalised surface distance as a function of the tolerance."""

import numpy as np

from ..inputs import ReportInputs
from ..nsd_curves import NsdCurves
from ..style import Picture, as_picture, facets, legend_below, method_color


def draw_surface_dice(inputs: ReportInputs, curves: NsdCurves) -> Picture:
    """Draw the mean over cases against the tolerance for each label.

    Args:
        inputs: The scores.
        curves: Values at each tolerance.

    Returns:
        The picture.
    """
    labels = [label for label in inputs.rows if label != "0"]
    figure, axes = facets([inputs.label_names[label] for label in labels])
    for one, label in zip(axes, labels, strict=True):
        for number, method in enumerate(inputs.methods):
            mean = curves.mean(method.name, label)
            if np.isfinite(mean).any():
                one.plot(curves.tolerances_mm, mean, color=method_color(number), label=method.name, lw=1.6)
        one.set_ylim(0, 1.02)
        one.set_xlim(0, max(curves.tolerances_mm))
        one.set_xlabel("tolerance (mm)")
        one.set_ylabel("NSD")
    legend_below(figure, axes[-1])
    caption = "Share of both surfaces within the tolerance, mean over cases; a label that was missed counts as 0."
    return as_picture(figure, "nsd_by_tolerance", "NSD by tolerance", caption)
