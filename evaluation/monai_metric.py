"""The project's scores as a MONAI metric, for validation while a network trains."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction

from .metric_options import MetricOptions
from .scoring import score
from .training_metrics import check_metric, spacing_of_each


class LabelMetric(CumulativeIterationMetric):
    """One metric of `evaluation.score` for each channel of binarised predictions.

    Args:
        metric: Name of the metric in metrics.csv, such as `dice`, `hd95_mm` or `nsd_2mm`.
        include_background: Whether the first channel is scored.
        reduction: How `aggregate` averages, as in MONAI: `mean`, `mean_batch`, `none`, ...; nan is left out.
        get_not_nans: Whether `aggregate` also returns how many values were averaged.
        nsd_tolerance_mm: Tolerances of the normalised surface distance, the one in the name of `metric` among them.
        options: Definitions of the metrics that have a choice.

    Example:
        In a bundle: `{"_target_": "IgniteMetricHandler", "name": "val_hd95_mm", "output_transform": ...,
        "metric_fn": {"_target_": "evaluation.monai_metric.LabelMetric", "metric": "hd95_mm"}}`.
    """

    def __init__(
        self,
        metric: str = "dice",
        include_background: bool = False,
        reduction: str = "mean",
        get_not_nans: bool = False,
        nsd_tolerance_mm: float | Sequence[float] = 2.0,
        options: MetricOptions | None = None,
    ) -> None:
        super().__init__()
        self.metric = metric
        self.include_background = include_background
        self.reduction = reduction
        self.get_not_nans = get_not_nans
        self.nsd_tolerance_mm = nsd_tolerance_mm
        self.options = options or MetricOptions()
        check_metric(metric, nsd_tolerance_mm, self.options)

    def _compute_tensor(
        self, y_pred: torch.Tensor, y: torch.Tensor | None = None, spacing: Sequence[Any] | None = None, **_: Any
    ) -> torch.Tensor:
        """Score a batch.

        Args:
            y_pred: Binarised predictions, shape (B, C, D, H, W) or (B, C, H, W).
            y: Binarised references of the same shape.
            spacing: Voxel size in mm in the order of the axes, or one for each image of the batch; 1 by default.

        Returns:
            float64, shape (B, C), without the background if that isn't included.

        Raises:
            ValueError: If the shapes differ.
        """
        if y is None or y.shape != y_pred.shape:
            shape = None if y is None else tuple(y.shape)
            raise ValueError(f"y_pred and y must have one shape (B, C, ...), got {tuple(y_pred.shape)} and {shape}")
        ndim = y_pred.ndim - 2
        spacings = spacing_of_each(spacing, len(y_pred), ndim)
        first = 0 if self.include_background else 1
        predictions, references = ((x[:, first:] > 0.5).cpu().numpy() for x in (y_pred, y))
        values = [
            [self._value(*pair, spacing_mm) for pair in zip(image_references, image_predictions, strict=True)]
            for image_references, image_predictions, spacing_mm in zip(references, predictions, spacings, strict=True)
        ]
        return torch.tensor(values, dtype=torch.float64, device=y_pred.device)

    def _value(self, reference: Any, prediction: Any, spacing_mm: Sequence[float]) -> float:
        scores = score(
            reference, prediction, spacing_mm, [1], nsd_tolerance_mm=self.nsd_tolerance_mm, options=self.options
        )
        return scores[1].metrics()[self.metric]

    def aggregate(self, reduction: str | None = None) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Average what was scored since the last `reset`.

        Args:
            reduction: As in the constructor, which it overrides.

        Returns:
            The average, and with `get_not_nans` the number of values behind it.
        """
        data = self.get_buffer()
        if not isinstance(data, torch.Tensor):
            raise ValueError("nothing was scored since the last reset; call the metric on a batch first")
        average, count = do_metric_reduction(data, reduction or self.reduction)  # type: ignore[arg-type]
        return (average, count) if self.get_not_nans else average
