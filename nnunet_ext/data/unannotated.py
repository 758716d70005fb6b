"""Which labels of which cases nobody has annotated, as `dataset.json` says it.

    "unannotated_labels": {"case_007": ["heart"], "case_012": ["heart", "aorta"]}

The label map of such a case holds 0 where the organ lies, so its background is "background or heart". Planning copies
`dataset.json` to nnU-Net's preprocessed folder, so both runners know it.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError

ENTRY = "unannotated_labels"
"""The entry of `dataset.json`."""

RAW_DIR = "nnUNet_raw"
"""nnU-Net's environment variable."""

MAX_CODES = 255
"""Different sets of such labels in one data set at most: their numbers travel in label maps of 8 bits."""


@dataclass(frozen=True)
class UnannotatedLabels:
    """The outputs of the network that a case says nothing of, by case.

    Args:
        num_outputs: Outputs of the network: background and labels, or regions.
        has_regions: Whether they are overlapping regions.
        channels: Sorted numbers of the outputs, by case; a case with all annotated is left out.
    """

    num_outputs: int
    has_regions: bool
    channels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def from_dataset_json(cls, description: Mapping[str, Any], file: Path) -> "UnannotatedLabels":
        """Read the entry of a `dataset.json`, if it has one.

        Args:
            description: Its content, with valid `labels`.
            file: Its path, for messages.

        Raises:
            DatasetError: If the entry is not a list of foreground names for each case.
        """
        labels = {name: value for name, value in description["labels"].items() if name not in ("background", "ignore")}
        has_regions = any(isinstance(value, list | tuple) for value in description["labels"].values())
        numbers = {name: position if has_regions else value for position, (name, value) in enumerate(labels.items())}
        listed = description.get(ENTRY, {})
        if not isinstance(listed, dict):
            raise DatasetError(f'{file}: {ENTRY} must be {{"<case>": ["<label>", ...]}}, got {listed}')
        channels = {}
        for case, names in listed.items():
            if not isinstance(names, list) or not all(name in numbers for name in names):
                raise DatasetError(f"{file}: {ENTRY}: {case}: need a list of {', '.join(numbers)}, got {names}")
            if names:
                channels[case] = tuple(sorted({numbers[name] for name in names}))
        found = cls(len(labels) + (0 if has_regions else 1), has_regions, channels)
        if len(found.sets) > MAX_CODES:
            raise DatasetError(f"{file}: {ENTRY}: at most {MAX_CODES - 1} different lists, got {len(found.sets) - 1}")
        return found

    def __bool__(self) -> bool:
        """Return whether any case has such labels."""
        return bool(self.channels)

    @property
    def sets(self) -> list[tuple[int, ...]]:
        """Return the different sets of outputs; the first is empty. A case's code is the position of its set."""
        return [(), *sorted(set(self.channels.values()))]

    def contradiction(self, case: str, label: np.ndarray, names: Sequence[str]) -> str:
        """Return what is wrong if a label map holds what its case is said not to show; empty if nothing is.

        Args:
            case: Name of the case.
            label: Its label map, any shape; that of regions says nothing, because they overlap.
            names: Names of the labels from 1 on.
        """
        absent = () if self.has_regions else self.channels.get(case, ())
        if not (found := sorted(set(absent) & set(np.unique(label).tolist()))):
            return ""
        listed = ", ".join(names[value - 1] for value in found)
        return f"dataset.json calls {listed} unannotated here ({ENTRY}), but the label map holds it; correct either"

    def summary(self, cases: Collection[str]) -> str:
        """Say how many of some cases have such labels; empty if none has.

        Args:
            cases: Names of the cases of a fold.
        """
        listed = sum(case in self.channels for case in cases)
        return (
            f"{listed} of {len(cases)} cases have labels that nobody annotated; the loss leaves them out"
            if listed
            else ""
        )

    def codes(self) -> dict[str, int]:
        """Return the code of each case that has such labels; that of others is 0."""
        positions = {channels: code for code, channels in enumerate(self.sets)}
        return {case: positions[channels] for case, channels in self.channels.items()}


def refuse_other_entry(description: Mapping[str, Any], dataset_name: str) -> None:
    """Refuse an entry that differs from that of the raw data set, which nnU-Net does not read again after planning.

    Args:
        description: Content of the preprocessed data set's `dataset.json`.
        dataset_name: Name of the data set.

    Raises:
        DatasetError: If both are there and differ.
    """
    raw_dir = os.environ.get(RAW_DIR)
    if not raw_dir or not (file := Path(raw_dir) / dataset_name / "dataset.json").is_file():
        return
    raw = json.loads(file.read_text(encoding="utf-8")).get(ENTRY, {})
    if raw != description.get(ENTRY, {}):
        raise DatasetError(
            f"{file}: {ENTRY} is not that of the preprocessed data set; copy this file to "
            f"$nnUNet_preprocessed/{dataset_name}/dataset.json"
        )
