"""What must be done to an image before a network sees it: fixed on the training cases, kept with the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import DatasetError, OptionError
from .normalization import ChannelScheme, Statistics, measure, measure_image, normalize, scheme_name
from .raw_dataset import RawDataset
from .volume_cache import CachedVolume

MASK_RATIO = 0.75
"""nnU-Net measures only non-zero voxels if cropping to them leaves less than this share of the median case."""
INTENSITIES = ("nnunet", "unit")
_HU_WINDOW = Statistics(mean=-1000.0, std=2000.0, percentile_00_5=-1000.0, percentile_99_5=1000.0)
"""In the form of a z-score: air to 0, what is as dense as bone or denser to 1."""


@dataclass(frozen=True)
class Preprocessing:
    """Normalisation of each channel and the axis along which slices are taken.

    Args:
        channels: One scheme a channel.
        slice_axis: 0 (axial), 1 (coronal) or 2 (sagittal), in the canonical order.
        spacing_mm: Median voxel size of the training cases in mm, in the canonical order; none if it isn't known.
            Nothing is resampled to it.
    """

    channels: tuple[ChannelScheme, ...]
    slice_axis: int
    spacing_mm: tuple[float, ...] | None = None

    @property
    def intensities(self) -> str:
        """One of `INTENSITIES`: `unit` if every channel comes to [0, 1], whatever it was called."""
        in_unit = ("RescaleTo01Normalization", "RGBTo01Normalization")
        unit = all(channel.name in in_unit or channel.foreground == _HU_WINDOW for channel in self.channels)
        return "unit" if unit else "nnunet"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads."""
        channels = [channel.to_json() for channel in self.channels]
        known = {} if self.spacing_mm is None else {"spacing_mm": list(self.spacing_mm)}
        return {"slice_axis": self.slice_axis, **known, "channels": channels}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Preprocessing":
        """Read what `to_json` wrote.

        Args:
            content: The JSON object.
        """
        channels = tuple(ChannelScheme.from_json(channel) for channel in content["channels"])
        spacing = content.get("spacing_mm")
        return cls(channels, content["slice_axis"], None if spacing is None else tuple(map(float, spacing)))

    def slices_first(self, array: np.ndarray) -> np.ndarray:
        """Move the slice axis of a canonical array to the front.

        Args:
            array: Shape (..., S, P, L).

        Returns:
            A view of shape (..., D, H, W): D slices of H rows and W columns.
        """
        return np.moveaxis(array, array.ndim - 3 + self.slice_axis, array.ndim - 3)

    def ordered_slices_first(self, values: Sequence[float]) -> list[float]:
        """Put one value for each canonical axis in the order (D, H, W) of `slices_first`.

        Args:
            values: Three values.
        """
        others = list(values)
        return [others.pop(self.slice_axis), *others]

    def slices_back(self, array: np.ndarray) -> np.ndarray:
        """Undo `slices_first`.

        Args:
            array: Shape (..., D, H, W).
        """
        return np.moveaxis(array, array.ndim - 3, array.ndim - 3 + self.slice_axis)

    def normalize(self, image: np.ndarray, statistics: list[dict[str, Statistics]] | None = None) -> torch.Tensor:
        """Normalise an image, or a part of one.

        Args:
            image: Intensities, shape (C, *S).
            statistics: Those of the whole image, one entry a channel; measured here if not given.

        Returns:
            float32 tensor of the same shape.

        Raises:
            DatasetError: If the number of channels is not that of the training data.
        """
        if len(image) != len(self.channels):
            raise DatasetError(f"need {len(self.channels)} channels as in training, got {len(image)}")
        if statistics is None:
            statistics = [measure_image(channel) for channel in image]
        normalized = [normalize(*each) for each in zip(image, self.channels, statistics, strict=True)]
        return torch.from_numpy(np.stack(normalized))


def fit_preprocessing(
    dataset: RawDataset, volumes: list[CachedVolume], slice_axis: int | str = "auto", intensities: str = "nnunet"
) -> Preprocessing:
    """Fix the preprocessing on training cases.

    Args:
        dataset: The data set, for its channel names.
        volumes: Training cases; validation cases take no part.
        slice_axis: 0, 1, 2, or "auto": the axis with the largest median spacing, axial if they are equal; before
            these, an axis whose median length is one voxel, so that images of one slice aren't cut into rows.
        intensities: `nnunet`: as nnU-Net normalises each channel; `unit`: to [0, 1], for CT from -1000 to 1000 HU,
            for other channels between the percentiles of each image.

    Returns:
        The preprocessing.

    Raises:
        OptionError: If `slice_axis` or `intensities` is none of these.
        DatasetError: If a CT channel needs foreground statistics and every label is empty.
    """
    if intensities not in INTENSITIES:
        raise OptionError(f"intensities: need one of {', '.join(INTENSITIES)}, got {intensities!r}")
    spacing_mm = tuple(np.median([volume.spacing_mm for volume in volumes], axis=0).tolist())
    median_shape = np.median([volume.shape for volume in volumes], axis=0).tolist()
    axis = _choose_axis(spacing_mm, median_shape, slice_axis)
    if intensities == "unit":
        units = tuple(_unit_scheme(scheme_name(name)) for name in dataset.channel_names)
        return Preprocessing(units, axis, spacing_mm)
    use_mask = float(np.median([volume.info["crop_ratio"] for volume in volumes])) < MASK_RATIO
    schemes = []
    for number, channel_name in enumerate(dataset.channel_names):
        name, foreground = scheme_name(channel_name), None
        if name == "CTNormalization":
            values = np.concatenate([volume.foreground_intensities[number] for volume in volumes])
            if not values.size:
                raise DatasetError(f"{dataset.root}: CT normalisation needs labelled voxels, but every label is empty")
            foreground = measure(values, clipped=False)
        schemes.append(ChannelScheme(name, use_mask and name == "ZScoreNormalization", foreground))
    return Preprocessing(tuple(schemes), axis, spacing_mm)


def _unit_scheme(name: str) -> ChannelScheme:
    if name == "CTNormalization":
        return ChannelScheme(name, foreground=_HU_WINDOW)
    return ChannelScheme(name if name == "RGBTo01Normalization" else "RescaleTo01Normalization")


def _choose_axis(spacing_mm: tuple[float, ...], median_shape: list[float], slice_axis: int | str) -> int:
    if slice_axis in (0, 1, 2):
        return int(slice_axis)
    if slice_axis != "auto":
        raise OptionError(f"slice_axis: need 0 (axial), 1 (coronal), 2 (sagittal) or auto, got {slice_axis!r}")
    if 1 in median_shape:  # such an axis is the thickest, whatever its spacing; that of a 2D file is made up
        return median_shape.index(1)
    spacing = np.array(spacing_mm)
    return int(np.argmax(spacing > spacing.max() * 0.99))
