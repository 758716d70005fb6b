"""How figures look, and the files that they become."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_METHOD_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#4D4D4D")
"""Distinct for people who see colours differently (after Okabe and Ito)."""

_SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.dpi": 100,
    "font.size": 9,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "text.parse_math": False,
    "svg.hashsalt": "segmentation-report",
}
PNG_DPI = 150
LABEL_COLORS = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#42d4f4", "#f032e6", "#ffe119", "#469990", "#9a6324", "#bfef45",
    "#fabed4", "#dcbeff", "#aaffc3", "#800000", "#808000", "#ffd8b1", "#000075", "#a9a9a9", "#911eb4", "#fffac8",
)  # fmt: skip


def figure_style() -> AbstractContextManager[None]:
    """Return the context in which figures are made."""
    return matplotlib.rc_context(_SETTINGS)


def method_color(number: int) -> str:
    """Return the colour of a method."""
    return _METHOD_COLORS[number % len(_METHOD_COLORS)]


def label_color(number: int) -> str:
    """Return the colour of a label."""
    return LABEL_COLORS[number % len(LABEL_COLORS)]


@dataclass(frozen=True)
class Picture:
    """A figure as files.

    Attributes:
        name: File name without ending.
        title: Heading.
        caption: What it shows, in a sentence or two.
        svg: The figure as SVG; for pictures of images None.
        png: The figure as PNG.
    """

    name: str
    title: str
    caption: str
    svg: bytes | None
    png: bytes


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **axes: Any) -> tuple[Figure, list[Axes]]:
    """Make a figure with a grid of axes.

    Args:
        width: In inches.
        height: In inches.
        rows: Rows of axes.
        columns: Columns of axes.
        axes: Passed to `Figure.subplots`.

    Returns:
        The figure and its axes, row by row.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **axes).ravel())  # type: ignore[call-overload]


def facets(
    names: Sequence[str], width: float = 3.0, height: float = 2.7, most_columns: int = 4
) -> tuple[Figure, list[Axes]]:
    """Make a figure with one pair of axes for each name, as its title.

    Args:
        names: Titles.
        width: Width of one in inches.
        height: Height of one in inches.
        most_columns: Most of them in a row.

    Returns:
        The figure and its axes, in the order of the names.
    """
    columns = max(1, min(most_columns, len(names)))
    rows = ceil(len(names) / columns)
    figure, axes = new_figure(max(width * columns, 5.0), height * rows + 0.4, rows, columns)
    for extra in axes[len(names) :]:
        extra.set_axis_off()
    for one, name in zip(axes, names, strict=False):
        one.set_title(name)
    return figure, axes[: len(names)]


def legend_below(figure: Figure, axes: Axes) -> None:
    """Put one legend for all axes under the figure.

    Args:
        figure: The figure.
        axes: Axes whose labelled artists it names.
    """
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))


def as_picture(figure: Figure, name: str, title: str, caption: str, *, with_svg: bool = True) -> Picture:
    """Render a figure.

    Args:
        figure: The figure.
        name: File name without ending.
        title: Heading.
        caption: What it shows.
        with_svg: Whether it is drawn with lines and text, not with images.

    Returns:
        The picture.
    """
    svg, png = BytesIO(), BytesIO()
    if with_svg:
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    figure.savefig(png, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return Picture(name, title, caption, svg.getvalue() if with_svg else None, png.getvalue())
