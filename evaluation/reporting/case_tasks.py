"""The cases of an evaluation, to be read or scored once more from the files that summary.json names."""

from pathlib import Path

from ..case_task import CaseTask
from ..dataset_labels import DatasetLabels, read_dataset_json
from ..errors import EvaluationError
from ..metric_choice import MetricChoice
from ..pairs import CaseFiles
from .inputs import Method


def case_tasks(method: Method, metrics: MetricChoice) -> list[CaseTask]:
    """Return the cases of a method as it was evaluated.

    Args:
        method: The method.
        metrics: Metrics of each label.

    Returns:
        A task for each case, with the labels and options of the evaluation.
    """
    options = method.summary["options"]
    dataset = _dataset(options["dataset_json"])
    return [
        CaseTask(
            case=case,
            prediction=_prediction_files(source.prediction),
            reference=CaseFiles([source.reference]),
            source=source.source,
            labels=tuple(method.labels),
            include_background=False,
            dataset=dataset,
            metrics=metrics,
            axis=options["axis"],
            resample=options["resample"],
        )
        for case, source in method.files.items()
    ]


def _prediction_files(path: Path) -> CaseFiles:
    return CaseFiles(npz=path) if path.suffix == ".npz" else CaseFiles([path])


def _dataset(path: str | None) -> DatasetLabels | None:
    """Return the labels of dataset.json as far as it is still there: only an ignore label and regions need it."""
    try:
        return read_dataset_json(Path(path)) if path else None
    except EvaluationError:
        return None
