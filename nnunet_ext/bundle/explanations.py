"""Pictures of what a network looked at: a heat map over the slice with the most predicted foreground."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps, image
from monai.engines import IterationEvents
from monai.engines.workflow import Workflow
from torch import nn

from ..atomic import atomic_path
from ..data.label_map import LabelMap
from ..data.resize import resize_slices
from .panels import overlay

_HEIGHT = 384
"""Pixels that small slices are enlarged to, about."""

Explain = Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes network, images (B, C, H, W) and regions (B, H, W); returns maps (B, h, w), each >= 0."""


def grad_cam(layer: str) -> Explain:
    """Return Grad-CAM of a layer: where its features speak for the region's foreground.

    Args:
        layer: Name of the layer in the network.

    Source:
        Selvaraju et al. 2017, arXiv:1610.02391, by `monai.visualize.GradCAM`; for regions Vinogradova et al. 2020,
        arXiv:2002.11434.
    """
    from monai.visualize import GradCAM

    def explain(network: Any, images: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            # MONAI's own postprocessing turns the map upside down
            cam = GradCAM(_RegionScore(network, region), f"network.{layer}", postprocessing=lambda heat: heat)
            return cam(images.clone().requires_grad_(), class_idx=0)[:, 0].detach()

    return explain


class _RegionScore(nn.Module):
    """Score of a region: mean over its pixels of the highest foreground logit."""

    def __init__(self, network: nn.Module, region: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.region = region.float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        foreground = logits[:, 1:] if logits.shape[1] > 1 else logits
        score = (foreground.amax(1) * self.region).flatten(1).sum(1) / self.region.flatten(1).sum(1).clamp(min=1)
        return score[:, None]


class Explanations:
    """Write `<case>.png` for each case: slice, prediction, and heat map over the slice; attach it as a handler.

    Args:
        folder: Where the pictures go.
        network: The network.
        explain: See `Explain`; such as `grad_cam("stage3")`.
        image_size: Canvas (H, W) of the network in pixels.
        label_map: Labels of the data set.
    """

    def __init__(
        self,
        folder: str | Path,
        network: nn.Module,
        explain: Explain,
        image_size: tuple[int, int],
        label_map: LabelMap,
    ) -> None:
        self.folder = Path(folder)
        self.network = network
        self.explain = explain
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.label_map = label_map

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator.

        Args:
            engine: The evaluator.
        """
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Workflow) -> None:
        """Draw the current cases.

        Args:
            engine: The evaluator, with "image" (B, C, D, H, W) and "pred" (B, K, D, H, W) in its output.
        """
        for case, volume, logits in zip(
            engine.state.batch["case"], engine.state.output["image"], engine.state.output["pred"], strict=True
        ):
            label = self.label_map.decode(logits).to(volume.device)
            number = int((label > 0).flatten(1).sum(1).argmax())
            picture = self._draw(volume[:, number], label[number])
            larger = max(1, round(_HEIGHT / picture.shape[1]))
            picture = picture.repeat_interleave(larger, 1).repeat_interleave(larger, 2)
            with atomic_path(self.folder / f"{case}.png") as temporary:
                image.imsave(temporary, np.moveaxis(picture.numpy(), 0, -1), format="png")

    def _draw(self, slice_chw: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        images = resize_slices(slice_chw[None], self.image_size)
        region = resize_slices((label > 0).float()[None, None], self.image_size)[:, 0] > 0.5
        heat = self.explain(self.network, images, region)[:, None].float()
        heat = resize_slices(heat, (label.shape[0], label.shape[1]))[0, 0].cpu()
        heat = heat / heat.max().clamp(min=1e-12)
        colours = torch.from_numpy(colormaps["inferno"](heat.numpy())[..., :3]).movedim(-1, 0).float()
        grey = overlay(slice_chw[0], None)
        return torch.cat([grey, overlay(slice_chw[0], label), 0.5 * grey + 0.5 * colours], dim=2).clamp(0, 1)
