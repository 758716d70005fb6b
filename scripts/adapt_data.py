"""Data sets for `adapt_sam.py`: parts of others, with some of their labels, some of their cases, and own folds."""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.atomic import write_json
from nnunet_ext.data.raw_dataset import Case, RawDataset
from nnunet_ext.errors import OptionError

TRAIN_CASES = 10
SHUFFLE_SEED = 12345


@dataclass(frozen=True)
class Split:
    """Which cases do what; no case does two things.

    Args:
        base: Train the base.
        base_val: Are measured once after it.
        train: Train an adaptation, for each seed.
        val: Choose the learning rate.
        test: Are reported.
    """

    base: list[str]
    base_val: list[str]
    train: list[list[str]]
    val: list[str]
    test: list[str]


def split_cases(base: RawDataset, target: RawDataset, seeds: int, val_cases: int, test_cases: int) -> Split:
    """Draw disjoint parts.

    Args:
        base: Where the base learns; may be the target too, then it gets the cases that the target leaves.
        target: What it is adapted to.
        seeds: Number of seeds, each with training cases of its own.
        val_cases: Validation cases of the target, and of the base.
        test_cases: Test cases of the target.

    Raises:
        OptionError: If there are too few cases.
    """
    names, parts = _shuffled(target), []
    for size in (*[TRAIN_CASES] * seeds, val_cases, test_cases):
        parts.append(names[:size])
        names = names[size:]
    rest = names if base.root.resolve() == target.root.resolve() else _shuffled(base)
    if len(parts[-1]) < test_cases or len(rest) <= val_cases:
        raise OptionError(
            f"cases: need {TRAIN_CASES * seeds + val_cases + test_cases} for the adaptation and more than {val_cases} "
            f"for the base, got {len(_shuffled(target))} in {target.name}; lower --val-cases or --test-cases"
        )
    return Split(rest[val_cases:], rest[:val_cases], parts[:-2], parts[-2], parts[-1])


def _shuffled(dataset: RawDataset) -> list[str]:
    names = sorted(dataset.training_cases())
    random.Random(SHUFFLE_SEED).shuffle(names)
    return names


def derive(source: RawDataset, folder: Path, labels: list[str], folds: list[dict], test: list[str]) -> None:
    """Make a raw data set with some labels and cases of another; images are links.

    Args:
        source: The data set.
        folder: Made; nothing happens if it is complete.
        labels: Names of the labels that stay, renumbered from 1; the others become background.
        folds: "train" and "val" of each fold.
        test: Cases for `imagesTs` and `labelsTs`.

    Raises:
        OptionError: If the data set lacks a label, or it is a region.
    """
    known = source.description["labels"]
    if wrong := [name for name in labels if not isinstance(known.get(name), int)]:
        raise OptionError(f"labels: need some of {', '.join(known)}, each one number, got {', '.join(wrong)}")
    if (folder / "dataset.json").is_file():
        return
    cases = source.training_cases()
    training = sorted({name for fold in folds for part in ("train", "val") for name in fold[part]})
    for part, names in (("Tr", training), ("Ts", test)):
        for name in names:
            _copy(cases[name], folder, part, [known[label] for label in labels])
    write_json(folder / "splits_final.json", folds)
    numbers = {"background": 0, **{name: number for number, name in enumerate(labels, 1)}}
    write_json(folder / "dataset.json", {**source.description, "labels": numbers, "numTraining": len(training)})


def _copy(case: Case, folder: Path, part: str, values: list[int]) -> None:
    assert case.label is not None
    images, labels = folder / f"images{part}", folder / f"labels{part}"
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    for image in case.images:
        (images / image.name).unlink(missing_ok=True)
        (images / image.name).symlink_to(image.resolve())
    old = sitk.ReadImage(str(case.label))
    array = sitk.GetArrayFromImage(old)
    kept = np.zeros(array.shape, np.uint8)
    for number, value in enumerate(values, 1):
        kept[array == value] = number
    new = sitk.GetImageFromArray(kept)
    new.CopyInformation(old)
    sitk.WriteImage(new, str(labels / case.label.name))
