"""Bland-Altman plots of volumes."""

import numpy as np

from ..inputs import Method, ReportInputs
from ..style import Picture, as_picture, facets, legend_below, method_color


def draw_volumes(inputs: ReportInputs) -> Picture | None:
    """Draw for each label the difference of volumes against their mean, a dot a case.

    Args:
        inputs: The scores.

    Returns:
        The picture; None if no volume is known (2D).

    Source:
        Bland and Altman 1986, Lancet 327:307.
    """
    volumes = {label: [_volumes(method, label) for method in inputs.methods] for label in inputs.labels if label != "0"}
    volumes = {label: one for label, one in volumes.items() if any(len(pairs) for pairs in one)}
    if not volumes:
        return None
    figure, axes = facets([inputs.label_names[label] for label in volumes])
    for one, by_method in zip(axes, volumes.values(), strict=True):
        for number, (method, pairs) in enumerate(zip(inputs.methods, by_method, strict=True)):
            color = method_color(number)
            difference = pairs[:, 1] - pairs[:, 0]
            one.plot(pairs.mean(axis=1), difference, ".", color=color, ms=5, alpha=0.7, label=method.name)
            if len(difference):
                one.axhline(difference.mean(), color=color, lw=1.2)
            if len(difference) > 1:
                for side in (-1.96, 1.96):
                    one.axhline(difference.mean() + side * difference.std(ddof=1), color=color, lw=0.8, ls="--")
        one.axhline(0, color="black", lw=0.6)
        one.set_xlabel("mean of both (ml)")
        one.set_ylabel("prediction − reference (ml)")
    legend_below(figure, axes[0])
    caption = "Lines: mean difference (bias); dashed: 95 % limits of agreement, mean ± 1.96 standard deviations."
    return as_picture(figure, "volumes", "Volumes: Bland–Altman", caption)


def _volumes(method: Method, label: str) -> np.ndarray:
    """Return the volumes (reference, prediction) in ml of the cases that hold the label, shape (n, 2)."""
    reference, prediction = (method.stored.values.get((label, f"{of}_ml"), {}) for of in ("reference", "prediction"))
    pairs = np.array([(reference[case], prediction[case]) for case in sorted(reference) if case in prediction])
    pairs = pairs.reshape(-1, 2)
    return pairs[np.isfinite(pairs).all(axis=1)]
