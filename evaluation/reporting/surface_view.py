"""Still pictures of label surfaces, drawn without a graphics card."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from scipy import ndimage

from .style import Picture, as_picture, label_color, new_figure
from .worst_cases import WorstCase

_GRID = 130
"""Voxels along the longest side of what is drawn."""

_VIEWS = {"from the front": (0.0, 15.0), "from the right": (75.0, 15.0)}
"""Turn about the long axis of the body and tilt, in degrees."""

_SMOOTHING = 1.6
_AMBIENT = 0.3
_LIGHT = np.array([0.35, -0.85, -0.4]) / np.linalg.norm([0.35, -0.85, -0.4])
"""Direction to the light, along (S, P, L) as seen."""


def draw_surfaces(case: WorstCase, labels: Sequence[str], name: str) -> Picture | None:
    """Draw the surfaces of reference and predictions side by side, from two directions.

    Args:
        case: The case.
        labels: Keys of the labels, the same as in the case's slices, for their colours.
        name: File name without ending.

    Returns:
        The picture; None in 2D.
    """
    if case.reference.ndim == 2:
        return None
    maps = {"reference": case.reference, **case.predictions}
    values = {label: [int(value) for value in label.split("+")] for label in labels if label != "0"}
    numbered = {key: _numbered(label_map, values) for key, label_map in maps.items()}
    box = _box_of_all(numbered.values())
    numbered = {key: _isotropic(label_map[box], case.spacing_mm) for key, label_map in numbered.items()}
    width, height = 2.6 * len(maps), 2.8 * len(_VIEWS)
    figure, axes = new_figure(max(width, 4.0), height, len(_VIEWS), len(maps))
    for row, (view, (turn, tilt)) in enumerate(_VIEWS.items()):
        pictures = [_rendered(label_map, turn, tilt) for label_map in numbered.values()]
        frame = _box_of_all([picture.min(axis=-1) < 1 for picture in pictures])
        for column, (key, picture) in enumerate(zip(maps, pictures, strict=True)):
            one = axes[row * len(maps) + column]
            one.imshow(picture[frame], interpolation="bilinear")
            one.set_axis_off()
            if row == 0:
                one.set_title(key)
            if column == 0:
                one.text(0, 0.5, view, transform=one.transAxes, rotation=90, ha="right", va="center", fontsize=8)
    caption = "Surfaces of reference and predictions, from the front and from the patient's right"
    caption += "." if case.is_oriented else ", as far as the order of the axes tells: the file doesn't say how it lies."
    return as_picture(figure, name, case.case, caption, with_svg=False)


def _numbered(label_map: np.ndarray, values: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Return the map with labels numbered from 1 in the order of their colours; later regions cover earlier ones."""
    numbers = np.zeros(label_map.shape, np.uint8)
    for number, own in enumerate(values.values()):
        numbers[np.isin(label_map, own)] = number % 255 + 1
    return numbers


def _box_of_all(maps: Iterable[np.ndarray]) -> tuple[slice, ...]:
    """Return the box that holds what isn't 0 in any of the maps."""
    together = np.logical_or.reduce([one > 0 for one in maps])
    boxes = ndimage.find_objects(together.astype(np.uint8))
    return boxes[0] if boxes else (slice(None),) * together.ndim


def _isotropic(label_map: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the map on a cubic grid that fits any turn of it, the nearest label each."""
    size_mm = np.multiply(label_map.shape, spacing_mm)
    step_mm = size_mm.max() / _GRID
    side = int(np.ceil(np.linalg.norm(size_mm) / step_mm))
    centre = (np.array(label_map.shape) - 1) / 2
    scale = step_mm / np.asarray(spacing_mm)
    offset = centre - scale * (side - 1) / 2
    return ndimage.affine_transform(label_map, scale, offset, (side,) * 3, order=0, mode="grid-constant")


def _rendered(label_map: np.ndarray, turn: float, tilt: float) -> np.ndarray:
    """Return a picture (H, W, 3) in [0, 1] of what is seen first along parallel rays, lit from beside the eye."""
    turned = _turned(label_map, turn, tilt)
    depth = (turned > 0).argmax(axis=1)
    numbers = np.take_along_axis(turned, depth[:, None], axis=1)[:, 0]
    picture = np.ones((*numbers.shape, 3))
    seen = depth[numbers > 0]
    for number, box in enumerate(ndimage.find_objects(turned), start=1):
        here = numbers == number
        if box is None or not here.any():
            continue
        rows, columns = np.nonzero(here)
        normals = _normals(turned, number, box, (rows, depth[here], columns))
        shade = _AMBIENT + (1 - _AMBIENT) * np.clip(normals @ _LIGHT, 0, 1)
        fade = 1 - 0.35 * (depth[here] - seen.min()) / max(1, np.ptp(seen))
        picture[here] = np.array(to_rgb(label_color(number - 1))) * (shade * fade)[:, None]
    return picture[::-1]


def _turned(label_map: np.ndarray, turn: float, tilt: float) -> np.ndarray:
    """Turn a cubic map (S, P, L) about its first axis, then tilt it towards the eye, which looks along the second."""
    a, b = np.deg2rad((turn, tilt))
    about = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    towards = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    matrix = about @ towards
    centre = (np.array(label_map.shape) - 1) / 2
    return ndimage.affine_transform(label_map, matrix, centre - matrix @ centre, order=0, mode="grid-constant")


def _normals(turned: np.ndarray, number: int, box: tuple[slice, ...], places: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the outward unit normals of a label at some voxels in its box, shape (n, 3)."""
    margin = int(3 * _SMOOTHING) + 1
    mask = np.pad(turned[box] == number, margin).astype(np.float32)
    smooth = ndimage.gaussian_filter(mask, _SMOOTHING)
    inside = [place - one.start + margin for place, one in zip(places, box, strict=True)]
    slopes = []
    for axis in range(3):
        before, after = ([index + (step if i == axis else 0) for i, index in enumerate(inside)] for step in (-1, 1))
        slopes.append(smooth[tuple(before)] - smooth[tuple(after)])
    normals = np.stack(slopes, axis=-1)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
