"""The project's scores as a torchmetrics metric, for validation while a network trains."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from .definitions import direction
from .metric_options import DEFAULT_TOLERANCE_MM, MetricOptions
from .scoring import score
from .training_metrics import as_tolerances, check_metric, spacing_of_each


class LabelMetric(Metric):
    """One metric of `evaluation.score`, for each label of label maps or of scores of classes.

    What is kept of each image are all its metrics: in a `MetricCollection` those with the same options share them, and
    `update` scores an image once, but for the first batch, by which the collection compares them; `forward` scores it
    for each. A distance is inf as soon as one image lacks a label that the other map holds, and so is the mean over
    images.

    Args:
        num_classes: Number of classes, the background among them, >= 2.
        metric: Name of the metric in metrics.csv, such as `dice`, `hd95_mm` or `nsd_2mm`.
        include_background: Whether label 0 is scored.
        per_label: Whether `compute` returns a mean for each label.
        ignore_index: Value in the references that marks voxels to leave out.
        nsd_tolerance_mm: Tolerances of the normalised surface distance, the one in the name of `metric` among them.
        options: Definitions of the metrics that have a choice.
        kwargs: What every torchmetrics metric takes, such as `sync_on_compute`.

    Raises:
        ValueError: If there is no such metric, or nothing to score.

    Example:
        >>> metric = LabelMetric(num_classes=3, metric="hd95_mm")
        >>> metric.update(logits, label_map, spacing=(2.5, 0.9766, 0.9766))
        >>> metric.compute()
    """

    is_differentiable = False
    full_state_update = False

    def __init__(
        self,
        num_classes: int,
        metric: str = "dice",
        *,
        include_background: bool = False,
        per_label: bool = False,
        ignore_index: int | None = None,
        nsd_tolerance_mm: float | Sequence[float] = DEFAULT_TOLERANCE_MM,
        options: MetricOptions | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_classes < 2:
            raise ValueError(f"num_classes must be >= 2, the background among them, got {num_classes}")
        self.num_classes = num_classes
        self.metric = metric
        self.labels = tuple(range(0 if include_background else 1, num_classes))
        self.per_label = per_label
        self.ignore_index = ignore_index
        self.nsd_tolerance_mm = as_tolerances(nsd_tolerance_mm)
        self.options = options or MetricOptions()
        check_metric(metric, self.nsd_tolerance_mm, self.options)
        super().set_dtype(torch.float64)
        # Collections merge metrics whose states have equal names and, after one batch, equal values: the name says all
        # that the values depend on, so that two metrics which are equal by chance are never taken for one.
        settings = (num_classes, self.labels, ignore_index, self.nsd_tolerance_mm, self.options)
        self._state = f"values_{zlib.crc32(repr(settings).encode()):08x}"
        self.add_state(self._state, default=[], dist_reduce_fx="cat")

    def set_dtype(self, dst_type: str | torch.dtype) -> "LabelMetric":
        """Leave everything as it is: what is kept are bits of float64, which no other type can hold."""
        return self

    @property
    def higher_is_better(self) -> bool | None:  # type: ignore[override]
        """Return whether more of the metric is better; None if neither is."""
        return {1: True, -1: False, 0: None}[direction(self.metric)]

    def update(self, preds: torch.Tensor, target: torch.Tensor, spacing: Sequence[Any] | None = None) -> None:
        """Score a batch.

        Args:
            preds: Label maps (B, D, H, W) or (B, H, W), or logits or probabilities with the classes as second axis, of
                which the largest counts; one-hot predictions too.
            target: Label maps (B, D, H, W) or (B, H, W). One-hot targets of 2D images can't be told from label maps
                (B, D, H, W), so give their `argmax(1)`.
            spacing: Voxel size in mm in the order of the axes, or one for each image of the batch; 1 by default.

        Raises:
            ValueError: If the shapes don't fit, or a label map holds no labels.
        """
        predictions, references = (_as_array(labels) for labels in (self._label_maps(preds, target), target))
        spacings = spacing_of_each(spacing, len(references), references.ndim - 1)
        values = [self._score(*image) for image in zip(references, predictions, spacings, strict=True)]
        # kept as their bits: collections compare states by their numbers, and nan differs from itself
        bits = torch.tensor(values, dtype=torch.float64).reshape(-1).view(torch.int64)
        getattr(self, self._state).append(bits.to(self.device))

    def _label_maps(self, preds: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        by_class = (target.shape[0], self.num_classes, *target.shape[1:]) if target.ndim else ()
        if target.ndim in (3, 4) and preds.shape in (target.shape, by_class):
            if preds.shape == target.shape:
                return preds
            return (preds.byte() if preds.dtype == torch.bool else preds).argmax(1)
        raise ValueError(
            "target must be label maps (B, D, H, W) or (B, H, W), and preds the same or "
            f"(B, {self.num_classes}, ...), got {tuple(target.shape)} and {tuple(preds.shape)}"
        )

    def _score(self, reference: np.ndarray, prediction: np.ndarray, spacing_mm: Sequence[float]) -> list[list[float]]:
        scores = score(
            reference,
            prediction,
            spacing_mm,
            self.labels,
            nsd_tolerance_mm=self.nsd_tolerance_mm,
            ignore_label=self.ignore_index,
            options=self.options,
        )
        return [list(scores[label].values.values()) for label in self.labels]

    def compute(self) -> torch.Tensor:
        """Average the images since the last reset.

        Returns:
            Mean over labels in each image, then over images; with `per_label` the mean over images for each label,
            shape (labels,). nan (a label in neither map) is left out, and returned where nothing else is there.
        """
        names = self.options.names(self.nsd_tolerance_mm)
        bits = dim_zero_cat(getattr(self, self._state))
        values = bits.view(torch.float64).reshape(-1, len(self.labels), len(names))
        of_metric = values[:, :, names.index(self.metric)]
        return of_metric.nanmean(0) if self.per_label else of_metric.nanmean(1).nanmean()


def _as_array(labels: torch.Tensor) -> np.ndarray:
    labels = labels.detach().cpu()
    return (labels.float() if labels.is_floating_point() else labels).numpy()
