"""Labels by value and name, as dataset.json declares them or a command line asks for them."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import EvaluationError

LabelRequest = int | str | tuple[int, ...]


@dataclass(frozen=True)
class Label:
    """One thing to score.

    Attributes:
        values: Values in the label map, each >= 0; several form a region, scored as their union.
        name: Name in dataset.json, else the same as `key`.
    """

    values: tuple[int, ...]
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.key)

    @property
    def key(self) -> str:
        """Return what column `label` of metrics.csv holds: `3`, or `1+2+3` for a region."""
        return "+".join(map(str, self.values))

    @property
    def is_background(self) -> bool:
        """Return whether this is value 0 alone."""
        return self.values == (0,)


@dataclass(frozen=True)
class Unannotated:
    """Labels that nobody has annotated.

    Attributes:
        path: The file that says so, None if none does.
        by_case: The labels by case; cases with all annotated are left out.
    """

    path: Path | None = None
    by_case: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetLabels:
    """What dataset.json says about labels.

    Attributes:
        path: The file.
        labels: Background and foreground labels in the file's order, without the ignore label.
        ignore_label: Value of voxels to leave out, if there is one.
        regions_class_order: Value that each region is painted with, in the order of painting; empty without regions.
        unannotated: Labels that nobody has annotated, by case.
    """

    path: Path
    labels: tuple[Label, ...]
    ignore_label: int | None = None
    regions_class_order: tuple[int, ...] = field(default=())
    unannotated: Unannotated = field(default_factory=Unannotated)

    def annotated(self, case: str, labels: Sequence[Label]) -> tuple[Label, ...]:
        """Return the labels that a case's reference says something of.

        Where a label isn't annotated, its voxels hold the background or, in a data set of regions, another value of a
        region that they belong to. So neither these values nor the background are known, but the other declared labels.

        Args:
            case: Name of the case.
            labels: Labels to choose from.

        Returns:
            Those of them, in the same order.
        """
        absent = {label.values for label in self.unannotated.by_case.get(case, ())}
        hidden = [label.values for label in self.labels if any(not set(label.values).isdisjoint(v) for v in absent)]
        unknown = {0}.union(*absent, *hidden)
        declared = {label.values for label in self.labels if not label.is_background}

        def is_known(label: Label) -> bool:
            return label.values not in absent if label.values in declared else unknown.isdisjoint(label.values)

        return tuple(label for label in labels if not absent or is_known(label))

    def contradicted(self, case: str, values: Collection[int]) -> tuple[Label, ...]:
        """Return the labels that are said not to be annotated in a case although its reference holds them.

        Args:
            case: Name of the case.
            values: Values that the reference holds.

        Returns:
            The labels; none of regions, whose values say nothing, because they overlap.
        """
        absent = () if self.has_regions else self.unannotated.by_case.get(case, ())
        return tuple(label for label in absent if not set(values).isdisjoint(label.values))

    @property
    def has_regions(self) -> bool:
        """Return whether a label is the union of several values."""
        return any(len(label.values) > 1 for label in self.labels)

    @property
    def values(self) -> set[int]:
        """Return every value that a label map may hold, the ignore label included."""
        ignored = set() if self.ignore_label is None else {self.ignore_label}
        return {value for label in self.labels for value in label.values} | ignored | {0}


def read_dataset_json(path: Path) -> DatasetLabels:
    """Read the labels of an nnU-Net dataset.json.

    Args:
        path: The file.

    Returns:
        Its labels.

    Raises:
        EvaluationError: If it can't be read or doesn't declare labels as nnU-Net does.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EvaluationError(
            f"{path}: must be a readable JSON file, got: {reason}; give another one with --dataset-json"
        ) from error
    declared = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(declared, dict) or not declared:
        raise EvaluationError(
            f'{path}: needs an entry "labels" that maps names to values, got {declared!r}; '
            'write for example {"labels": {"background": 0, "liver": 1}}'
        )
    ignore = declared.get("ignore")
    if ignore is not None and type(ignore) is not int:
        raise EvaluationError(f'{path}: the "ignore" label must be one integer, got {ignore!r}')
    labels = tuple(Label(_values(path, name, v), name) for name, v in declared.items() if name != "ignore")
    keys = [label.key for label in labels]
    for label in labels:
        if keys.count(label.key) > 1:
            raise EvaluationError(f"{path}: each label needs values of its own, got {label.key} twice; rename one")
    order = content.get("regions_class_order") or ()
    if not isinstance(order, list | tuple) or any(type(value) is not int for value in order):
        raise EvaluationError(f'{path}: "regions_class_order" must be a list of integers, got {order!r}')
    unannotated = _unannotated(path, content.get("unannotated_labels", {}), labels)
    return DatasetLabels(Path(path), labels, ignore, tuple(order), unannotated)


