"""Label maps from probabilities and a threshold for each label, written as NIfTI."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from tqdm import tqdm

from .calibration import ProbabilityBlock, ProbabilityError
from .case_probabilities import open_for_case, probability_blocks
from .case_scores import CaseFailure
from .dataset_labels import DatasetLabels, Label
from .errors import CaseError, EvaluationError
from .geometry import Geometry, nifti_affine
from .label_channels import LabelChannels
from .output import renamed_when_complete
from .pairs import CaseFiles
from .parallel import run_tasks
from .probabilities import errors_named
from .threshold_choice import PLAIN_THRESHOLD

_UINT16_VALUES = 1 << 16
_NEVER = 2.0
"""A threshold that no probability reaches."""


@dataclass(frozen=True)
class LabelMapTask:
    """What a worker has to know to write a label map.

    Attributes:
        case: Name of the case.
        files: Files of the prediction.
        source: `probabilities`, `logits`, or `auto`: the first that is there.
        dataset: Labels of dataset.json, None if there is none.
        labels: Labels to paint; None for all that have a channel.
        thresholds: Threshold by the label's key; labels that aren't named have 0.5.
        output: File to write.
    """

    case: str
    files: CaseFiles
    source: str
    dataset: DatasetLabels | None
    labels: tuple[Label, ...] | None
    thresholds: Mapping[str, float]
    output: Path


@dataclass(frozen=True)
class LabelMapThresholds:
    """By which thresholds a label map was made.

    Attributes:
        by_channel: Each channel's threshold; above 1 where none of its voxels is painted.
        at_half: Keys of the labels painted at 0.5 because no threshold was chosen for them.
        applied: Keys of the chosen thresholds that were applied.
    """

    by_channel: tuple[float, ...]
    at_half: tuple[str, ...]
    applied: tuple[str, ...]


@dataclass(frozen=True)
class SavedLabelMaps:
    """What came of writing label maps.

    Attributes:
        failures: Cases that no label map could be written of, and why.
        at_half: Keys of the labels that were painted at 0.5 in some case, because no threshold was chosen for them.
        unused: Keys of the thresholds that no case has a label for; none of labels that weren't to be painted.
    """

    failures: tuple[CaseFailure, ...]
    at_half: tuple[str, ...]
    unused: tuple[str, ...]


def write_label_maps(
    cases: Mapping[str, CaseFiles],
    folder: Path,
    *,
    source: str,
    dataset: DatasetLabels | None,
    labels: tuple[Label, ...] | None = None,
    thresholds: Mapping[str, float],
    workers: int,
    progress: bool,
) -> SavedLabelMaps:
    """Write the label map of every case.

    Args:
        cases: Files of the predictions by case.
        folder: Folder for `<case>.nii.gz`; made if it doesn't exist.
        source: `probabilities`, `logits`, or `auto`.
        dataset: Labels of dataset.json, None if there is none.
        labels: Labels to paint; None for all that have a channel.
        thresholds: Threshold by the label's key; labels that aren't named have 0.5.
        workers: Number of processes, >= 1.
        progress: Whether to show a progress bar on stderr.

    Returns:
        What came of it.

    Raises:
        EvaluationError: If the folder is no good.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(
            f"--save-labels {folder}: must be a folder that can be written to, got: {error.strerror}; choose another"
        ) from error
    wanted = {label.key for label in labels} if labels is not None else thresholds.keys()
    thresholds = {key: threshold for key, threshold in thresholds.items() if key in wanted}
    tasks = [
        LabelMapTask(case, files, source, dataset, labels, thresholds, folder / f"{case}.nii.gz")
        for case, files in cases.items()
    ]
    failures: list[CaseFailure] = []
    made: list[LabelMapThresholds] = []
    with tqdm(total=len(tasks), desc="label maps", unit="case", disable=not progress) as bar:
        for _, result in run_tasks(write_label_map, tasks, workers, _killed):
            if isinstance(result, CaseFailure):
                failures.append(result)
            else:
                made.append(result)
            bar.update()
    at_half = dict.fromkeys(key for one in made for key in one.at_half)
    applied = {key for one in made for key in one.applied}
    unused = [key for key in thresholds if made and key not in applied]
    return SavedLabelMaps(tuple(sorted(failures, key=lambda failure: failure.case)), tuple(at_half), tuple(unused))


