"""Pre-training without labels: which images, where the weights go, and pictures of what is restored."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from matplotlib.figure import Figure
from monai.engines.workflow import Workflow
from torch.utils.tensorboard import SummaryWriter

from ..data.folds import fold_cases
from ..data.preprocessing import fit_preprocessing
from ..data.raw_dataset import Case, folder_name, list_cases, open_dataset
from ..data.volume_cache import cache_volumes
from ..errors import OptionError, UserError
from .checkpoints import BEST_FILE
from .model_card import ModelCard
from .training_data import TrainingData

RUNS = "runs/models_genesis_pretrain"
HELD_OUT = 10
"""One in so many images of a folder validates."""


def pretraining_dir(dataset_dir: str | os.PathLike, fold: int | str) -> str:
    """Return the default folder of a pre-training; not among the runs that inference looks through.

    Args:
        dataset_dir: The data set.
        fold: Its fold.
    """
    return str(Path(RUNS, folder_name(dataset_dir), f"fold_{fold}"))


def pretrained_file(dataset_dir: str | os.PathLike, fold: int | str) -> str:
    """Return where the best model of the default pre-training lies, whether it exists or not.

    Args:
        dataset_dir: The data set.
        fold: Its fold.
    """
    return str(Path(pretraining_dir(dataset_dir, fold), BEST_FILE))


def prepare_pretraining(
    dataset_dir: str | os.PathLike,
    fold: int | str,
    images_dir: str | os.PathLike | None,
    image_size: tuple[int, int],
    cache_dir: str | os.PathLike,
    slice_axis: int | str = "auto",
    network_options: dict[str, Any] | None = None,
    intensities: str = "unit",
) -> TrainingData:
    """Open images to pre-train on, decode them into the cache and fix their preprocessing.

    Args:
        dataset_dir: nnU-Net raw data set; its `dataset.json` names channels and file ending.
        fold: Fold whose training images train and whose validation images validate, so that no image of a later
            validation is ever trained on. Labels aren't read, unless nnU-Net's CT normalisation needs them.
        images_dir: Folder of unlabelled images to take instead (one in ten validates); None or empty for the fold.
        image_size: Rows and columns (H, W) of a patch, in voxels.
        cache_dir: Folder of decoded volumes.
        slice_axis: 0 (axial), 1, 2, or "auto".
        network_options: Options of the network, kept beside the weights.
        intensities: How images are normalised, see `fit_preprocessing`.

    Returns:
        Images in training and validation; the labels are empty where they weren't read.

    Raises:
        UserError: If the data set, the fold, the folder or an option cannot be used.
    """
    dataset = open_dataset(dataset_dir)
    if images_dir:
        cases = list(list_cases(Path(images_dir), dataset.file_ending, dataset.num_channels).values())
        if len(cases) < 2:
            raise UserError(f"images_dir: need 2 images at least, one to validate on, got {len(cases)} in {images_dir}")
        validation = cases[::HELD_OUT]
        train = [case for case in cases if case not in validation]
    else:
        split = fold_cases(dataset, fold)
        train, validation = split.train, split.val
    if intensities != "nnunet":
        train, validation = ([Case(case.name, case.images) for case in part] for part in (train, validation))
    together = {case.name: case for case in (*train, *validation)}
    volumes = dict(zip(together, cache_volumes(dataset, list(together.values()), Path(cache_dir)), strict=True))
    chosen = [volumes[case.name] for case in train]
    preprocessing = fit_preprocessing(dataset, chosen, slice_axis, intensities)
    card = replace(ModelCard.of(dataset, preprocessing, image_size, network_options), restores=True)
    return TrainingData(dataset, preprocessing, chosen, [volumes[case.name] for case in validation], card)


def choose_task(task: str, **tasks: Any) -> Any:
    """Return the corruption of a task by its name.

    Args:
        task: One of the names.
        **tasks: Corruptions by name.

    Raises:
        OptionError: If there is no such task.
    """
    if task not in tasks:
        raise OptionError(f"task: need one of {', '.join(tasks)}, got {task!r}")
    return tasks[task]


def lower(current: float, best: float) -> bool:
    """Compare key metrics of which the smaller is the better, and any number is better than NaN.

    Args:
        current: Metric of the validation that just ended.
        best: Best so far.
    """
    return current < best or (math.isnan(best) and not math.isnan(current))


def restoration_panel(original: torch.Tensor, corrupted: torch.Tensor, restored: torch.Tensor) -> torch.Tensor:
    """Put the middle slice of a patch side by side: original, corrupted, restored.

    Args:
        original: First channel, shape (D, H, W); its smallest and largest value become black and white.
        corrupted: The same, damaged.
        restored: What the network made of it.

    Returns:
        Grey values in [0, 1], shape (1, H, 3 * W).
    """
    low, high = float(original.min()), float(original.max())
    middle = [volume[len(volume) // 2].float().cpu() for volume in (original, corrupted, restored)]
    return ((torch.cat(middle, dim=1) - low) / max(high - low, 1e-6)).clamp(0, 1)[None]


class RestorationPanels:
    """Draw original, corrupted and restored patches, to TensorBoard and as PNG; attach it to the evaluator.

    Args:
        output_dir: Folder of the run: `tensorboard`, and `panels/epoch_<n>.png` with a row a patch.
        num_patches: Patches to show at each validation, at most those of its first batch.
    """

    def __init__(self, output_dir: str | Path, num_patches: int = 4) -> None:
        self.output_dir = Path(output_dir)
        self.num_patches = num_patches

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator.

        Args:
            engine: The evaluator.
        """
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Workflow) -> None:
        """Draw the first batch.

        Args:
            engine: The evaluator; items with "image" (corrupted), "label" (original) and "pred" (C, D, H, W).
        """
        if engine.state.iteration > 1 or engine.state.rank != 0:
            return
        rows = [
            restoration_panel(*(item[key][0] for key in ("label", "image", "pred")))
            for item in engine.state.output[: self.num_patches]
        ]
        epoch = engine.state.epoch
        with SummaryWriter(str(self.output_dir / "tensorboard")) as writer:
            writer.add_image("restoration/original corrupted restored", torch.cat(rows, dim=1), epoch)
        file = self.output_dir / "panels" / f"epoch_{epoch:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        figure = _figure(rows)
        figure.savefig(file, dpi=100)


def _figure(rows: list[torch.Tensor]) -> Figure:
    """Draw panels below each other, large enough to be looked at, with the columns' names."""
    height, width = rows[0].shape[1:]
    figure = Figure(figsize=(7.5, 0.3 + 7.5 * len(rows) * height / width), layout="constrained")
    for axis, row in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True):
        axis.imshow(row[0].numpy(), cmap="gray", vmin=0, vmax=1)
        axis.set_xticks([(i + 0.5) * width / 3 for i in range(3)], ["original", "damaged", "restored"])
        axis.xaxis.tick_top()
        axis.tick_params(length=0, labeltop=axis.get_subplotspec().is_first_row(), labelbottom=False)
        axis.set_yticks([])
    return figure
