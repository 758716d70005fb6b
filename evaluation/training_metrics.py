"""What the metrics for training loops have in common: the metric's name, and the voxel size of each image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .metric_options import MetricOptions


def check_metric(metric: str, nsd_tolerance_mm: float | Sequence[float], options: MetricOptions) -> None:
    """Refuse a metric that isn't computed.

    Args:
        metric: Its name.
        nsd_tolerance_mm: Tolerances of the normalised surface distance in mm.
        options: Definitions of the metrics that have a choice.

    Raises:
        ValueError: If there is no such metric; names those that there are.
    """
    known = options.names(as_tolerances(nsd_tolerance_mm))
    if metric not in known:
        raise ValueError(f"metric must be one of {', '.join(known)}, got {metric!r}")


def as_tolerances(nsd_tolerance_mm: float | Sequence[float]) -> tuple[float, ...]:
    """Return one tolerance or several as several."""
    return tuple(nsd_tolerance_mm) if isinstance(nsd_tolerance_mm, Sequence) else (nsd_tolerance_mm,)


def spacing_of_each(spacing: Sequence[Any] | None, n_images: int, ndim: int) -> list[Sequence[float]]:
    """Return the voxel size of each image of a batch.

    Args:
        spacing: Voxel size in mm in the order of the axes, or one for each image, as sequences, arrays or tensors;
            None for 1.
        n_images: Number of images.
        ndim: Number of axes of an image.

    Returns:
        Voxel sizes in mm, `n_images` of them.

    Raises:
        ValueError: If it is neither.
    """
    if spacing is None:
        return [(1.0,) * ndim] * n_images
    sizes = np.array([_on_cpu(one) for one in _on_cpu(spacing)], dtype=float)
    if sizes.ndim == 1:
        return [tuple(sizes.tolist())] * n_images
    if sizes.ndim != 2 or len(sizes) != n_images:
        raise ValueError(
            f"spacing must be {ndim} voxel sizes, or those of each of {n_images} images, got shape {sizes.shape}"
        )
    return [tuple(one) for one in sizes.tolist()]


def _on_cpu(numbers: Any) -> Any:
    return numbers.detach().cpu().numpy() if isinstance(numbers, torch.Tensor) else numbers
