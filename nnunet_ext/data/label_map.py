"""How label values become network outputs, and network outputs label values."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DatasetError


@dataclass(frozen=True)
class LabelMap:
    """Labels of a data set: either exclusive values (softmax) or overlapping regions (sigmoid).

    Args:
        names: Foreground names, one an output (without the background of exclusive labels).
        values: For each name the label values that it unites.
        regions_class_order: Value that each region paints, in painting order; None for exclusive labels.
    """

    names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    regions_class_order: tuple[int, ...] | None = None

    @classmethod
    def from_dataset_json(cls, description: dict[str, Any], file: Path) -> "LabelMap":
        """Read the labels of a `dataset.json`.

        Args:
            description: Its content.
            file: Its path, for messages.

        Raises:
            DatasetError: If background is not 0, values are not integers from 1 on, regions lack their
                order, or an ignore label is declared (not supported).

        Source:
            nnU-Net, documentation/dataset_format.md and region_based_training.md.
        """
        if not isinstance(description["labels"], dict):
            raise DatasetError(f"{file}: labels must map names to values, got {description['labels']}")
        labels = dict(description["labels"])
        if labels.pop("background", None) != 0:
            raise DatasetError(f'{file}: labels must contain "background": 0, got {description["labels"]}')
        if "ignore" in labels:
            raise DatasetError(f"{file}: ignore labels are not supported by the bundles; train with nnU-Net instead")
        values = tuple(tuple(value) if isinstance(value, list) else (value,) for value in labels.values())
        if not all(type(value) is int for value in itertools.chain(*values)):
            raise DatasetError(f"{file}: label values must be integers, got {labels}")
        regions = any(isinstance(value, list) for value in labels.values())
        order = description.get("regions_class_order") if regions else None
        if regions and (not isinstance(order, list) or len(order) != len(labels)):
            raise DatasetError(f"{file}: regions need regions_class_order with {len(labels)} values, got {order}")
        if not regions and sorted(v[0] for v in values) != list(range(1, len(values) + 1)):
            raise DatasetError(f"{file}: label values must be consecutive from 1 on, got {labels}")
        if not values:
            raise DatasetError(f"{file}: need at least one foreground label")
        pairs = sorted(zip(values, labels, strict=True)) if not regions else list(zip(values, labels, strict=True))
        return cls(tuple(name for _, name in pairs), tuple(v for v, _ in pairs), tuple(order) if order else None)

    @property
    def has_regions(self) -> bool:
        """Whether outputs are overlapping regions."""
        return self.regions_class_order is not None

    @property
    def num_outputs(self) -> int:
        """Number of network outputs K: background and labels, or regions."""
        return len(self.names) if self.has_regions else len(self.names) + 1

    @property
    def allowed_values(self) -> frozenset[int]:
        """All values that a label map may hold, background included."""
        return frozenset({0}.union(*self.values))

    def encode(self, label: torch.Tensor) -> torch.Tensor:
        """Turn label values into training targets.

        Args:
            label: Values, shape (B, 1, *S); or the masks of regions (B, K, *S), boolean.

        Returns:
            Float targets (B, K, *S): one-hot with background, or regions as 0/1.
        """
        if not self.has_regions:
            indices = label[:, 0].long()
            return torch.nn.functional.one_hot(indices, self.num_outputs).movedim(-1, 1).float()
        if label.dtype == torch.bool:
            return label.float()
        regions = [torch.isin(label, torch.tensor(values, device=label.device)) for values in self.values]
        return torch.cat(regions, dim=1).float()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return softmax over channels, or sigmoid for regions.

        Args:
            logits: Shape (K, *S).
        """
        return torch.sigmoid(logits) if self.has_regions else torch.softmax(logits, dim=0)

    def decode(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits into label values.

        Args:
            logits: Shape (K, *S).

        Returns:
            Values of shape S, uint8 (int32 where a value exceeds 255). Regions are cut at probability 0.5
            and painted in `regions_class_order`, as nnU-Net does.
        """
        if not self.has_regions:
            return logits.argmax(dim=0).to(self._dtype())
        assert self.regions_class_order is not None
        label = torch.zeros(logits.shape[1:], dtype=self._dtype(), device=logits.device)
        regions = self.probabilities(logits) > 0.5  # not logits > 0: the sigmoid of a tiny logit rounds to 0.5
        for channel, value in enumerate(self.regions_class_order):
            label[regions[channel]] = value
        return label

    def _dtype(self) -> torch.dtype:
        return torch.uint8 if max(self.allowed_values) <= np.iinfo(np.uint8).max else torch.int32
