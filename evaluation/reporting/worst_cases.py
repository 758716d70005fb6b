"""The cases that went worst, with their images and label maps, cut to what the labels take up."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from ..case_images import read_case
from ..errors import CaseError
from ..geometry import Geometry, check_same_geometry
from ..metric_choice import MetricChoice
from ..readers import LABEL_ENDINGS, LabelImage, read_intensities
from .case_tasks import case_tasks
from .inputs import ReportInputs

_MARGIN_MM = 15.0
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0, 1.0])
_SHOWN_ANATOMY = ("S", "P", "L")
"""Array axes of a volume as it is shown: axial slices have the patient's front above and left side on the right."""


@dataclass(frozen=True)
class WorstCase:
    """A case, ready to be shown. Arrays are cut to the same box; volumes are turned to axes (S, P, L).

    Attributes:
        case: Its name.
        value: Its value of the metric by which it was chosen, by the method that it went worst with.
        image: Grey values, shape (D, H, W) or (H, W); None if no image was found.
        reference: Label map of the same shape.
        predictions: Label map by method, for the methods whose file could be read.
        spacing_mm: Voxel size in array axis order.
        is_oriented: Whether the file says how the patient lies.
        first: Index of the first voxel of each axis in the whole image.
        unannotated: Keys of the labels that nobody has annotated in it.
    """

    case: str
    value: float
    image: np.ndarray | None
    reference: np.ndarray
    predictions: Mapping[str, np.ndarray]
    spacing_mm: tuple[float, ...]
    is_oriented: bool
    first: tuple[int, ...]
    unannotated: frozenset[str] = frozenset()


MOST_SHOWN_LABELS = 12


def most_wrong_labels(case: WorstCase, labels: Sequence[str]) -> list[str]:
    """Return the labels to draw, whose colours can still be told apart.

    Args:
        case: The case.
        labels: Keys of its labels.

    Returns:
        Those that somebody has annotated, if they are few; else those with the most wrong voxels by any method, in
        their own order.
    """
    labels = [label for label in labels if label not in case.unannotated]
    if len(labels) <= MOST_SHOWN_LABELS:
        return labels
    wrong = {}
    for label in labels:
        values = [int(value) for value in label.split("+")]
        reference = np.isin(case.reference, values)
        wrong[label] = max(
            (np.count_nonzero(np.isin(one, values) != reference) for one in case.predictions.values()), default=0
        )
    kept = sorted(labels, key=lambda label: -wrong[label])[:MOST_SHOWN_LABELS]
    return [label for label in labels if label in kept]


def choose_worst(inputs: ReportInputs, metric: str, better: int, number: int) -> list[tuple[str, float]]:
    """Return the cases whose worst value by any method is worst.

    Args:
        inputs: The scores.
        metric: Metric to choose by, of the whole segmentation.
        better: 1 if more of it is better, -1 if less is.
        number: How many.

    Returns:
        Cases and their values, the worst first.
    """
    cases = sorted({case for method in inputs.methods for case in method.files})
    worst = []
    for case in cases:
        values = [better * method.case_value(case, inputs.overall, metric)[0] for method in inputs.methods]
        known = [value for value in values if not np.isnan(value)]
        if known:
            worst.append((case, better * min(known)))
    return sorted(worst, key=lambda one: (better * one[1], one[0]))[:number]


def load_worst(
    inputs: ReportInputs, chosen: Sequence[tuple[str, float]], images: Path | None
) -> tuple[list[WorstCase], list[str]]:
    """Read the files of some cases.

    Args:
        inputs: The scores; summary.json names the files.
        chosen: Cases and their values.
        images: Folder of the images; by default the one that nnU-Net's layout has beside the references.

    Returns:
        The cases that could be read, and what couldn't.
    """
    cases, warnings = [], []
    for case, value in chosen:
        try:
            loaded, missing = _load(inputs, case, value, images)
            cases.append(loaded)
            warnings += missing
        except CaseError as error:
            warnings.append(f"worst cases: {error}")
    return cases, warnings


