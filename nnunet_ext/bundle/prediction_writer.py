"""Write predictions as nnU-Net's prediction folder, in the geometry of the input image."""

import logging
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines.workflow import Workflow

from ..atomic import atomic_path
from ..data.geometry import Geometry, from_canonical
from ..data.image_io import write_label
from .model_card import ModelCard

logger = logging.getLogger(__name__)


def saved_arrays(file: Path) -> set[str]:
    """Return the names of the arrays in an npz file; none if it is missing or damaged.

    Args:
        file: Path of the file.
    """
    try:
        with np.load(file) as arrays:
            return set(arrays.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return set()


def write_prediction(
    output_dir: str | Path,
    case: str,
    logits: torch.Tensor,
    geometry: Geometry,
    card: ModelCard,
    save_probabilities: bool = False,
    save_logits: bool = False,
) -> None:
    """Write the files of one case; the label map comes last and marks the case as finished.

    Args:
        output_dir: Prediction folder.
        case: Name of the case.
        logits: Raw logits, shape (K, D, H, W), slices first.
        geometry: Grid of the input image.
        card: Description of the model.
        save_probabilities: Whether `<case>.npz` gets `probabilities` (K, Z, Y, X), float32.
        save_logits: Whether `<case>.npz` gets `logits` (K, Z, Y, X), float32.
    """
    folder = Path(output_dir)
    present = saved_arrays(folder / f"{case}.npz")  # made again too, so that one file never mixes two models

    def to_image(array: torch.Tensor) -> np.ndarray:
        canonical = card.preprocessing.slices_back(array.cpu().numpy())
        return np.ascontiguousarray(from_canonical(canonical, geometry))

    arrays = {}
    if save_probabilities or "probabilities" in present:
        arrays["probabilities"] = to_image(card.label_map.probabilities(logits))
    if save_logits or "logits" in present:
        arrays["logits"] = to_image(logits)
    if arrays:
        with atomic_path(folder / f"{case}.npz") as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        properties = {"sitk_stuff": geometry.sitk_stuff(), "spacing": list(geometry.spacing_zyx_mm())}
        with atomic_path(folder / f"{case}.pkl") as temporary:
            temporary.write_bytes(pickle.dumps(properties))
    label = to_image(card.label_map.decode(logits))
    write_label(folder / (case + card.file_ending), label, geometry)


class PredictionWriter:
    """Write each predicted case of an evaluator; attach it as a handler.

    It runs before postprocessing has turned the logits into something else.

    Args:
        output_dir: Prediction folder.
        card: Description of the model.
        geometry_of: Looks up the grid of a case's input image by the case's name.
        save_probabilities: Whether to save probabilities.
        save_logits: Whether to save logits.
    """

    def __init__(
        self,
        output_dir: str | Path,
        card: ModelCard,
        geometry_of: Callable[[str], Geometry],
        save_probabilities: bool = False,
        save_logits: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.card = card
        self.geometry_of = geometry_of
        self.save_probabilities = save_probabilities
        self.save_logits = save_logits

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator.

        Args:
            engine: The evaluator.
        """
        from monai.engines import IterationEvents

        engine.add_event_handler(Events.STARTED, self.write_card)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.name_case)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.write_batch)

    def write_card(self, engine: Workflow) -> None:
        """Write `dataset.json` and `plans.json` into the prediction folder.

        Args:
            engine: The evaluator.
        """
        self.card.write(self.output_dir)

    def name_case(self, engine: Workflow, error: BaseException) -> None:
        """Say which case was being predicted or written when the run broke off, and what is kept.

        Args:
            engine: The evaluator.
            error: What ended the run; it is raised again.
        """
        if isinstance(error, Exception) and isinstance(engine.state.batch, dict) and "case" in engine.state.batch:
            cases = ", ".join(engine.state.batch["case"])
            logger.error(f"case {cases} failed; those before it lie in {self.output_dir}, the same command goes on")
        raise error

    def write_batch(self, engine: Workflow) -> None:
        """Write the cases of the current batch.

        Args:
            engine: The evaluator, with "case" in its batch and "pred" (B, K, D, H, W) in its output.
        """
        batch: dict[str, Any] = engine.state.batch
        for case, logits in zip(batch["case"], engine.state.output["pred"], strict=True):
            write_prediction(
                self.output_dir,
                case,
                logits,
                self.geometry_of(case),
                self.card,
                save_probabilities=self.save_probabilities,
                save_logits=self.save_logits,
            )
