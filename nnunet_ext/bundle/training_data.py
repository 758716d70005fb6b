"""Everything that training needs to know of a data set, from its folder and a fold number."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.folds import fold_cases
from ..data.geometry import Geometry
from ..data.image_io import read_geometry
from ..data.label_map import LabelMap
from ..data.preprocessing import Preprocessing, fit_preprocessing
from ..data.raw_dataset import RawDataset, open_dataset
from ..data.unannotated import ENTRY
from ..data.volume_cache import CachedVolume, cache_volumes
from ..errors import DatasetError
from .model_card import ModelCard

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """One fold of a data set, decoded and measured.

    Args:
        dataset: The raw data set.
        preprocessing: Fixed on the training cases.
        train_volumes: Training cases.
        val_volumes: Validation cases.
        card: What is written beside the weights.
    """

    dataset: RawDataset
    preprocessing: Preprocessing
    train_volumes: list[CachedVolume]
    val_volumes: list[CachedVolume]
    card: ModelCard

    @property
    def label_map(self) -> LabelMap:
        """Labels of the data set."""
        return self.dataset.label_map

    @property
    def num_channels(self) -> int:
        """Number of input channels."""
        return self.dataset.num_channels

    @property
    def num_outputs(self) -> int:
        """Number of network outputs."""
        return self.dataset.label_map.num_outputs

    def geometry_of(self, case: str) -> Geometry:
        """Read the grid of a case's image from its header.

        Args:
            case: Name of a labelled case.
        """
        return read_geometry(self.dataset.training_cases()[case].images[0])


def prepare_data(
    dataset_dir: str | os.PathLike,
    fold: int | str,
    image_size: tuple[int, int],
    cache_dir: str | os.PathLike,
    slice_axis: int | str = "auto",
    network_options: dict[str, Any] | None = None,
    intensities: str = "nnunet",
    preprocessing: Preprocessing | None = None,
) -> TrainingData:
    """Open a data set, split it, decode it into the cache and fix its preprocessing.

    Args:
        dataset_dir: nnU-Net raw data set.
        fold: Fold number, or "all".
        image_size: Canvas (H, W) of the network in pixels.
        cache_dir: Folder of decoded volumes, shared by runs and folds.
        slice_axis: 0 (axial), 1, 2, or "auto" (the axis of the thickest slices).
        network_options: Options of the network, kept beside the weights.
        intensities: How images are normalised, see `fit_preprocessing`.
        preprocessing: That of a trained network, which then stands for axis and intensities; if not given, it is
            fixed on the training cases.

    Returns:
        The fold, ready to train.

    Raises:
        UserError: If the data set, the fold or the axis cannot be used.
    """
    dataset = open_dataset(dataset_dir)
    cases = fold_cases(dataset, fold)
    together = {case.name: case for case in (*cases.train, *cases.val)}
    volumes = dict(zip(together, cache_volumes(dataset, list(together.values()), Path(cache_dir)), strict=True))
    _check_unannotated(dataset, volumes)
    train = [volumes[case.name] for case in cases.train]
    preprocessing = preprocessing or fit_preprocessing(dataset, train, slice_axis, intensities)
    card = ModelCard.of(dataset, preprocessing, image_size, network_options)
    return TrainingData(dataset, preprocessing, train, [volumes[case.name] for case in cases.val], card)


def _check_unannotated(dataset: RawDataset, volumes: Mapping[str, CachedVolume]) -> None:
    """Refuse a list of unannotated labels that contradicts the data; say how many cases of the fold it is about."""
    channels = dataset.unannotated.channels
    if unknown := dataset.unknown_cases(channels):
        raise DatasetError(f"{dataset.root / 'dataset.json'}: {ENTRY}: there is no case {unknown[0]!r}")
    listed = sorted(channels.keys() & volumes.keys())
    for case in listed:
        label = np.asarray(volumes[case].label)
        if contradiction := dataset.unannotated.contradiction(case, label, dataset.label_map.names):
            raise DatasetError(f"{case}: {contradiction} (`python -m nnunet_ext check` names all such cases)")
    if summary := dataset.unannotated.summary(volumes):
        logger.info(summary)