def _load(inputs: ReportInputs, case: str, value: float, images: Path | None) -> tuple[WorstCase, list[str]]:
    read, warnings = {}, []
    for method in inputs.methods:
        for task in case_tasks(method, MetricChoice()):
            if task.case != case:
                continue
            try:
                read[method.name] = read_case(task)
            except CaseError as error:
                warnings.append(f"worst cases: {error}")
    if not read:
        raise CaseError(f"{case} can't be shown, none of its predictions can be read")
    reference = next(iter(read.values())).reference
    ignored = next(method.ignore_label for method in inputs.methods if method.name in read)
    fitting = {
        name: np.where(reference.array == ignored, 0, one.prediction.array)
        if ignored is not None
        else one.prediction.array
        for name, one in read.items()
        if one.reference.path == reference.path
    }
    warnings += [
        f"worst cases: {case}: {name} was scored against another file" for name in read.keys() - fitting.keys()
    ]
    image, missing = _image(case, reference, images)
    shown, spacing_mm, is_oriented = _as_shown([reference.array, *fitting.values()], reference.geometry)
    wanted = sorted({int(value) for key in inputs.drawable_labels for value in key.split("+")} - {0})
    box = _box([np.isin(label_map, wanted) for label_map in shown], spacing_mm)
    cut = [np.ascontiguousarray(label_map[box]) for label_map in shown]
    if image is not None:
        image = _as_shown([image], reference.geometry)[0][0][box]
    predictions = dict(zip(fitting, cut[1:], strict=True))
    first = tuple(one.start or 0 for one in box)
    unannotated = frozenset(key for method in inputs.methods for key in method.stored.unannotated.get(case, ()))
    shown_case = WorstCase(case, value, image, cut[0], predictions, spacing_mm, is_oriented, first, unannotated)
    return shown_case, warnings + missing


def _image(case: str, reference: LabelImage, folder: Path | None) -> tuple[np.ndarray | None, list[str]]:
    """Return the grey values of a case, or None and why there are none."""
    labels, geometry = reference.path.parent, reference.geometry
    beside = labels.with_name(labels.name.replace("labels", "images", 1))
    folders = [folder] if folder is not None else [beside] if beside != labels else []
    endings = [ending for group in LABEL_ENDINGS for ending in group]
    names = [f"{case}{channel}{ending}" for channel in ("_0000", "") for ending in endings]
    path = next((place / name for place in folders for name in names if (place / name).is_file()), None)
    if path is None:
        return None, [f"worst cases: {case} is shown without its image, none was found; name the folder with --images"]
    try:
        array, own = read_intensities(path)
        if array.ndim == len(geometry.shape) + 1:
            array = array[..., :3].mean(axis=-1)
        if array.dtype.names is not None:
            array = np.mean([array[channel].astype(np.float32) for channel in array.dtype.names[:3]], axis=0)
        if array.shape != geometry.shape:
            raise CaseError(f"{path}: has shape {array.shape}, its reference {geometry.shape}")
        if own.affines and geometry.affines:
            check_same_geometry(own, geometry, path, reference.path)
    except CaseError as error:
        return None, [f"worst cases: {case} is shown without its image: {error}"]
    image = array.astype(np.float32)
    if not np.isfinite(image).any():
        return None, [f"worst cases: {case} is shown without its image: {path} has no finite value"]
    return image, []


def _as_shown(arrays: Sequence[np.ndarray], geometry: Geometry) -> tuple[list[np.ndarray], tuple[float, ...], bool]:
    """Turn volumes to axes (S, P, L), as near as turning by quarters comes."""
    if len(geometry.shape) == 2 or not geometry.affines:
        return list(arrays), geometry.spacing_mm, False
    orientation = nib.orientations.io_orientation(np.diag(_LPS_TO_RAS) @ geometry.affines[0])
    wanted = nib.orientations.axcodes2ornt(_SHOWN_ANATOMY)
    turn = nib.orientations.ornt_transform(orientation, wanted)
    turned = [nib.orientations.apply_orientation(array, turn) for array in arrays]
    spacing_mm = [0.0] * 3
    for axis, (place, _) in enumerate(turn):
        spacing_mm[int(place)] = geometry.spacing_mm[axis]
    return turned, tuple(spacing_mm), True


def _box(masks: Sequence[np.ndarray], spacing_mm: Sequence[float]) -> tuple[slice, ...]:
    """Return the box that holds all masks and a margin, the whole image if they are empty."""
    together = np.logical_or.reduce(masks)
    box = []
    for axis, size in enumerate(together.shape):
        others = tuple(other for other in range(together.ndim) if other != axis)
        there = np.flatnonzero(together.any(axis=others))
        if not there.size:
            return (slice(None),) * together.ndim
        margin = round(max(_MARGIN_MM, 0.25 * (there[-1] - there[0]) * spacing_mm[axis]) / spacing_mm[axis])
        box.append(slice(max(0, there[0] - margin), min(size, there[-1] + margin + 1)))
    return tuple(box)
