"""From logits to what MONAI's metrics compare."""

from typing import Any

import torch
from monai.transforms import MapTransform

from ..data.label_map import LabelMap


class DecodePredictiond(MapTransform):
    """Turn logits into labels, beside the reference, in the form that MONAI's metrics take.

    Args:
        label_map: Labels of the data set.
        pred_key: Key of the logits (K, *S); replaced by label values (1, *S), or regions (K, *S) as 0/1.
        label_key: Key of the reference (1, *S); encoded likewise.
    """

    def __init__(self, label_map: LabelMap, pred_key: str = "pred", label_key: str = "label") -> None:
        super().__init__([pred_key, label_key])
        self.label_map = label_map
        self.pred_key = pred_key
        self.label_key = label_key

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Transform one item.

        Args:
            data: With both keys; other entries are kept.
        """
        out = dict(data)
        reference = data[self.label_key]
        label = self.label_map.decode(data[self.pred_key])[None]
        out[self.pred_key] = self._encode(label.to(reference.device))  # the logits may be kept on another device
        out[self.label_key] = self._encode(reference)
        return out

    def _encode(self, label: torch.Tensor) -> torch.Tensor:
        return self.label_map.encode(label[None])[0] if self.label_map.has_regions else label
