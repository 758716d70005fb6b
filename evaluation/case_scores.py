"""What came of scoring one case."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .dataset_labels import Label
from .metric_choice import MetricChoice
from .probability_scores import ProbabilityScores


@dataclass(frozen=True)
class CaseScores:
    """Scores of a case. Arrays are indexed by image (one, or one a slice) first, then by label, then by metric.

    Attributes:
        case: Name of the case.
        prediction_file: File of the prediction.
        reference_file: File of the reference.
        source: What was read: `labels`, `probabilities` or `logits`.
        labels: Labels, length L.
        values: By label the metrics, an array (S, M) in the order of `MetricChoice.names`.
        missed: Whether only the reference holds the label, boolean (S, L).
        spurious: Whether only the prediction holds the label, boolean (S, L).
        diagonals_mm: Length of each image's diagonal in mm, shape (S,).
        axis: Array axis that slices were cut along; None for whole images.
        warnings: What a reader should know about the files.
        probabilities: Scores of the probabilities, where they were asked for.
    """

    case: str
    prediction_file: Path
    reference_file: Path
    source: str
    labels: tuple[Label, ...]
    values: Mapping[str, np.ndarray]
    missed: np.ndarray
    spurious: np.ndarray
    diagonals_mm: np.ndarray
    axis: int | None
    warnings: tuple[str, ...] = ()
    probabilities: ProbabilityScores | None = None

    def for_labels(self, labels: tuple[Label, ...], metrics: MetricChoice) -> "CaseScores":
        """Return the scores with labels added that occur in other cases only.

        Args:
            labels: All labels, those of this case among them.
            metrics: Metrics of each label.

        Returns:
            Scores of all labels; a label that was in neither file is nan throughout.
        """
        n_images = len(self.diagonals_mm)
        position = {label.key: i for i, label in enumerate(self.labels)}
        values, missed, spurious = {}, np.zeros((n_images, len(labels)), bool), np.zeros((n_images, len(labels)), bool)
        for i, label in enumerate(labels):
            if label.key in position:
                values[label.key] = self.values[label.key]
                missed[:, i] = self.missed[:, position[label.key]]
                spurious[:, i] = self.spurious[:, position[label.key]]
            else:
                values[label.key] = np.full((n_images, len(metrics.names(label))), np.nan)
        return replace(self, labels=labels, values=values, missed=missed, spurious=spurious)


@dataclass(frozen=True)
class CaseFailure:
    """A case that couldn't be scored.

    Attributes:
        case: Its name.
        message: What is wrong, with the file.
    """

    case: str
    message: str
