"""Score one prediction against one reference, both label maps in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .label_map import Box, LabelMapPair, as_label_map, foreground_values, joint_box, mask_of, value_boxes
from .overlap import OverlapCounts, confusion_matrix, overlap_counts
from .surface import assd_mm, hausdorff_mm, masd_mm, surface_distances
from .surface_dice import surface_dice, weighted_distances

LabelKey = int | tuple[int, ...]
"""One label value, or the values that make up a region."""

DEFAULT_TOLERANCE_MM = 2.0


@dataclass(frozen=True)
class LabelScore:
    """All metrics of one label. What a metric is when a mask is empty: see `evaluation.definitions`.

    Attributes:
        counts: The label's voxels in the confusion matrix.
        dice: In [0, 1].
        iou: In [0, 1].
        precision: In [0, 1].
        sensitivity: In [0, 1].
        specificity: In [0, 1].
        vs: Volumetric similarity, in [0, 1].
        voe: Volumetric overlap error, in [0, 1].
        hd_mm: Hausdorff distance.
        hd95_mm: Larger of the two directed 95th percentiles.
        assd_mm: Average symmetric surface distance.
        masd_mm: Mean average surface distance.
        nsd: Normalised surface distance by tolerance in mm, each in [0, 1]; also as attributes, `score.nsd_2mm`.
    """

    counts: OverlapCounts
    dice: float
    iou: float
    precision: float
    sensitivity: float
    specificity: float
    vs: float
    voe: float
    hd_mm: float
    hd95_mm: float
    assd_mm: float
    masd_mm: float
    nsd: Mapping[float, float]

    @property
    def is_missed(self) -> bool:
        """Return whether the reference holds the label and the prediction doesn't."""
        return self.counts.reference_voxels > 0 and self.counts.prediction_voxels == 0

    @property
    def is_spurious(self) -> bool:
        """Return whether the prediction holds the label and the reference doesn't."""
        return self.counts.reference_voxels == 0 and self.counts.prediction_voxels > 0

    def metrics(self) -> dict[str, float]:
        """Return every metric under the name that it has in metrics.csv, in the order that it has there."""
        values = {name: float(getattr(self, name)) for name in SCALAR_METRICS}
        return values | {nsd_name(tolerance): value for tolerance, value in self.nsd.items()}

    def __getattr__(self, name: str) -> float:
        if name.startswith("nsd_"):
            for tolerance, value in self.nsd.items():
                if name == nsd_name(tolerance):
                    return value
        raise AttributeError(f"a LabelScore has no {name!r}")


SCALAR_METRICS = tuple(name for name in LabelScore.__dataclass_fields__ if name not in ("counts", "nsd"))
"""Names of the metrics that take no parameter, in the order of metrics.csv."""


class Scores(Mapping[LabelKey, LabelScore]):
    """Scores by label. With a single label its metrics are attributes too: `score(a, b, spacing_mm=s).dice`."""

    def __init__(self, by_label: Mapping[LabelKey, LabelScore]) -> None:
        self._by_label = dict(by_label)

    def __getitem__(self, label: LabelKey) -> LabelScore:
        return self._by_label[label]

    def __iter__(self) -> Iterator[LabelKey]:
        return iter(self._by_label)

    def __len__(self) -> int:
        return len(self._by_label)

    def __repr__(self) -> str:
        return f"Scores({self._by_label!r})"

    def __getattr__(self, name: str) -> float:
        if name.startswith("_"):
            raise AttributeError(name)
        if len(self) != 1:
            labels = ", ".join(map(str, self))
            raise AttributeError(
                f"{name}: these are scores of {len(self)} labels ({labels}); choose one: scores[label]"
            )
        return getattr(next(iter(self.values())), name)


def nsd_name(tolerance_mm: float) -> str:
    """Return the name of the normalised surface distance at a tolerance.

    Args:
        tolerance_mm: Tolerance in mm, >= 0.

    Returns:
        The name, for example `nsd_2mm` or `nsd_1.5mm`.
    """
    return f"nsd_{tolerance_mm:.12g}mm"


