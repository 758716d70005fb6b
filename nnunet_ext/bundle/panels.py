"""Pictures for TensorBoard: input, reference and prediction side by side."""

import numpy as np
import torch
from ignite.engine import Events
from matplotlib import colormaps
from monai.engines.workflow import Workflow
from torch.utils.tensorboard import SummaryWriter

_OPACITY = 0.5


def overlay(image_hw: torch.Tensor, label_hw: torch.Tensor | None) -> torch.Tensor:
    """Draw labels in colour over a grey slice.

    Args:
        image_hw: Slice, shape (H, W); its 1st to 99th percentile become black to white.
        label_hw: Label values, shape (H, W), or None for the slice alone.

    Returns:
        RGB in [0, 1], shape (3, H, W).
    """
    image = image_hw.float().cpu().numpy()
    low, high = np.percentile(image, [1, 99])
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    rgb = np.repeat(grey[None], 3, axis=0)
    if label_hw is not None:
        label = label_hw.long().cpu().numpy()
        colours = colormaps["tab10"](np.arange(10))[:, :3]
        painted = np.moveaxis(colours[(label - 1) % len(colours)], -1, 0)
        rgb = np.where(label > 0, (1 - _OPACITY) * rgb + _OPACITY * painted, rgb)
    return torch.from_numpy(rgb).float()


def panel(image: torch.Tensor, reference: torch.Tensor, prediction: torch.Tensor, rows: int = 3) -> torch.Tensor:
    """Arrange slices of a case: a row a slice, with input, reference and prediction.

    Args:
        image: First channel, shape (D, H, W).
        reference: Label values, shape (D, H, W).
        prediction: Label values, shape (D, H, W).
        rows: Number of slices, spread over those with foreground in the reference or the prediction.

    Returns:
        RGB in [0, 1], shape (3, rows * H, 3 * W).
    """
    used = ((reference > 0) | (prediction > 0)).flatten(1).any(1).nonzero().flatten()
    candidates = used if len(used) else torch.arange(len(image), device=image.device)
    positions = torch.linspace(0, len(candidates) - 1, rows + 2)[1:-1].round().long()
    lines = []
    for number in candidates[positions.to(candidates.device)].tolist():
        parts = [overlay(image[number], label) for label in (None, reference[number], prediction[number])]
        lines.append(torch.cat(parts, dim=2))
    return torch.cat(lines, dim=1)


class PredictionPanels:
    """Put a panel of the first validation cases into TensorBoard; attach it to the evaluator.

    Args:
        log_dir: TensorBoard folder.
        num_cases: Cases to show at each validation.
    """

    def __init__(self, log_dir: str, num_cases: int = 2) -> None:
        self.log_dir = log_dir
        self.num_cases = num_cases
        self._writer: SummaryWriter | None = None

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator.

        Args:
            engine: The evaluator.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Workflow) -> None:
        """Draw the current case, if it is one of the first.

        Args:
            engine: The evaluator, after postprocessing: items with "image" (C, D, H, W), "label" and "pred".
        """
        if engine.state.iteration > self.num_cases or engine.state.rank != 0:
            return
        self._writer = self._writer or SummaryWriter(self.log_dir)
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            reference, prediction = _as_labels(output["label"]), _as_labels(output["pred"])
            picture = panel(output["image"][0], reference, prediction)
            self._writer.add_image(f"validation/{item['case']}", picture, engine.state.epoch)
        self._writer.flush()


def _as_labels(encoded: torch.Tensor) -> torch.Tensor:
    """Collapse (1, D, H, W) label values or (K, D, H, W) regions to one value a voxel."""
    if len(encoded) == 1:
        return encoded[0].long()
    numbers = torch.arange(1, len(encoded) + 1, device=encoded.device).view(-1, 1, 1, 1)
    return (encoded * numbers).amax(dim=0).long()