def write_label_map(task: LabelMapTask) -> LabelMapThresholds | CaseFailure:
    """Write one label map.

    Args:
        task: The case.

    Returns:
        The thresholds that it was made by, or why it couldn't be written. No error of one case leaves this function.
    """
    try:
        label_map, geometry, thresholds = _label_map(task)
        _write_nifti(task.output, label_map, geometry)
    except (CaseError, OSError) as error:
        return CaseFailure(task.case, str(error))
    except Exception as error:  # named and counted: one strange file must not end the others' run
        return CaseFailure(task.case, f"{task.files.npz}: no label map: {type(error).__name__}: {error}")
    return thresholds


def _label_map(task: LabelMapTask) -> tuple[np.ndarray, Geometry, LabelMapThresholds]:
    some_file = task.files.npz or task.files.labels[0]
    file, channels = open_for_case(task.files.npz, some_file, task.source, task.dataset)
    thresholds = _thresholds(task, channels)
    shape = file.array.shape[1:]
    with errors_named(file.array.path):
        try:
            blocks = probability_blocks(file, channels)
            if channels.regions is None:
                label_map = _likeliest(blocks, thresholds.by_channel, shape)
            else:
                assert task.dataset is not None, "regions are of dataset.json"
                label_map = _painted(blocks, thresholds.by_channel, shape, task.dataset.regions_class_order)
        except ProbabilityError as error:
            raise CaseError(f"{file.array.path}: {error}") from error
    flat = len(file.geometry.shape) < label_map.ndim
    return (label_map[0] if flat else label_map), file.geometry, thresholds


def _thresholds(task: LabelMapTask, channels: LabelChannels) -> LabelMapThresholds:
    """Return each channel's threshold; that of the background and of labels nobody asked for is never reached."""
    try:
        wanted = None if task.labels is None else {_channel(channels, label.key) for label in task.labels}
    except ValueError as error:
        raise CaseError(f"{task.files.npz}: {error}") from error
    chosen: dict[int, float] = {}
    applied, unknown = [], []
    for key, threshold in task.thresholds.items():
        try:
            chosen[_channel(channels, key)] = threshold
            applied.append(key)
        except ValueError as error:
            unknown.append(error)
    if unknown and not applied:
        raise CaseError(f"{task.files.npz}: {unknown[0]}")
    by_channel, at_half = [_NEVER] * channels.n_channels, []
    for values in channels.foreground():
        label = Label(values if isinstance(values, tuple) else (values,))
        (channel,) = channels.of(label.values)
        if channel in chosen:
            by_channel[channel] = chosen[channel]
        elif wanted is None or channel in wanted:
            by_channel[channel] = PLAIN_THRESHOLD
            at_half.append(label.key)
    return LabelMapThresholds(tuple(by_channel), tuple(at_half), tuple(applied))


def _channel(channels: LabelChannels, key: str) -> int:
    found = channels.of(tuple(int(value) for value in key.split("+")))
    if not found:
        raise ValueError(f"label {key} must have a channel, got none for the background among regions; leave it out")
    if len(found) > 1:
        raise ValueError(
            f"a label map needs thresholds of single labels, got one of the union {key}; choose thresholds without it"
        )
    return found[0]


def _likeliest(blocks: Iterable[ProbabilityBlock], thresholds: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Return among the labels that reach their threshold the one with the largest probability, else 0."""
    label_map: np.ndarray = np.zeros(shape, _type_for(len(thresholds) - 1))
    best = np.full(shape, -1, np.float32)
    for (channel,), rows, p in blocks:
        larger = (p.astype(np.float64) >= thresholds[channel]) & (p > best[rows])
        label_map[rows][larger] = channel
        np.copyto(best[rows], p, where=larger)
    return label_map


def _painted(
    blocks: Iterable[ProbabilityBlock], thresholds: Sequence[float], shape: Sequence[int], order: Sequence[int]
) -> np.ndarray:
    label_map: np.ndarray = np.zeros(shape, _type_for(max(order)))
    for (channel,), rows, p in blocks:
        label_map[rows][p.astype(np.float64) >= thresholds[channel]] = order[channel]
    return label_map


def _type_for(largest: int) -> type:
    if largest < 256:
        return np.uint8
    return np.uint16 if largest < _UINT16_VALUES else np.int32


def _write_nifti(path: Path, label_map: np.ndarray, geometry: Geometry) -> None:
    image = nib.Nifti1Image(label_map.T, nifti_affine(geometry))
    image.header.set_xyzt_units("mm")
    with renamed_when_complete(path) as (part,):
        part.write_bytes(igzip.compress(image.to_bytes()))


def _killed(task: LabelMapTask) -> CaseFailure:
    return CaseFailure(task.case, f"{task.files.npz}: the process that read it was killed; use fewer --workers")
