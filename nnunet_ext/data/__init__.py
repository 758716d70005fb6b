"""Data sets in nnU-Net's raw layout: reading, checking, folds, slices, the built-in phantom."""

from ..training.background import BackgroundSchedule
from .augmentation import AUGMENTATIONS, make_augmentation
from .check import Problem, check_dataset
from .corruptions import RandFlipsd, RandLocalShuffled, RandMaskCubesd, RandNonlinearIntensityd, RandPaintd
from .folds import Fold, fold_cases, generate_splits, load_splits
from .label_map import LabelMap
from .patches import PatchDataset
from .preprocessing import Preprocessing, fit_preprocessing
from .raw_dataset import Case, RawDataset, open_dataset
from .samplers import SAMPLERS, AdaptiveSampler, ForegroundSampler, SliceSampler, make_sampler
from .slices import SliceDataset, VolumeDataset
from .volume_cache import CachedVolume, cache_volumes

__all__ = [
    "AUGMENTATIONS",
    "SAMPLERS",
    "AdaptiveSampler",
    "BackgroundSchedule",
    "CachedVolume",
    "Case",
    "Fold",
    "ForegroundSampler",
    "LabelMap",
    "PatchDataset",
    "Preprocessing",
    "Problem",
    "RandFlipsd",
    "RandLocalShuffled",
    "RandMaskCubesd",
    "RandNonlinearIntensityd",
    "RandPaintd",
    "RawDataset",
    "SliceDataset",
    "SliceSampler",
    "VolumeDataset",
    "cache_volumes",
    "check_dataset",
    "fit_preprocessing",
    "fold_cases",
    "generate_splits",
    "load_splits",
    "make_augmentation",
    "make_sampler",
    "open_dataset",
]
