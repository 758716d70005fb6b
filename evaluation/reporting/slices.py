"""Slices of a case with the contours of reference and predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .style import Picture, as_picture, label_color, new_figure
from .worst_cases import WorstCase

_VIEWS = ("axial", "coronal", "sagittal")
_LINES: dict[str, Any] = {"solid": "solid", "dashed": (0, (2.5, 0.8))}
_WIDTHS = {"solid": 0.7, "dashed": 1.3}


def draw_slices(
    case: WorstCase, labels: Sequence[str], names: Mapping[str, str], values: Mapping[str, str], name: str
) -> Picture:
    """Draw a row of slices for each method, through the places where most is wrong.

    Args:
        case: The case.
        labels: Keys of the labels to draw.
        names: Their names.
        values: What to say of each method's result.
        name: File name without ending.

    Returns:
        The picture.
    """
    masks = {label: [int(value) for value in label.split("+")] for label in labels if label != "0"}
    cuts = [cut for cut in find_cuts(case, masks) if _is_readable(case, cut[0])]
    size_mm = np.multiply(case.reference.shape, case.spacing_mm)
    in_plane = [np.delete(size_mm, axis) if case.reference.ndim == 3 else size_mm for axis, _ in cuts]
    widths = [columns / rows for rows, columns in in_plane]
    height = 3.0
    figure, axes = new_figure(
        float(np.clip(height * sum(widths) + 0.6, 4, 15)),
        height * len(case.predictions) + 0.7,
        len(case.predictions),
        len(cuts),
        gridspec_kw={"width_ratios": widths},
    )
    window = _window(case.image)
    for row, (method, prediction) in enumerate(case.predictions.items()):
        for column, (axis, index) in enumerate(cuts):
            one = axes[row * len(cuts) + column]
            _draw_slice(one, case, prediction, masks, axis, index, window)
            if row == 0 and case.reference.ndim == 3:
                one.set_title(_VIEWS[axis] if case.is_oriented else f"axis {axis}, slice {index + case.first[axis]}")
            if case.is_oriented and axis < 2:
                for side, text in ((0.02, "R"), (0.98, "L")):
                    one.text(side, 0.5, text, transform=one.transAxes, color="white", fontsize=8, ha="center")
        axes[row * len(cuts)].set_ylabel(f"{method}\n{values.get(method, '')}", fontsize=9)
    shown = list(masks)
    handles = [
        Patch(facecolor=(0.5, 0.5, 0.5, 0.3), edgecolor="black", lw=_WIDTHS["solid"]),
        Line2D([], [], color="black", lw=_WIDTHS["dashed"], ls=_LINES["dashed"]),
        *(Line2D([], [], color=label_color(i), lw=3) for i in range(len(shown))),
    ]
    texts = ["reference", "prediction", *(f" {names[label]}" for label in shown)]  # matplotlib hides a leading _
    figure.legend(handles, texts, loc="outside lower center", ncols=max(2, int(figure.get_figwidth() / 1.5)))
    caption = "Filled: reference; dashed: prediction. Each view through the slice with the most wrong voxels."
    if case.is_oriented:
        caption += " The patient's right is on the left of axial and coronal views; sagittal views look to the left."
    return as_picture(figure, name, case.case, caption, with_svg=False)


def _is_readable(case: WorstCase, axis: int) -> bool:
    """Return whether a view isn't a mere strip, as those along the slices of a thin volume are."""
    if case.reference.ndim == 2 or axis == 0:
        return True
    rows, columns = np.delete(np.multiply(case.reference.shape, case.spacing_mm), axis)
    return bool(min(rows, columns) * 6 >= max(rows, columns))


def find_cuts(case: WorstCase, masks: Mapping[str, Sequence[int]]) -> list[tuple[int, int]]:
    """Return where most is wrong.

    Args:
        case: The case.
        masks: Values of each label to look at.

    Returns:
        Axes and indices of the slices; of a 2D image (-1, 0).
    """
    if case.reference.ndim == 2:
        return [(-1, 0)]
    wanted = [value for values in masks.values() for value in values]
    wrong = np.zeros(case.reference.shape, dtype=np.int32)
    reference = np.where(np.isin(case.reference, wanted), case.reference, 0)
    for prediction in case.predictions.values():
        wrong += np.where(np.isin(prediction, wanted), prediction, 0) != reference
    if not wrong.any():
        wrong += reference > 0
    by_axis = [wrong.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    return [(axis, int(by_axis[axis].argmax())) for axis in range(3)]


def _window(image: np.ndarray | None) -> tuple[float, float]:
    if image is None:
        return 0.0, 1.0
    low, high = np.percentile(image[np.isfinite(image)], (1, 99))
    return float(low), float(max(high, low + 1e-6))


def _cut(array: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Return a slice, the patient's head above in coronal and sagittal views."""
    if array.ndim == 2:
        return array
    plane = array.take(index, axis)
    return plane if axis == 0 else plane[::-1]


def _draw_slice(
    axes: Axes,
    case: WorstCase,
    prediction: np.ndarray,
    masks: Mapping[str, Sequence[int]],
    axis: int,
    index: int,
    window: tuple[float, float],
) -> None:
    reference = _cut(case.reference, axis, index)
    predicted = _cut(prediction, axis, index)
    rows, columns = np.delete(case.spacing_mm, axis) if case.reference.ndim == 3 else case.spacing_mm
    grey = np.zeros(reference.shape) if case.image is None else _cut(case.image, axis, index)
    axes.imshow(grey, cmap="gray", vmin=window[0], vmax=window[1], aspect=rows / columns, interpolation="nearest")
    for number, values in enumerate(masks.values()):
        for label_map, style in ((reference, "solid"), (predicted, "dashed")):
            mask = np.isin(label_map, values)
            if mask.any():
                x, y = (np.arange(-1, size + 1) for size in mask.shape[::-1])
                if label_map is reference:
                    axes.contourf(x, y, np.pad(mask, 1), [0.5, 1.5], colors=[label_color(number)], alpha=0.25)
                line: dict[str, Any] = {"colors": [label_color(number)], "linestyles": [_LINES[style]]}
                axes.contour(x, y, np.pad(mask, 1), [0.5], linewidths=_WIDTHS[style], **line)
    axes.set_xlim(-0.5, reference.shape[1] - 0.5)
    axes.set_ylim(reference.shape[0] - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
