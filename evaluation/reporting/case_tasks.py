"""The cases of an evaluation, to be read or scored once more from the files that summary.json names."""

from pathlib import Path

from ..case_task import CaseTask
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
    dataset = method.dataset
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
