"""What the probabilities of one image amount to: calibration, ranking, and overlap by threshold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .label_score import LabelKey

CALIBRATION_METRICS = ("cross_entropy", "brier", "ece", "auroc", "ap")
MULTICLASS_METRICS = CALIBRATION_METRICS[:3]
N_BINS = 15
BIN_EDGES = np.arange(N_BINS + 1) / N_BINS
THRESHOLDS = np.arange(201) / 200


@dataclass(frozen=True)
class Reliability:
    """How probable things were said to be, and how often they were so, in `N_BINS` bins of equal width.

    Attributes:
        sums: By bin the number of voxels, the sum of their probabilities, the number of those that are true; float64,
            shape (3, N_BINS).
    """

    sums: np.ndarray = field(repr=False)

    @property
    def n_voxels(self) -> int:
        """Return the number of voxels in all bins."""
        return int(self.sums[0].sum())

    @property
    def ece(self) -> float:
        """Return the expected calibration error in [0, 1]; nan without voxels."""
        if not self.n_voxels:
            return float("nan")
        return float(np.abs(self.sums[1] - self.sums[2]).sum() / self.n_voxels)


@dataclass(frozen=True)
class LabelProbabilityScore:
    """Scores of one label against all others.

    Attributes:
        cross_entropy: Binary cross-entropy in nats, >= 0.
        brier: Mean squared error in [0, 1].
        auroc: Area under the ROC curve in [0, 1]; nan without true or without false voxels.
        ap: Average precision in [0, 1]; nan likewise.
        reliability: Voxels by probability.
        by_threshold: False and true voxels by the largest of `THRESHOLDS` that is <= their probability; int64, shape
            (2, 201).
    """

    cross_entropy: float
    brier: float
    auroc: float
    ap: float
    reliability: Reliability
    by_threshold: np.ndarray = field(repr=False)

    @property
    def ece(self) -> float:
        """Return the expected calibration error in [0, 1]."""
        return self.reliability.ece

    def metrics(self) -> dict[str, float]:
        """Return every metric under the name that it has in metrics.csv, in the order that it has there."""
        return {name: getattr(self, name) for name in CALIBRATION_METRICS}

    def dice(self) -> np.ndarray:
        """Return Dice of the mask p >= t for each t of `THRESHOLDS`; nan where both masks are empty."""
        return dice_by_threshold(*self.overlap_counts())

    def iou(self) -> np.ndarray:
        """Return IoU of the mask p >= t for each t of `THRESHOLDS`; nan where both masks are empty."""
        return iou_by_threshold(*self.overlap_counts())

    def overlap_counts(self) -> np.ndarray:
        """Return TP, FP and FN of the mask p >= t for each t of `THRESHOLDS`, int64, shape (3, 201)."""
        fp, tp = np.cumsum(self.by_threshold[:, ::-1], axis=1)[:, ::-1]
        return np.stack([tp, fp, tp[0] - tp])


@dataclass(frozen=True)
class MulticlassScore:
    """Scores of the whole distribution over labels that exclude each other.

    Attributes:
        cross_entropy: Mean of -log p of the true label, in nats.
        brier: Mean over voxels of the squared error summed over labels, in [0, 2].
        reliability: Voxels by the probability of the likeliest label; true where that is the label.
    """

    cross_entropy: float
    brier: float
    reliability: Reliability

    @property
    def ece(self) -> float:
        """Return the expected calibration error of the likeliest label in [0, 1]."""
        return self.reliability.ece

    def metrics(self) -> dict[str, float]:
        """Return every metric under its name."""
        return {name: getattr(self, name) for name in MULTICLASS_METRICS}


@dataclass(frozen=True)
class ProbabilityScores:
    """Scores of the probabilities of one image.

    Attributes:
        labels: Scores by label; labels without a channel are missing.
        multiclass: Scores of the whole distribution; None for regions, which don't exclude each other.
        source: What was scored: `probabilities` or `logits`.
    """

    labels: "Mapping[LabelKey, LabelProbabilityScore]"
    multiclass: MulticlassScore | None
    source: str

    def to_plain(self) -> dict[str, Any]:
        """Return the same as plain JSON values; nan stays nan."""
        return {
            "source": self.source,
            "labels": [[key, *_plain(own), own.auroc, own.ap, own.by_threshold.tolist()] for key, own in self._items()],
            "multiclass": _plain(self.multiclass) if self.multiclass else None,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "ProbabilityScores":
        """Return the scores that `to_plain` was given."""
        labels = {
            tuple(key) if isinstance(key, list) else key: LabelProbabilityScore(
                cross_entropy, brier, auroc, ap, Reliability(np.array(sums)), np.array(by_threshold)
            )
            for key, cross_entropy, brier, sums, auroc, ap, by_threshold in plain["labels"]
        }
        whole = plain["multiclass"]
        multiclass = MulticlassScore(whole[0], whole[1], Reliability(np.array(whole[2]))) if whole else None
        return cls(labels, multiclass, plain["source"])

    def _items(self) -> "list[tuple[LabelKey, LabelProbabilityScore]]":
        return list(self.labels.items())


def dice_by_threshold(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Return Dice of counts; nan where all are 0."""
    return _ratio(2 * tp, 2 * tp + fp + fn)


def iou_by_threshold(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Return IoU of counts; nan where all are 0."""
    return _ratio(tp, tp + fp + fn)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)


def _plain(scores: LabelProbabilityScore | MulticlassScore) -> list[Any]:
    return [scores.cross_entropy, scores.brier, scores.reliability.sums.tolist()]
