"""Which cases train and which validate: the same folds as nnU-Net's."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import KFold

from ..errors import DatasetError
from .raw_dataset import Case, RawDataset

NUM_FOLDS = 5
SEED = 12345
Split = dict[str, list[str]]


@dataclass(frozen=True)
class Fold:
    """Cases of one fold.

    Args:
        train: Training cases.
        val: Validation cases.
    """

    train: list[Case]
    val: list[Case]


def generate_splits(names: list[str], num_folds: int = NUM_FOLDS, seed: int = SEED) -> list[Split]:
    """Split case names as nnU-Net does when no split file exists.

    Args:
        names: Case names.
        num_folds: Number of folds.
        seed: Seed of the shuffle.

    Returns:
        For each fold the names under "train" and "val".

    Raises:
        DatasetError: If there are fewer cases than folds.

    Source:
        nnU-Net, nnunetv2/utilities/crossval_split.py: a shuffled k-fold over the sorted names.
    """
    if len(names) < num_folds:
        raise DatasetError(
            f"need at least {num_folds} labelled cases for {num_folds} folds, got {len(names)}; "
            "write a splits_final.json of your own, or use fold all"
        )
    ordered = np.sort(names)
    folds = KFold(n_splits=num_folds, shuffle=True, random_state=seed).split(ordered)
    return [{"train": ordered[train].tolist(), "val": ordered[val].tolist()} for train, val in folds]


def load_splits(dataset: RawDataset) -> list[Split]:
    """Return the splits that nnU-Net would use for a data set.

    Args:
        dataset: The data set.

    Returns:
        `$nnUNet_preprocessed/<name>/splits_final.json` if it exists, else `<dataset_dir>/splits_final.json`,
        else `generate_splits` of all labelled cases.

    Raises:
        DatasetError: If both files exist and disagree, or one is garbled.
    """
    candidates = [dataset.root / "splits_final.json"]
    if preprocessed := os.environ.get("nnUNet_preprocessed"):  # noqa: SIM112
        candidates.insert(0, Path(preprocessed) / dataset.name / "splits_final.json")
    files = [file for file in candidates if file.is_file()]
    if not files:
        return generate_splits(list(dataset.training_cases()))
    splits = [_read_splits(file) for file in files]
    if any(other != splits[0] for other in splits[1:]):
        raise DatasetError(f"{files[0]} and {files[1]} hold different splits; keep the one that you mean")
    return splits[0]


def fold_cases(dataset: RawDataset, fold: int | str) -> Fold:
    """Return the training and validation cases of a fold.

    Args:
        dataset: The data set.
        fold: Number from 0 on, or "all" (every case trains and validates, as in nnU-Net).

    Raises:
        DatasetError: If the fold does not exist, has no case to train or to validate, or one without files.
    """
    cases = dataset.training_cases()
    if fold == "all":
        return Fold(list(cases.values()), list(cases.values()))
    splits = load_splits(dataset)
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < len(splits):
        raise DatasetError(f"fold: need 0 to {len(splits) - 1} or all, got {fold!r}")
    split = splits[fold]
    unknown = sorted((set(split["train"]) | set(split["val"])) - set(cases))
    if unknown:
        raise DatasetError(f"splits_final.json: fold {fold} names cases that {dataset.root} lacks: {unknown[:5]}")
    for part in ("train", "val"):
        if not split[part]:
            raise DatasetError(f"splits_final.json: fold {fold} has no case under {part}; fill it, or use fold all")
    return Fold([cases[name] for name in split["train"]], [cases[name] for name in split["val"]])


def _read_splits(file: Path) -> list[Split]:
    try:
        splits = json.loads(file.read_text(encoding="utf-8"))
        return [{"train": sorted(split["train"]), "val": sorted(split["val"])} for split in splits]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f'{file}: need a list of {{"train": [...], "val": [...]}}, one a fold ({error!r})'
        ) from error
