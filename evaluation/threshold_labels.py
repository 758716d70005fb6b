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
from .dataset_labels import DatasetLabels
from .errors import CaseError, EvaluationError
from .geometry import Geometry, nifti_affine
from .label_channels import Channels, LabelChannels
from .output import renamed_when_complete
from .pairs import CaseFiles
from .parallel import run_tasks
from .probabilities import errors_named
from .threshold_choice import PLAIN_THRESHOLD

_UINT16_VALUES = 1 << 16


@dataclass(frozen=True)
class LabelMapTask:
    """What a worker has to know to write a label map.

    Attributes:
        case: Name of the case.
        files: Files of the prediction.
        source: `probabilities`, `logits`, or `auto`: the first that is there.
        dataset: Labels of dataset.json, None if there is none.
        thresholds: Threshold by the label's key; labels that aren't named have 0.5.
        output: File to write.
    """

    case: str
    files: CaseFiles
    source: str
    dataset: DatasetLabels | None
    thresholds: Mapping[str, float]
    output: Path


def write_label_maps(
    cases: Mapping[str, CaseFiles],
    folder: Path,
    *,
    source: str,
    dataset: DatasetLabels | None,
    thresholds: Mapping[str, float],
    workers: int,
    progress: bool,
) -> list[CaseFailure]:
    """Write the label map of every case.

    Args:
        cases: Files of the predictions by case.
        folder: Folder for `<case>.nii.gz`; made if it doesn't exist.
        source: `probabilities`, `logits`, or `auto`.
        dataset: Labels of dataset.json, None if there is none.
        thresholds: Threshold by the label's key.
        workers: Number of processes, >= 1.
        progress: Whether to show a progress bar on stderr.

    Returns:
        Cases that no label map could be written of, and why.

    Raises:
        EvaluationError: If the folder is no good.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(
            f"--save-labels {folder}: must be a folder that can be written to, got: {error.strerror}; choose another"
        ) from error
    tasks = [
        LabelMapTask(case, files, source, dataset, thresholds, folder / f"{case}.nii.gz")
        for case, files in cases.items()
    ]
    failures = []
    with tqdm(total=len(tasks), desc="label maps", unit="case", disable=not progress) as bar:
        for _, failure in run_tasks(write_label_map, tasks, workers, _killed):
            failures += [failure] if failure else []
            bar.update()
    return sorted(failures, key=lambda failure: failure.case)


def write_label_map(task: LabelMapTask) -> CaseFailure | None:
    """Write one label map.

    Args:
        task: The case.

    Returns:
        Why it couldn't be written; None if it was. No error of one case leaves this function.
    """
    try:
        label_map, geometry = _label_map(task)
        _write_nifti(task.output, label_map, geometry)
    except (CaseError, OSError) as error:
        return CaseFailure(task.case, str(error))
    except Exception as error:  # named and counted: one strange file must not end the others' run
        return CaseFailure(task.case, f"{task.files.npz}: no label map: {type(error).__name__}: {error}")
    return None


def _label_map(task: LabelMapTask) -> tuple[np.ndarray, Geometry]:
    some_file = task.files.npz or task.files.labels[0]
    file, channels = open_for_case(task.files.npz, some_file, task.source, task.dataset)
    by_channel = _thresholds_by_channel(task, channels)
    shape = file.array.shape[1:]
    with errors_named(file.array.path):
        try:
            blocks = probability_blocks(file, channels)
            if channels.regions is None:
                label_map = _likeliest(blocks, by_channel, shape)
            else:
                assert task.dataset is not None, "regions are of dataset.json"
                label_map = _painted(blocks, by_channel, shape, task.dataset.regions_class_order)
        except ProbabilityError as error:
            raise CaseError(f"{file.array.path}: {error}") from error
    return (label_map[0] if len(file.geometry.shape) < label_map.ndim else label_map), file.geometry


def _thresholds_by_channel(task: LabelMapTask, channels: LabelChannels) -> list[float]:
    """Return each channel's threshold; the background's is never reached."""
    found: dict[Channels, float] = {}
    for key, threshold in task.thresholds.items():
        values = tuple(int(value) for value in key.split("+"))
        try:
            own = channels.of(values)
        except ValueError as error:
            raise CaseError(f"{task.files.npz}: {error}") from error
        if len(own) > 1:
            raise CaseError(
                f"{task.files.npz}: a label map needs thresholds of single labels, got one of the union {key}; "
                "choose thresholds without it"
            )
        found[own] = threshold
    thresholds = [found.get((channel,), PLAIN_THRESHOLD) for channel in range(channels.n_channels)]
    return thresholds if channels.regions is not None else [2.0, *thresholds[1:]]


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
