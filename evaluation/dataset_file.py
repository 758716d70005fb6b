"""Find the dataset.json of an evaluation, and which labels of which cases nobody has annotated."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from .dataset_labels import DatasetLabels, Unannotated, read_dataset_json
from .pairs import find_dataset_json


def find_dataset(dataset_json: Path | None, predictions: Path, references: Path | None) -> DatasetLabels | None:
    """Read the dataset.json that was named, or the one beside the data.

    What nobody has annotated is said of references: without a named file, it is read beside or above these, although
    labels come from the file beside the predictions, if there is one.

    Args:
        dataset_json: The file; None to look for it.
        predictions: Folder of predictions.
        references: Folder of references, None without any.

    Returns:
        Its labels, None if there is none.

    Raises:
        EvaluationError: If it is no good.
    """
    path = dataset_json or find_dataset_json(predictions, references or predictions)
    if path is None:
        return None
    dataset = read_dataset_json(path)
    if dataset_json:
        return dataset
    own = find_dataset_json(references, references) if references else None
    said = read_dataset_json(own).unannotated if own and _has_entry(own) else Unannotated()
    return replace(dataset, unannotated=said)


def _has_entry(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("unannotated_labels"))
    except (OSError, ValueError, AttributeError):
        return False


def unannotated_notes(dataset: DatasetLabels | None, scored: Sequence[str], known: Collection[str]) -> Iterator[str]:
    """Say which labels are left out of which cases because nobody has annotated them, and what may be mistyped.

    Args:
        dataset: Labels of dataset.json, None if there is none.
        scored: Names of the scored cases.
        known: Names of the cases that have a reference.

    Yields:
        A line each.
    """
    if dataset is None:
        return
    by_case = dataset.unannotated.by_case
    for label in dict.fromkeys(label for labels in by_case.values() for label in labels):
        if listed := [case for case in scored if label in by_case.get(case, ())]:
            shown = ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
            yield f"{label.name}: not scored in cases where nobody has annotated it, {len(listed)} in all: {shown}"
    path = dataset.unannotated.path
    if path is None or not (path.parent / "labelsTr").is_dir():
        return
    files = [file for part in ("labelsTr", "labelsTs", "imagesTs") for file in (path.parent / part).glob("*")]
    for case in by_case:
        if case not in known and not any(file.name.startswith((f"{case}.", f"{case}_0000.")) for file in files):
            yield f'{path}: "unannotated_labels" names {case}, and there is no such case; correct it'
