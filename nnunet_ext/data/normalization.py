"""Intensity normalisation by channel name, as nnU-Net defines it, made robust against outliers."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

SCHEMES = {
    "ct": "CTNormalization",
    "nonorm": "NoNormalization",
    "zscore": "ZScoreNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
LOWER, UPPER = 0.5, 99.5
"""Percentiles between which intensities are clipped."""

_MAX_SAMPLES = 2_000_000
_MIN_STD = 1e-8


@dataclass(frozen=True)
class Statistics:
    """Intensity statistics of a set of voxels, in the image's units.

    Args:
        mean: Mean after clipping.
        std: Standard deviation after clipping.
        percentile_00_5: Lower clip.
        percentile_99_5: Upper clip.
    """

    mean: float
    std: float
    percentile_00_5: float
    percentile_99_5: float


@dataclass(frozen=True)
class ChannelScheme:
    """How one channel is normalised.

    Args:
        name: nnU-Net's name of the scheme.
        use_mask: Whether only non-zero voxels are measured and changed (skull-stripped images).
        foreground: Statistics of the labelled voxels of all training cases; CT only.
    """

    name: str
    use_mask: bool = False
    foreground: Statistics | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "ChannelScheme":
        """Read what `to_json` wrote.

        Args:
            content: The JSON object.
        """
        foreground = Statistics(**content["foreground"]) if content["foreground"] else None
        return cls(content["name"], content["use_mask"], foreground)


def scheme_name(channel_name: str) -> str:
    """Return nnU-Net's normalisation for a channel name.

    Args:
        channel_name: As in `dataset.json`; case does not matter. Unknown names get z-scores.

    Source:
        nnU-Net, documentation/dataset_format.md and explanation_normalization.md.
    """
    return SCHEMES.get(channel_name.casefold(), "ZScoreNormalization")


def measure(values: np.ndarray, *, clipped: bool = True) -> Statistics:
    """Measure intensities.

    Args:
        values: Intensities, any shape, at least one. Beyond two million, an even subset sets the percentiles.
        clipped: Whether mean and standard deviation are those after clipping to the percentiles.

    Returns:
        The statistics, computed in float64.
    """
    flat = np.asarray(values).reshape(-1)
    step = -(-flat.size // _MAX_SAMPLES)
    low, high = (float(p) for p in np.percentile(flat[::step], [LOWER, UPPER]))
    used = np.clip(flat, low, high) if clipped else flat
    return Statistics(float(used.mean(dtype=np.float64)), float(used.std(dtype=np.float64)), low, high)


def measure_image(channel: np.ndarray) -> dict[str, Statistics]:
    """Measure one channel of one image, over all voxels and over the non-zero ones.

    Args:
        channel: Intensities of any shape.

    Returns:
        Statistics under "all" and "nonzero" (equal to "all" if every voxel is zero).
    """
    everything = measure(channel)
    nonzero = channel[channel != 0]
    return {"all": everything, "nonzero": measure(nonzero) if nonzero.size else everything}


def crop_ratio(image: np.ndarray) -> float:
    """Return the share of the volume that remains after cropping to the non-zero region.

    Args:
        image: Channels, shape (C, Z, Y, X).
    """
    boxes = ndimage.find_objects((image != 0).any(axis=0).astype(np.uint8))
    if not boxes or boxes[0] is None:
        return 1.0
    cropped = np.prod([axis.stop - axis.start for axis in boxes[0]])
    return float(cropped / np.prod(image.shape[1:]))


def normalize(channel: np.ndarray, scheme: ChannelScheme, image: dict[str, Statistics]) -> np.ndarray:
    """Normalise one channel, or any part of it.

    Args:
        channel: Intensities of any shape.
        scheme: How.
        image: Statistics of the whole image that the part belongs to, from `measure_image`.

    Returns:
        float32 array of the same shape. CT: clipped to the foreground's percentiles, then z-scored with the
        foreground's mean and deviation. Others: clipped to the image's own percentiles (nnU-Net does not
        clip here: one hot voxel flattens its whole image), then z-scored; the std is never below 1e-8.
    """
    values = channel.astype(np.float32)
    if scheme.name == "NoNormalization":
        return values
    if scheme.name == "RGBTo01Normalization":
        return values / np.float32(255)
    if scheme.name == "CTNormalization":
        assert scheme.foreground is not None
        return _z_score(values, scheme.foreground)
    stats = image["nonzero" if scheme.use_mask else "all"]
    if scheme.name == "RescaleTo01Normalization":
        low, high = stats.percentile_00_5, stats.percentile_99_5
        return (np.clip(values, low, high) - np.float32(low)) / np.float32(max(high - low, _MIN_STD))
    scaled = _z_score(values, stats)
    return np.where(channel != 0, scaled, np.float32(0)) if scheme.use_mask else scaled


def _z_score(values: np.ndarray, stats: Statistics) -> np.ndarray:
    clipped = np.clip(values, stats.percentile_00_5, stats.percentile_99_5)
    return ((clipped - np.float32(stats.mean)) / np.float32(max(stats.std, _MIN_STD))).astype(np.float32)