def _unannotated(path: Path, listed: object, labels: Sequence[Label]) -> Unannotated:
    known = {label.name: label for label in labels if not label.is_background}
    if not isinstance(listed, dict) or not all(isinstance(names, list) for names in listed.values()):
        raise EvaluationError(f'{path}: "unannotated_labels" must be {{"<case>": ["<label>", ...]}}, got {listed!r}')
    for case, names in listed.items():
        for name in names:
            if not isinstance(name, str) or name not in known:
                raise EvaluationError(
                    f'{path}: "unannotated_labels" of {case} must be among {", ".join(known)}, got {name!r}'
                )
    by_case = {case: tuple(known[name] for name in dict.fromkeys(names)) for case, names in listed.items() if names}
    return Unannotated(Path(path) if by_case else None, by_case)


def _values(path: Path, name: str, declared: object) -> tuple[int, ...]:
    values = declared if isinstance(declared, list) else [declared]
    if not values or any(type(value) is not int or value < 0 for value in values):
        raise EvaluationError(
            f"{path}: label {name!r} must be an integer >= 0 or a list of them, got {declared!r}; "
            "labels map names to values"
        )
    return tuple(sorted(set(values)))


def choose_labels(
    requested: Sequence[LabelRequest] | None, dataset: DatasetLabels | None, include_background: bool
) -> tuple[Label, ...] | None:
    """Return the labels to score.

    Args:
        requested: Values, names, or regions (`(1, 2)` or `"1+2"`); None for all of dataset.json.
        dataset: Labels of dataset.json, None if there is none.
        include_background: Whether label 0 is scored too.

    Returns:
        The labels, None if they are to be taken from the files.

    Raises:
        EvaluationError: If a requested label doesn't exist in dataset.json or makes no sense.
    """
    if requested is None and dataset is None:
        return None
    if requested is None and dataset is not None:
        chosen = [label for label in dataset.labels if not label.is_background]
    else:
        chosen = [find_label(request, dataset, "--labels") for request in requested or ()]
    if not chosen:
        raise EvaluationError("--labels: needs at least one label to score, got none; leave it out to score all")
    if include_background and not any(label.is_background for label in chosen):
        chosen.insert(0, background_label(dataset))
    return tuple(dict.fromkeys(chosen))


def background_label(dataset: DatasetLabels | None) -> Label:
    """Return label 0 under the name that dataset.json gives it.

    Args:
        dataset: Labels of dataset.json, None if there is none.

    Returns:
        The label.
    """
    declared = dataset.labels if dataset else ()
    return next((label for label in declared if label.is_background), Label((0,), "background"))


def find_label(request: LabelRequest, dataset: DatasetLabels | None, option: str) -> Label:
    """Return the label that a value, a name or a region stands for.

    Args:
        request: Value, name, or region (`(1, 2)` or `"1+2"`).
        dataset: Labels of dataset.json, None if there is none.
        option: Option that the request came with, for the message.

    Returns:
        The label, with its name from dataset.json.

    Raises:
        EvaluationError: If there is no such label.
    """
    declared = dataset.labels if dataset else ()
    known = ", ".join(f"{label.key} {label.name}" for label in declared)
    named = next((label for label in declared if label.name == request), None)
    if named is not None:
        return named
    try:
        parts = request.split("+") if isinstance(request, str) else request if isinstance(request, tuple) else [request]
        values = tuple(sorted({int(part) for part in parts}))
    except (TypeError, ValueError):
        values = ()
    if not values or min(values) < 0:
        names = f" or a name in {dataset.path}" if dataset else ""
        way_out = f"choose among {known}" if dataset else "names need a dataset.json: give it with --dataset-json"
        raise EvaluationError(
            f"{option}: a label must be an integer >= 0, a region such as 1+2{names}, got {request!r}; {way_out}"
        )
    if dataset is not None and not set(values) <= dataset.values - {dataset.ignore_label}:
        raise EvaluationError(
            f"{option}: label {request} must be in {dataset.path}, which declares {known}; "
            "choose among these or give another file with --dataset-json"
        )
    return next((label for label in declared if set(label.values) == set(values)), Label(values))
