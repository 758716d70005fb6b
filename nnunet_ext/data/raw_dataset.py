"""A data set in nnU-Net's raw layout: its description, its cases and their files."""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import DatasetError
from .image_io import NATURAL_IMAGE_ENDINGS
from .label_map import LabelMap
from .unannotated import UnannotatedLabels


@dataclass(frozen=True)
class Case:
    """Files of one case.

    Args:
        name: Case identifier, the file name without channel number and ending.
        images: One file a channel, in channel order.
        label: Label map, or None for an unlabelled case.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None


@dataclass(frozen=True)
class RawDataset:
    """Description of a raw data set, as its `dataset.json` gives it.

    Args:
        root: The data set's folder.
        description: Content of `dataset.json`.
    """

    root: Path
    description: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Folder name, such as `Dataset004_Hippocampus`."""
        return folder_name(self.root)

    @property
    def channel_names(self) -> list[str]:
        """Channel names in the order of their numbers."""
        channels = self.description["channel_names"]
        return [channels[key] for key in sorted(channels, key=int)]

    @property
    def num_channels(self) -> int:
        """Number of input channels."""
        return len(self.description["channel_names"])

    @property
    def file_ending(self) -> str:
        """Ending of image and label files, with its dot."""
        return self.description["file_ending"]

    @cached_property
    def label_map(self) -> LabelMap:
        """How label values become network outputs, and back."""
        return LabelMap.from_dataset_json(self.description, self.root / "dataset.json")

    @cached_property
    def unannotated(self) -> UnannotatedLabels:
        """Which labels of which cases nobody has annotated."""
        return UnannotatedLabels.from_dataset_json(self.description, self.root / "dataset.json")

    def training_cases(self) -> dict[str, Case]:
        """List the labelled cases by name, sorted.

        Raises:
            DatasetError: If a case lacks its label or a channel, or there is none.
        """
        if "dataset" in self.description:
            return self._listed_cases()
        cases = list_cases(self.root / "imagesTr", self.file_ending, self.num_channels)
        labelled = {}
        for name, case in cases.items():
            label = self.root / "labelsTr" / (name + self.file_ending)
            if not label.is_file():
                raise DatasetError(
                    f"{label}: image without a label; add the label, or move {case.images[0].name} to imagesTs "
                    "(`python -m nnunet_ext check` lists all such files)"
                )
            labelled[name] = Case(name, case.images, label)
        return labelled

    def unknown_cases(self, names: Iterable[str]) -> list[str]:
        """Return the names, sorted, that no case has, neither a labelled one nor one to predict.

        Args:
            names: Names of cases.
        """
        known = set(self._listed_cases()) if "dataset" in self.description else set()
        for folder, channel in (("labelsTr", ""), ("labelsTs", ""), ("imagesTs", "_0000")):
            ending = channel + self.file_ending
            known |= {path.name.removesuffix(ending) for path in (self.root / folder).glob(f"*{ending}")}
        return sorted(set(names) - known)

    def _listed_cases(self) -> dict[str, Case]:
        file, listed = self.root / "dataset.json", self.description["dataset"]
        need = 'dataset must be {"<case>": {"images": [one file a channel], "label": file}}'
        if not isinstance(listed, dict) or not listed:
            raise DatasetError(f"{file}: {need}, got {listed}")
        cases = {}
        for name, files in sorted(listed.items()):
            try:
                images, label = files["images"], files["label"]
            except (TypeError, KeyError) as error:
                raise DatasetError(f"{file}: {need}, got {files} for case {name}") from error
            if not isinstance(images, list) or not all(isinstance(path, str) for path in (*images, label)):
                raise DatasetError(f"{file}: {need}, got {files} for case {name}")
            if not _is_complete(list(range(len(images))), self.file_ending, self.num_channels):
                raise DatasetError(
                    f"{file}: case {name}: need {self.num_channels} images (channel_names), got {len(images)}"
                )
            paths = tuple(self.root / os.path.expandvars(path) for path in images)
            cases[name] = Case(name, paths, self.root / os.path.expandvars(label))
        return cases


def folder_name(folder: str | os.PathLike) -> str:
    """Return the name of a folder, also of `.` or `data/..`; a link keeps its own.

    Args:
        folder: The folder; it need not exist.
    """
    return Path(os.path.abspath(folder)).name  # noqa: PTH100  .. is to go, links are to stay


