"""Which channels of an array of probabilities a label is made of."""

from dataclasses import dataclass

from .dataset_labels import DatasetLabels
from .label_score import LabelKey

Channels = tuple[int, ...]


@dataclass(frozen=True)
class LabelChannels:
    """What the channels are of.

    Attributes:
        n_channels: Number of channels, K.
        regions: Values of each channel's region; None if channel k is of label k and the channels exclude each other.
    """

    n_channels: int
    regions: tuple[tuple[int, ...], ...] | None

    def __post_init__(self) -> None:
        if self.regions is None and self.n_channels < 2:
            raise ValueError(
                f"probabilities must have a channel for the background and for each label, got {self.n_channels}; "
                "add the background, or name the regions"
            )
        if self.regions is not None and len(self.regions) != self.n_channels:
            raise ValueError(f"each channel must be of one region, got {self.n_channels} for {len(self.regions)}")
        if self.regions is not None and len({frozenset(region) for region in self.regions}) < self.n_channels:
            known = ", ".join(map(_text, self.regions))
            raise ValueError(f"each channel must be of a region of its own, got {known}; leave one out")

    def of(self, values: tuple[int, ...]) -> Channels:
        """Return the channels whose sum is the probability of a label.

        Args:
            values: Values of the label; several are a region.

        Returns:
            The channels; none for the background among regions.

        Raises:
            ValueError: If no channel is of the label.
        """
        if self.regions is None:
            if max(values) >= self.n_channels:
                raise ValueError(
                    f"label {_text(values)} must have a channel, got {self.n_channels} channels for labels 0 to "
                    f"{self.n_channels - 1}; leave it out of the labels"
                )
            return tuple(sorted(values))
        found = [channel for channel, region in enumerate(self.regions) if set(region) == set(values)]
        if not found and values != (0,):
            known = ", ".join(map(_text, self.regions))
            raise ValueError(f"label {_text(values)} must be a region with a channel, got {known}; score one of these")
        return tuple(found)

    def foreground(self) -> tuple[LabelKey, ...]:
        """Return all labels but the background."""
        if self.regions is None:
            return tuple(range(1, self.n_channels))
        return tuple(region[0] if len(region) == 1 else region for region in self.regions)


def channels_of_dataset(n_channels: int, dataset: DatasetLabels | None) -> LabelChannels:
    """Return what the channels of a prediction are of.

    Args:
        n_channels: Number of channels.
        dataset: Labels of dataset.json, None if there is none.

    Returns:
        With regions, each foreground label's channel in the order of dataset.json; else channel k for label k.

    Raises:
        ValueError: If there is but one channel and no regions.
    """
    if dataset is None or not dataset.has_regions:
        return LabelChannels(n_channels, None)
    return LabelChannels(n_channels, tuple(label.values for label in dataset.labels if not label.is_background))


def _text(values: tuple[int, ...]) -> str:
    return "+".join(map(str, values))
