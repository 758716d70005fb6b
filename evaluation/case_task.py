"""A case to be scored, and how."""

from dataclasses import dataclass

from .dataset_labels import DatasetLabels, Label
from .metric_choice import MetricChoice
from .pairs import CaseFiles


@dataclass(frozen=True)
class CaseTask:
    """What a worker has to know to score a case.

    Attributes:
        case: Its name.
        prediction: Files of the prediction.
        reference: File of the reference.
        source: Which of the prediction's files to use, one of `pairs.SOURCES`.
        labels: Labels to score; None for all non-zero values of the two files.
        include_background: Whether label 0 is scored where `labels` is None.
        dataset: Labels of dataset.json, None if there is none.
        metrics: Metrics of each label.
        axis: Array axis to cut slices along; None to score the whole image.
        resample: Whether a prediction on another grid is brought onto that of its reference.
        only_probabilities: Whether nothing but the probabilities is scored, and no label map read.
    """

    case: str
    prediction: CaseFiles
    reference: CaseFiles
    source: str
    labels: tuple[Label, ...] | None
    include_background: bool
    dataset: DatasetLabels | None
    metrics: MetricChoice
    axis: int | None
    resample: bool = False
    only_probabilities: bool = False