def open_dataset(dataset_dir: str | os.PathLike) -> RawDataset:
    """Open a data set in nnU-Net's raw layout.

    Args:
        dataset_dir: Folder with `dataset.json`, `imagesTr` and `labelsTr`.

    Returns:
        The description; no image is read.

    Raises:
        DatasetError: If the folder or `dataset.json` is missing, or the latter lacks or garbles a needed entry.

    Source:
        nnU-Net, documentation/dataset_format.md.
    """
    root = Path(dataset_dir)
    file = root / "dataset.json"
    if not root.is_dir():
        raise DatasetError(f"dataset_dir: need the folder of an nnU-Net raw data set, got {root}, which does not exist")
    if not file.is_file():
        raise DatasetError(f"{file}: not found; dataset_dir must hold dataset.json, imagesTr and labelsTr")
    return RawDataset(root, read_dataset_json(file))


def read_dataset_json(file: Path, *, drop_ignore_label: bool = False) -> dict[str, Any]:
    """Read and check a `dataset.json`.

    Args:
        file: Its path.
        drop_ignore_label: Leave an ignore label out instead of refusing it: predictions have no channel for it.

    Raises:
        DatasetError: If it is no JSON object or an entry is missing or garbled.
    """
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(description, dict):
        raise DatasetError(f"{file}: need a JSON object, got {description}")
    missing = [key for key in ("channel_names", "labels", "file_ending") if key not in description]
    if missing:
        hint = " (`modality` is the old name of `channel_names`)" if "modality" in description else ""
        raise DatasetError(f"{file}: entries {missing} are missing{hint}; see nnU-Net's dataset format v2")
    channels = description["channel_names"]
    try:
        numbers = sorted(int(key) for key in channels)
    except (TypeError, ValueError):
        numbers = []
    if not numbers or numbers != list(range(len(numbers))):
        raise DatasetError(f"{file}: channel_names must number the channels 0, 1, ..., got {channels}")
    if not isinstance(description["file_ending"], str) or not description["file_ending"].startswith("."):
        raise DatasetError(f'{file}: file_ending must be like ".nii.gz", got {description["file_ending"]!r}')
    ignored = None
    if drop_ignore_label and isinstance(description["labels"], dict):
        ignored = description["labels"].pop("ignore", None)
    highest = max(LabelMap.from_dataset_json(description, file).allowed_values)
    if ignored is not None and (type(ignored) is not int or ignored != highest + 1):
        raise DatasetError(f"{file}: the ignore label must be the highest, {highest + 1}, got {ignored}")
    UnannotatedLabels.from_dataset_json(description, file)
    return description


def list_cases(folder: Path, file_ending: str, num_channels: int) -> dict[str, Case]:
    """List the images of a folder by case.

    Args:
        folder: Folder with files `<case>_0000<ending>`, `<case>_0001<ending>`, ...; others are ignored.
        file_ending: Ending with its dot.
        num_channels: Channels that each case must have.

    Returns:
        Cases by name, sorted, without labels.

    Raises:
        DatasetError: If the folder is missing or empty, or a case has too few or too many channels.
    """
    cases, incomplete = find_cases(folder, file_ending, num_channels)
    if incomplete:
        raise DatasetError("\n  ".join(incomplete.values()))
    return cases


def find_cases(folder: Path, file_ending: str, num_channels: int) -> tuple[dict[str, Case], dict[str, str]]:
    """List the images of a folder by case, those with missing channels apart.

    Args:
        folder: As for `list_cases`.
        file_ending: As for `list_cases`.
        num_channels: As for `list_cases`.

    Returns:
        Complete cases by name, sorted, without labels; and for each other case what is wrong with it.

    Raises:
        DatasetError: If the folder is missing or empty.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    pattern = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})" + re.escape(file_ending))
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = pattern.fullmatch(path.name)
        if match and not path.name.startswith("."):
            found.setdefault(match["case"], {})[int(match["channel"])] = path
    if not found:
        raise DatasetError(f"{folder}: no file named <case>_0000{file_ending}; nnU-Net's raw layout needs this name")
    cases, incomplete = {}, {}
    for name, channels in found.items():
        if _is_complete(sorted(channels), file_ending, num_channels):
            cases[name] = Case(name, tuple(path for _, path in sorted(channels.items())))
        else:
            have = [f"{number:04d}" for number in sorted(channels)]
            incomplete[name] = (
                f"{folder / name}: need channels 0000 to {num_channels - 1:04d} (channel_names), got {have}"
            )
    return cases, incomplete


def _is_complete(numbers: list[int], file_ending: str, num_channels: int) -> bool:
    """Say whether the files of a case hold all channels; an RGB photograph holds three in one file."""
    one_file = numbers == [0] and file_ending.lower() in NATURAL_IMAGE_ENDINGS
    return one_file or numbers == list(range(num_channels))
