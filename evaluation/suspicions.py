"""What a finished evaluation warns of: scores that are right by the files and still may not be what was meant."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .case_scores import CaseScores
from .dataset_labels import DatasetLabels
from .metric_options import MetricOptions
from .probability_scores import CALIBRATION_METRICS


def scored_with_themselves(predictions: Path, references: Path) -> Iterator[str]:
    """Warn of one folder for both.

    Args:
        predictions: Folder of predictions.
        references: Folder of references.

    Yields:
        A line.
    """
    if predictions.samefile(references):
        yield f"--predictions and --references: are one folder, {predictions}; its files were compared with themselves"


def on_one_side_only(cases: Sequence[CaseScores]) -> Iterator[str]:
    """Warn of a label that only references hold beside one that only predictions hold: perhaps they are the same.

    Args:
        cases: The scored cases.

    Yields:
        A line.
    """
    missed: set[str] = set()
    spurious: set[str] = set()
    both: set[str] = set()
    for case in cases:
        for column, label in enumerate(case.labels):
            missed |= {label.key} if case.missed[:, column].any() else set()
            spurious |= {label.key} if case.spurious[:, column].any() else set()
            both |= {label.key} if (case.values[label.key][:, 0] > 0).any() else set()
    missed, spurious = missed - spurious - both, spurious - missed - both
    if missed and spurious:
        yield (
            f"label {min(spurious)} is in predictions only and label {min(missed)} in references only; if they are the "
            "same, such as 255 and 1 of masks, bring the files to one numbering"
        )


def in_no_file(
    labels: Iterable[str], cases: Sequence[CaseScores], options: MetricOptions, dataset: DatasetLabels | None
) -> Iterator[str]:
    """Warn of labels that were asked for one by one and that no file holds: their number may be mistyped.

    Args:
        labels: Keys of the labels.
        cases: The scored cases.
        options: How they were scored.
        dataset: Labels of dataset.json, None if there is none.

    Yields:
        A line each.
    """
    of_masks = slice(-len(CALIBRATION_METRICS) if options.wants_calibration else None)  # the others needn't be nan
    for key in dict.fromkeys(labels):
        known = [
            case.values[key][:, of_masks]
            for case in cases
            for label in (dataset.annotated(case.case, case.labels) if dataset else case.labels)
            if label.key == key
        ]
        unknown_everywhere = not known and any(key in case.values for case in cases)
        if cases and not unknown_everywhere and all(np.isnan(values).all() for values in known):
            yield f"label {key} was asked for and is in no file; correct it if it should be in one"
