"""Which metrics each label has: their definitions, and the tolerances of the normalised surface distance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .dataset_labels import DatasetLabels, Label, LabelRequest, find_label
from .errors import EvaluationError
from .metric_options import DEFAULT_TOLERANCE_MM, MetricOptions, checked_tolerance

OPTION = "--nsd-tolerance-mm"

ToleranceRequest = float | Sequence[float] | Mapping[LabelRequest | None, float | Sequence[float]]


@dataclass(frozen=True)
class MetricChoice:
    """The metrics of each label.

    Attributes:
        options: Definitions that have a choice.
        tolerances_mm: Tolerances of the normalised surface distance of labels without their own, in mm, each >= 0.
        by_label_mm: Those of single labels, by the label's key.
    """

    options: MetricOptions = field(default_factory=MetricOptions)
    tolerances_mm: tuple[float, ...] = (DEFAULT_TOLERANCE_MM,)
    by_label_mm: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def tolerances_of(self, label: Label) -> tuple[float, ...]:
        """Return the tolerances of a label in mm."""
        return self.by_label_mm.get(label.key, self.tolerances_mm)

    def names(self, label: Label) -> tuple[str, ...]:
        """Return the names of the metrics of a label, in the order of metrics.csv."""
        return self.options.names(self.tolerances_of(label))


def choose_metrics(
    options: MetricOptions,
    request: ToleranceRequest,
    dataset: DatasetLabels | None,
    labels: Sequence[Label] | None,
) -> MetricChoice:
    """Return the metrics that a request stands for.

    Args:
        options: Definitions that have a choice.
        request: Tolerance in mm: one, several, or a mapping from label to one or several, with None for the labels
            that it doesn't name (else 2 mm).
        dataset: Labels of dataset.json, None if there is none.
        labels: Labels to score; None if they are to be taken from the files.

    Returns:
        The metrics.

    Raises:
        EvaluationError: If a tolerance isn't a finite number >= 0, or a label isn't scored.
    """
    by_request = dict(request) if isinstance(request, Mapping) else {None: request}
    default = _checked(by_request.pop(None, DEFAULT_TOLERANCE_MM))
    by_label = {}
    for label_request, tolerances in by_request.items():
        assert label_request is not None, "None was popped"
        label = find_label(label_request, dataset, OPTION)
        if labels is not None and label.key not in {chosen.key for chosen in labels}:
            scored = ", ".join(chosen.key for chosen in labels)
            raise EvaluationError(f"{OPTION}: label {label_request} must be one that is scored ({scored}); correct it")
        by_label[label.key] = _checked(tolerances)
    return MetricChoice(options, default, by_label)


def _checked(tolerances: float | Sequence[float]) -> tuple[float, ...]:
    several = tolerances if isinstance(tolerances, Sequence) else (tolerances,)
    try:
        checked = tuple(dict.fromkeys(checked_tolerance(tolerance) for tolerance in several))
    except (TypeError, ValueError):
        checked = ()
    if not checked:
        raise EvaluationError(f"{OPTION}: must be numbers >= 0 in mm, got {tolerances!r}; usual values are 1 to 5")
    return checked
