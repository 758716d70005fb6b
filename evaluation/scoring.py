"""Score one prediction against one reference, both label maps in memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from .engine.bit_masks import fill_mask, mask_shape, remove_bits, unpacked
from .engine.compiled import one_process_at_a_time
from .engine.flat_maps import FlatMap, axes_by_stride
from .engine.label_counts import EMPTY_BOX, Box, LabelCounts, count_labels
from .engine.label_index import LabelIndex, distinct_values
from .engine.scratch import Scratch
from .extra_metrics import EXTRA_METRICS
from .label_map import as_label_map, foreground_values
from .label_score import LabelKey, LabelScore, Scores
from .metric_options import DEFAULT_TOLERANCE_MM, MetricOptions, checked_tolerance, hd_name, nsd_name
from .overlap import OverlapCounts, overlap_counts
from .requested_labels import checked_ignored, checked_labels
from .surface import BOUNDARIES, accepted_mm, assd_mm, hausdorff_mm, masd_mm, surface_dice

_DEFAULTS = MetricOptions()


def score(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    labels: Sequence[LabelKey] | None = None,
    *,
    nsd_tolerance_mm: float | Sequence[float] | Mapping[LabelKey, float | Sequence[float]] = DEFAULT_TOLERANCE_MM,
    ignore_label: int | None = None,
    options: MetricOptions = _DEFAULTS,
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
        options: Definitions of the metrics that have a choice.

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
    if options.wants_calibration:
        raise ValueError("also: calibration needs probabilities, which score() isn't given; use score_probabilities")
    regions = None if labels is None else checked_labels(labels)
    pair = _Pair.of(reference, prediction, spacing, regions, checked_ignored(ignore_label))
    if regions is None:
        found = [value for value in pair.occurring() if value not in (0, ignore_label)]
        regions = {value: (value,) for value in (found if set(found) - {1} else [1])}
    tolerances = {label: _tolerances(label, nsd_tolerance_mm) for label in regions}
    return Scores({label: pair.score(values, tolerances[label], options) for label, values in regions.items()})


@dataclass(frozen=True)
class _Pair:
    """Two label maps, counted.

    Attributes:
        reference: Label map.
        prediction: Label map of the same shape.
        axes: Which of the caller's axes each of the maps' is.
        spacing_mm: Voxel size in the order of the maps' axes; two numbers for 2D.
        index: Numbers of the labels.
        counts: What `count_labels` found.
        ignored_value: Value in the reference that marks voxels to leave out.
        scratch: Memory for masks and surfaces.
    """

    reference: FlatMap
    prediction: FlatMap
    axes: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    index: LabelIndex
    counts: LabelCounts
    ignored_value: int | None
    scratch: Scratch = field(default_factory=Scratch)

    @classmethod
    def of(
        cls,
        reference: np.ndarray,
        prediction: np.ndarray,
        spacing_mm: tuple[float, ...],
        regions: Mapping[LabelKey, tuple[int, ...]] | None,
        ignored_value: int | None,
    ) -> "_Pair":
        axes = axes_by_stride(reference)  # counts and distances don't depend on the order of the axes, the time does
        spacing = tuple(spacing_mm[axis] for axis in axes)
        first, second = (FlatMap.of(label_map.transpose(axes)) for label_map in (reference, prediction))
        if regions is not None:
            wanted = {value for values in regions.values() for value in values} | {0}
        elif reference.itemsize == prediction.itemsize == 1:
            wanted = set(range(256))
        else:
            wanted = {value for label_map in (first, second) for value in distinct_values(label_map)} | {0}
        index = _label_index(tuple(sorted(wanted)))
        counts = count_labels(first, second, index, ignored_value)
        return cls(first, second, tuple(axes), spacing, index, counts, ignored_value)

    def occurring(self) -> tuple[int, ...]:
        """Return the label values that occur in either map, ascending."""
        return tuple(self.index.values[number] for number in sorted(self._numbers_there) if number < self.index.other)

    @cached_property
    def _numbers_there(self) -> set[int]:
        return set(np.flatnonzero(self.counts.in_reference + self.counts.in_prediction).tolist())

    def score(self, values: tuple[int, ...], tolerances_mm: tuple[float, ...], options: MetricOptions) -> LabelScore:
        numbers = self.index.numbers(values)
        if self._numbers_there.isdisjoint(numbers):
            return absent_score(self.counts.n_voxels, tolerances_mm, options)
        counts = overlap_counts(self.counts, numbers)
        masks = self._masks(numbers)
        distances = for_nsd = BOUNDARIES[options.boundary](masks[0], masks[1], self.spacing_mm, math.inf, self.scratch)
        if options.nsd_boundary != options.boundary:
            largest_mm = accepted_mm(max(tolerances_mm, default=0.0))
            for_nsd = BOUNDARIES[options.nsd_boundary](masks[0], masks[1], self.spacing_mm, largest_mm, self.scratch)
        voxel_ml = float(np.prod(self.spacing_mm)) / 1000 if len(self.spacing_mm) == 3 else float("nan")
        metrics = {
            "dice": counts.dice,
            "iou": counts.iou,
            "precision": counts.precision,
            "sensitivity": counts.sensitivity,
            "specificity": counts.specificity,
            "vs": counts.volumetric_similarity,
            "voe": counts.volumetric_overlap_error,
            "hd_mm": hausdorff_mm(distances),
            **{hd_name(p): hausdorff_mm(distances, p, options.hd_directions) for p in options.hd_percentiles},
            "assd_mm": assd_mm(distances),
            "masd_mm": masd_mm(distances),
            **{nsd_name(tolerance): surface_dice(for_nsd, tolerance) for tolerance in tolerances_mm},
            "rvd": counts.relative_volume_difference,
            "reference_ml": counts.reference_voxels * voxel_ml,
            "prediction_ml": counts.prediction_voxels * voxel_ml,
            **self._extra_metrics(masks, options),
        }
        return LabelScore(counts, metrics)

    def _extra_metrics(self, masks: Sequence[np.ndarray], options: MetricOptions) -> dict[str, float]:
        if not options.also:
            return {}
        caller = np.argsort(self.axes)  # a skeleton depends on the order of the axes
        reference, prediction = (unpacked(mask, len(self.axes) == 2).transpose(caller) for mask in masks)
        spacing_mm = tuple(self.spacing_mm[axis] for axis in caller)
        metrics: dict[str, float] = {}
        for group in options.also:
            extra = EXTRA_METRICS[group]
            values = extra.values(reference, prediction, spacing_mm, options.boundary_width_mm)
            metrics |= dict(zip(extra.names(options.boundary_width_mm), values, strict=True))
        return metrics

    def _masks(self, numbers: tuple[int, ...]) -> list[np.ndarray]:
        planes, lines, columns = self.reference.array.shape
        whole: Box = ((0, planes), (0, lines), (0, columns))
        box = whole if 0 in numbers else self.counts.joint_box(numbers)
        filled = (whole, whole) if 0 in numbers else self.counts.boxes(numbers)
        assert box is not None, "a label that occurs has a box"
        shape = mask_shape(box)
        masks = [self.scratch.array(f"mask {number}", shape) for number in range(2)]
        for mask, label_map, own in zip(masks, (self.reference, self.prediction), filled, strict=True):
            fill_mask(mask, label_map, box, self.index, numbers, own or EMPTY_BOX)
        if self.ignored_value is not None:
            ignored_index = LabelIndex(tuple(sorted({0, self.ignored_value})))
            ignored = self.scratch.array("ignored", shape)
            fill_mask(ignored, self.reference, box, ignored_index, ignored_index.numbers([self.ignored_value]))
            for mask in masks:
                remove_bits(mask, ignored)
        return masks


def warm_up() -> None:
    """Compile everything that scoring needs, or load it from disk; one process at a time does."""
    reference, prediction = np.zeros((2, 40, 40, 8), np.uint8)
    reference[0, 0, 0] = prediction[-1, -1, -1] = 1
    with one_process_at_a_time():
        for kind in (np.uint8, np.int32):
            maps = [label_map.astype(kind) for label_map in (reference, prediction)]
            foreground_values(*maps)
            score(
                maps[0],
                maps[1],
                (1, 1, 1),
                ignore_label=2,
                options=MetricOptions(boundary="dual", nsd_boundary="voxel"),
            )


def absent_score(n_voxels: int, tolerances_mm: Sequence[float], options: MetricOptions) -> LabelScore:
    """Return the score of a label that neither map holds: every metric nan.

    Args:
        n_voxels: Number of voxels of the image, those to ignore left out.
        tolerances_mm: Tolerances of the normalised surface distance in mm.
        options: Definitions of the metrics that have a choice.

    Returns:
        The score.
    """
    names = _names(options, tuple(tolerances_mm))
    return LabelScore(OverlapCounts(0, 0, 0, n_voxels), dict.fromkeys(names, float("nan")))


_names = lru_cache(maxsize=256)(MetricOptions.names)  # asked for with each slice, like the next
_label_index = lru_cache(maxsize=16)(LabelIndex)


def _tolerances(label: LabelKey, wanted: float | Sequence[float] | Mapping) -> tuple[float, ...]:
    for_label = wanted.get(label, DEFAULT_TOLERANCE_MM) if isinstance(wanted, Mapping) else wanted
    several = for_label if isinstance(for_label, Sequence) else (for_label,)
    return tuple(checked_tolerance(tolerance) for tolerance in several)


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
