"""Check a raw data set file by file, so that problems are known before hours of training."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..errors import DatasetError
from .geometry import Geometry
from .image_io import read_channels, read_label
from .raw_dataset import Case, RawDataset, find_cases, open_dataset
from .unannotated import ENTRY


@dataclass(frozen=True)
class Problem:
    """Something wrong with a file.

    Args:
        path: The file.
        message: What is wrong, and what to do.
        fatal: False for what only deserves a look, such as an empty label.
    """

    path: Path
    message: str
    fatal: bool = True

    def __str__(self) -> str:
        """Return one line for a terminal."""
        text = self.message if str(self.path) in self.message else f"{self.path}: {self.message}"
        return f"{'ERROR  ' if self.fatal else 'WARNING'} {text}"


def check_dataset(dataset_dir: str | Path, progress: bool = False) -> list[Problem]:
    """Check every labelled case of a raw data set, and the images to predict, with the labels that these have.

    Args:
        dataset_dir: Folder of the data set.
        progress: Whether to show a progress bar.

    Returns:
        All problems, in the order of the files; empty if there is none. Strays such as `.DS_Store` are ignored.

    Raises:
        DatasetError: If the data set as a whole cannot be opened.
    """
    dataset = open_dataset(dataset_dir)
    problems: list[Problem] = []
    cases = dataset.training_cases() if "dataset" in dataset.description else _pair_files(dataset, problems)
    for case in tqdm(cases.values(), desc="check", unit="case", disable=not progress):
        problems.extend(check_case(case, dataset))
    for name in dataset.unknown_cases(dataset.unannotated.channels.keys() - cases.keys()):
        problems.append(Problem(dataset.root / "dataset.json", f"{ENTRY}: there is no case {name!r}"))
    problems.extend(_test_problems(dataset, progress))
    return problems


def check_case(case: Case, dataset: RawDataset) -> list[Problem]:
    """Check the files of one labelled case.

    Args:
        case: Its files.
        dataset: The data set, for the labels that are allowed.

    Returns:
        Its problems: unreadable files, different grids, label values that are not declared, an empty label.
    """
    assert case.label is not None
    geometry, problems = _read_images(case)
    try:
        label, label_geometry = read_label(case.label)
    except DatasetError as error:
        problems.append(Problem(case.label, str(error)))
    if problems or geometry is None:
        return problems
    return list(_label_problems(case, label, geometry.difference(label_geometry), dataset))


def _read_images(case: Case) -> tuple[Geometry | None, list[Problem]]:
    try:
        return read_channels(list(case.images))[1], []
    except DatasetError as error:
        return None, [Problem(case.images[0], str(error))]


def _test_problems(dataset: RawDataset, progress: bool) -> Iterator[Problem]:
    folder = dataset.root / "imagesTs"
    if not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir()):
        return
    try:
        cases, incomplete = find_cases(folder, dataset.file_ending, dataset.num_channels)
    except DatasetError as error:
        yield Problem(folder, str(error), fatal=False)
        return
    for name, message in incomplete.items():
        yield Problem(folder / name, message)
    for case in tqdm(cases.values(), desc="check imagesTs", unit="case", disable=not progress):
        label = dataset.root / "labelsTs" / (case.name + dataset.file_ending)
        has_label = label.is_file()
        yield from check_case(Case(case.name, case.images, label), dataset) if has_label else _read_images(case)[1]


def check_label_values(label: np.ndarray, path: Path, dataset: RawDataset) -> None:
    """Refuse a label map with values that `dataset.json` does not declare.

    Args:
        label: Integer array of any shape.
        path: Its file, for the message.
        dataset: The data set.

    Raises:
        DatasetError: Naming file, allowed and found values.
    """
    allowed = dataset.label_map.allowed_values
    found = set(np.unique(label).tolist())
    if extra := sorted(found - allowed):
        raise DatasetError(
            f"{path}: label values must be in {sorted(allowed)} (dataset.json), got {_shorten(sorted(found))}; "
            f"fix the file or declare {_shorten(extra)}"
        )


def _label_problems(case: Case, label: np.ndarray, difference: str | None, dataset: RawDataset) -> Iterator[Problem]:
    assert case.label is not None
    if difference:
        yield Problem(
            case.label,
            f"{case.label}: label and image must lie on one grid, but {case.label.name} and {case.images[0].name} "
            f"have {difference}; does the label belong to this image?",
        )
    try:
        check_label_values(label, case.label, dataset)
    except DatasetError as error:
        yield Problem(case.label, str(error))
    if contradiction := dataset.unannotated.contradiction(case.name, label, dataset.label_map.names):
        yield Problem(case.label, f"{case.label}: {contradiction}")
    if not label.any() and case.name not in dataset.unannotated.channels:
        yield Problem(case.label, f"{case.label}: the label is empty (background only)", fatal=False)


def _pair_files(dataset: RawDataset, problems: list[Problem]) -> dict[str, Case]:
    folder = dataset.root / "imagesTr"
    images, incomplete = find_cases(folder, dataset.file_ending, dataset.num_channels)
    problems.extend(Problem(folder / name, message) for name, message in incomplete.items())
    labels = {path.name.removesuffix(dataset.file_ending): path for path in _label_files(dataset)}
    for name in sorted(images.keys() - labels.keys()):
        problems.append(
            Problem(images[name].images[0], "image without a label; add the label or move the image to imagesTs")
        )
    for name in sorted(labels.keys() - images.keys() - incomplete.keys()):
        problems.append(Problem(labels[name], "label without an image; add the image or remove the label"))
    both = sorted(images.keys() & labels.keys())
    return {name: Case(name, images[name].images, labels[name]) for name in both}


def _label_files(dataset: RawDataset) -> list[Path]:
    folder = dataset.root / "labelsTr"
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.endswith(dataset.file_ending) and not path.name.startswith(".")
    ]


def _shorten(values: Iterable[int], limit: int = 10) -> str:
    listed = list(values)
    text = ", ".join(str(value) for value in listed[:limit])
    return "{" + text + (", ...}" if len(listed) > limit else "}")
