"""The result of scoring: metrics by label."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .metric_options import hd_name, nsd_name
from .overlap import OverlapCounts

LabelKey = int | tuple[int, ...]
"""One label value, or the values that make up a region."""


def label_key(values: tuple[int, ...]) -> LabelKey:
    """Return what stands for a label in the scores of arrays: its value, or the values of a region."""
    return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class LabelScore:
    """All metrics of one label. What a metric is when a mask is empty: see `evaluation.definitions`.

    Every metric is an attribute under its name in metrics.csv: `score.dice`, `score.hd95_mm`, `score.nsd_2mm`.

    Attributes:
        counts: The label's voxels in the confusion matrix.
        values: Metrics by name, in the order of metrics.csv.
    """

    counts: OverlapCounts
    values: Mapping[str, float]

    @property
    def is_missed(self) -> bool:
        """Return whether the reference holds the label and the prediction doesn't."""
        return self.counts.reference_voxels > 0 and self.counts.prediction_voxels == 0

    @property
    def is_spurious(self) -> bool:
        """Return whether the prediction holds the label and the reference doesn't."""
        return self.counts.reference_voxels == 0 and self.counts.prediction_voxels > 0

    def metrics(self) -> dict[str, float]:
        """Return every metric under the name that it has in metrics.csv, in the order that it has there."""
        return dict(self.values)

    def nsd(self, tolerance_mm: float) -> float:
        """Return the normalised surface distance at one of the tolerances that were asked for, in [0, 1]."""
        return self._value(nsd_name(tolerance_mm))

    def hd(self, percentile: float) -> float:
        """Return one of the percentiles of the surface distance that were asked for, in mm."""
        return self._value("hd_mm" if percentile == 100 else hd_name(percentile))

    def _value(self, name: str) -> float:
        if name not in self.values:
            raise AttributeError(f"a LabelScore has no {name!r}; it has {', '.join(self.values)}")
        return self.values[name]

    def __getattr__(self, name: str) -> float:
        if name.startswith("_") or name in self.__dataclass_fields__:
            raise AttributeError(name)
        return self._value(name)


class Scores(Mapping[LabelKey, LabelScore]):
    """Scores by label. With a single label its metrics are attributes too: `score(a, b, spacing_mm=s).dice`."""

    def __init__(self, by_label: Mapping[LabelKey, LabelScore]) -> None:
        self._by_label = dict(by_label)

    def __getitem__(self, label: LabelKey) -> LabelScore:
        return self._by_label[label]

    def __iter__(self) -> Iterator[LabelKey]:
        return iter(self._by_label)

    def __len__(self) -> int:
        return len(self._by_label)

    def __repr__(self) -> str:
        return f"Scores({self._by_label!r})"

    def __getattr__(self, name: str) -> float:
        if name.startswith("_"):
            raise AttributeError(name)
        if len(self) != 1:
            labels = ", ".join(map(str, self))
            raise AttributeError(
                f"{name}: these are scores of {len(self)} labels ({labels}); choose one: scores[label]"
            )
        return getattr(next(iter(self.values())), name)
