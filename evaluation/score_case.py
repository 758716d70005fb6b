"""Score one case: read its files, score the image or each of its slices."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from .calibration import warm_up_calibration
from .case_images import read_case
from .case_probabilities import labels_with_channel, open_for_case, score_file
from .case_scores import CaseFailure, CaseScores
from .case_task import CaseTask
from .dataset_labels import Label
from .errors import CaseError
from .label_map import foreground_values
from .label_score import LabelKey, Scores, label_key
from .probability_scores import CALIBRATION_METRICS, ProbabilityScores
from .readers import LabelImage, read_label_image
from .scoring import score, warm_up
from .slices import slices


def warm_up_for(task: CaseTask) -> None:
    """Compile everything that scoring a case needs, or load it from disk; one process at a time does.

    Args:
        task: The case, or another of the same evaluation.
    """
    if not task.only_probabilities:
        warm_up()
    if task.only_probabilities or task.metrics.options.wants_calibration:
        warm_up_calibration()


def score_case(task: CaseTask) -> CaseScores | CaseFailure:
    """Score one case.

    Args:
        task: The case and how to score it.

    Returns:
        Its scores, or why there are none; no error of one case leaves this function.
    """
    try:
        return _score_case(task)
    except CaseError as error:
        return CaseFailure(task.case, str(error))
    except Exception as error:  # named and counted: one strange file must not end the others' run
        files = f"{task.prediction.npz or task.prediction.labels[0]} and {task.reference.labels[0]}"
        return CaseFailure(task.case, f"{files}: can't be scored: {type(error).__name__}: {error}")


def _score_case(task: CaseTask) -> CaseScores:
    if task.only_probabilities:
        return _score_probabilities(task, read_label_image(task.reference.label_file()))
    images = read_case(task)
    reference, prediction = images.reference, images.prediction
    labels = _annotated(task, reference)
    if labels is None:
        labels = _labels_in(reference, prediction, task.include_background)
    probabilities = None
    if task.metrics.options.wants_calibration:
        labels, probabilities = _probabilities(task, reference, labels)
    tolerances_mm = {label_key(label.values): task.metrics.tolerances_of(label) for label in labels}
    scores, diagonals_mm = [], []
    for reference_image, prediction_image, spacing in _images(reference, prediction, task.axis):
        scores.append(_score_image(task, tolerances_mm, reference_image, prediction_image, spacing))
        diagonals_mm.append(np.linalg.norm(np.multiply(reference_image.shape, spacing)))
    keys = {label.key: label_key(label.values) for label in labels}
    by_label = {name: [image[key] for image in scores] for name, key in keys.items()}
    return CaseScores(
        case=task.case,
        prediction_file=prediction.path,
        reference_file=reference.path,
        source=images.source,
        labels=labels,
        values={
            label.key: np.array([[*one.values.values(), *_calibration(probabilities, label)] for one in images])
            for label, images in zip(labels, by_label.values(), strict=True)
        },
        missed=_flags([[one.is_missed for one in images] for images in by_label.values()], len(scores)),
        spurious=_flags([[one.is_spurious for one in images] for images in by_label.values()], len(scores)),
        diagonals_mm=np.array(diagonals_mm),
        axis=task.axis if task.axis is None or reference.array.ndim == 3 else 0,
        warnings=(*images.warnings, *_warnings(task, reference, prediction)),
        probabilities=probabilities,
    )


def _score_probabilities(task: CaseTask, reference: LabelImage) -> CaseScores:
    labels, probabilities = _probabilities(task, reference, _annotated(task, reference) or ())
    assert task.prediction.npz is not None, "there were probabilities"
    return CaseScores(
        case=task.case,
        prediction_file=task.prediction.npz,
        reference_file=reference.path,
        source=probabilities.source,
        labels=labels,
        values={},
        missed=np.zeros((1, 0), bool),
        spurious=np.zeros((1, 0), bool),
        diagonals_mm=np.zeros(1),
        axis=None,
        probabilities=probabilities,
    )


def _annotated(task: CaseTask, reference: LabelImage) -> tuple[Label, ...] | None:
    """Return the labels to score that somebody has annotated in the case."""
    if task.dataset is None or task.labels is None:
        return task.labels
    if task.case in task.dataset.unannotated.by_case:
        wrong = task.dataset.contradicted(task.case, foreground_values(reference.array))
        if wrong:
            names = ", ".join(label.name for label in wrong)
            raise CaseError(
                f"{reference.path}: holds {names}, which {task.dataset.unannotated.path} calls unannotated in "
                f'{task.case} ("unannotated_labels"); correct either'
            )
    return task.dataset.annotated(task.case, task.labels)


def _probabilities(
    task: CaseTask, reference: LabelImage, labels: tuple[Label, ...]
) -> tuple[tuple[Label, ...], ProbabilityScores]:
    """Return the labels, which may be those of the channels too, and the scores of the probabilities."""
    some_file = task.prediction.npz or task.prediction.labels[0]
    file, channels = open_for_case(task.prediction.npz, some_file, task.source, task.dataset)
    if task.labels is None:
        labels = labels_with_channel(channels, labels)
    ignore_label = task.dataset.ignore_label if task.dataset else None
    scores = score_file(file, channels, reference, labels, ignore_label)
    if task.dataset and task.case in task.dataset.unannotated.by_case:
        scores = replace(scores, multiclass=None)  # nobody knows which label its background is
    return labels, scores


def _calibration(scores: ProbabilityScores | None, label: Label) -> list[float]:
    if scores is None:
        return []
    own = scores.labels.get(label_key(label.values))
    return list(own.metrics().values()) if own else [float("nan")] * len(CALIBRATION_METRICS)


def _score_image(
    task: CaseTask,
    tolerances_mm: Mapping[LabelKey, tuple[float, ...]],
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: tuple[float, ...],
) -> Scores:
    return score(
        reference,
        prediction,
        spacing_mm,
        list(tolerances_mm),
        nsd_tolerance_mm=tolerances_mm,
        ignore_label=task.dataset.ignore_label if task.dataset else None,
        options=task.metrics.options.of_masks,
    )


def _images(
    reference: LabelImage, prediction: LabelImage, axis: int | None
) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[float, ...]]]:
    spacing = reference.geometry.spacing_mm
    if axis is None or reference.array.ndim == 2:
        yield reference.array, prediction.array, spacing
        return
    in_plane = spacing[:axis] + spacing[axis + 1 :]
    for pair in zip(slices(reference.array, axis), slices(prediction.array, axis), strict=True):
        yield *pair, in_plane


def _labels_in(reference: LabelImage, prediction: LabelImage, include_background: bool) -> tuple[Label, ...]:
    background = (Label((0,), "background"),) if include_background else ()
    return background + tuple(Label((value,)) for value in foreground_values(reference.array, prediction.array))


def _flags(by_label: list[list[bool]], n_images: int) -> np.ndarray:
    return np.array(by_label, dtype=bool).reshape(-1, n_images).T


def _warnings(task: CaseTask, reference: LabelImage, prediction: LabelImage) -> Iterator[str]:
    if task.dataset is not None:
        for image in (reference, prediction):
            unknown = sorted(set(foreground_values(image.array)) - task.dataset.values)
            if unknown:
                listed = ", ".join(map(str, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
                yield f"{image.path}: values {listed} are not in {task.dataset.path} and are scored as no label"
    if not reference.geometry.affines and not prediction.geometry.affines:
        spacing = " x ".join(f"{size:g}" for size in reference.geometry.spacing_mm)
        yield f"{reference.path}: the file doesn't say where it lies; distances take its voxels as {spacing} mm"
    if reference.frames_only and prediction.frames_only:
        yield (
            f"{prediction.path} and {reference.path}: neither says how many slices without labels there are beside "
            "theirs; specificity and the image's diagonal leave those out"
        )
        if not (reference.distance_known or prediction.distance_known):
            thickness = f"{reference.geometry.spacing_mm[0]:g} mm"
            yield (
                f"{prediction.path} and {reference.path}: neither says how far slices are apart, so that their "
                f"thickness, {thickness}, is taken for it; volumes and distances depend on that"
            )