def score(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    labels: Sequence[LabelKey] | None = None,
    *,
    nsd_tolerance_mm: float | Sequence[float] | Mapping[LabelKey, float | Sequence[float]] = DEFAULT_TOLERANCE_MM,
    ignore_label: int | None = None,
) -> Scores:
    """Compute overlap and surface metrics of a prediction.

    Args:
        reference: True label map, shape (D, H, W) or (H, W): boolean, or integer values >= 0.
        prediction: Predicted label map of the same shape.
        spacing_mm: Voxel size in mm in array axis order, each > 0.
        labels: Labels to score; a tuple of values is a region, scored as their union. By default 1 if both maps hold
            nothing but 0 and 1, else all non-zero values of both maps.
        nsd_tolerance_mm: Tolerance of the normalised surface distance in mm, >= 0: one, several, or a mapping from
            label to one or several (labels that aren't in it: 2 mm).
        ignore_label: Value in the reference that marks voxels to leave out of every metric.

    Returns:
        Scores by label, in the order of `labels`.

    Raises:
        ValueError: If the arrays aren't label maps of one shape in 2D or 3D, or an option is out of range.

    Example:
        >>> reference = np.zeros((30, 30, 30), bool)
        >>> reference[5:25, 5:25, 5:25] = True
        >>> prediction = np.roll(reference, 3, axis=0)
        >>> round(score(reference, prediction, spacing_mm=(0.9766, 0.9766, 0.9766)).hd_mm, 4)
        2.9298
    """
    reference = as_label_map(reference, "reference")
    prediction = as_label_map(prediction, "prediction")
    spacing = _checked_spacing(reference, prediction, spacing_mm)
    ignored = None if ignore_label is None else reference == ignore_label
    if ignored is not None:
        reference, prediction = (np.where(ignored, np.uint8(0), m) for m in (reference, prediction))
    if labels is None:
        labels = foreground_values(reference, prediction)
        labels = (1,) if set(labels) <= {1} else labels
    regions = {label: _region(label) for label in labels}
    tolerances = {label: _tolerances(label, nsd_tolerance_mm) for label in labels}

    pair = LabelMapPair.from_maps(reference, prediction)
    matrix = confusion_matrix(pair.reference, pair.prediction)
    if ignored is not None:
        matrix[0, 0] -= np.count_nonzero(ignored)
    boxes = [value_boxes(m) for m in (pair.reference, pair.prediction)]
    scores: dict[LabelKey, LabelScore] = {}
    for label, values in regions.items():
        numbers = pair.numbers(values)
        counts = overlap_counts(matrix, numbers)
        if 0 in numbers:
            box: Box | None = tuple(slice(0, n) for n in reference.shape)
        else:
            box = joint_box(boxes, numbers)
        scores[label] = _score_label(pair, numbers, counts, box, spacing, tolerances[label], ignored)
    return Scores(scores)


def _score_label(
    pair: LabelMapPair,
    numbers: Sequence[int],
    counts: OverlapCounts,
    box: Box | None,
    spacing: tuple[float, ...],
    tolerances: tuple[float, ...],
    ignored: np.ndarray | None,
) -> LabelScore:
    if counts.in_neither or box is None:
        return absent_score(tolerances)
    masks = [mask_of(label_map[box], numbers) for label_map in (pair.reference, pair.prediction)]
    if ignored is not None and 0 in numbers:
        masks = [mask & ~ignored[box] for mask in masks]
    distances = surface_distances(masks[0], masks[1], spacing)
    weighted = weighted_distances(masks[0], masks[1], spacing)
    return LabelScore(
        counts=counts,
        dice=counts.dice,
        iou=counts.iou,
        precision=counts.precision,
        sensitivity=counts.sensitivity,
        specificity=counts.specificity,
        vs=counts.volumetric_similarity,
        voe=counts.volumetric_overlap_error,
        hd_mm=hausdorff_mm(distances),
        hd95_mm=hausdorff_mm(distances, 95),
        assd_mm=assd_mm(distances),
        masd_mm=masd_mm(distances),
        nsd={tolerance: surface_dice(weighted, tolerance) for tolerance in tolerances},
    )


def absent_score(tolerances_mm: Sequence[float]) -> LabelScore:
    """Return the score of a label that neither map holds: every metric nan.

    Args:
        tolerances_mm: Tolerances of the normalised surface distance in mm.

    Returns:
        The score.
    """
    nan = float("nan")
    metrics = dict.fromkeys(SCALAR_METRICS, nan)
    return LabelScore(counts=OverlapCounts(0, 0, 0, 0), nsd=dict.fromkeys(tolerances_mm, nan), **metrics)


def checked_tolerance(tolerance_mm: float) -> float:
    """Return a tolerance as a number, if it is one that makes sense.

    Args:
        tolerance_mm: Tolerance of the normalised surface distance in mm.

    Returns:
        The tolerance.

    Raises:
        ValueError: If it isn't a finite number >= 0.
    """
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ValueError(f"nsd_tolerance_mm must be a number >= 0, got {tolerance_mm}; usual values are 1 to 5")
    return float(tolerance_mm)


def _tolerances(label: LabelKey, wanted: float | Sequence[float] | Mapping) -> tuple[float, ...]:
    for_label = wanted.get(label, DEFAULT_TOLERANCE_MM) if isinstance(wanted, Mapping) else wanted
    several = for_label if isinstance(for_label, Sequence) else (for_label,)
    return tuple(checked_tolerance(tolerance) for tolerance in several)


def _region(label: LabelKey) -> tuple[int, ...]:
    values = label if isinstance(label, tuple) else (label,)
    if not values or len(set(values)) < len(values) or any(value != int(value) or value < 0 for value in values):
        raise ValueError(f"a label must be an integer >= 0 or a tuple of different ones, got {label!r}")
    return tuple(int(value) for value in values)


def _checked_spacing(reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> tuple[float, ...]:
    if reference.shape != prediction.shape:
        raise ValueError(
            f"reference and prediction must have one shape, got {reference.shape} and {prediction.shape}; "
            "resample the prediction onto the reference"
        )
    if reference.ndim not in (2, 3):
        raise ValueError(f"label maps must be (D, H, W) or (H, W), got shape {reference.shape}; drop channel axes")
    spacing = tuple(float(size) for size in spacing_mm)
    if len(spacing) != reference.ndim or not all(np.isfinite(size) and size > 0 for size in spacing):
        raise ValueError(
            f"spacing_mm must be {reference.ndim} numbers > 0 in array axis order for shape {reference.shape}, "
            f"got {spacing}"
        )
    return spacing
