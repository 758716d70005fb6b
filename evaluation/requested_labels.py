"""Labels and the label to ignore, as callers of the functions on arrays name them: checked."""

from collections.abc import Iterable

from .label_map import LARGEST_VALUE
from .label_score import LabelKey


def checked_labels(labels: Iterable[LabelKey]) -> dict[LabelKey, tuple[int, ...]]:
    """Return the values of each label.

    Args:
        labels: Label values; a tuple of values is a region.

    Returns:
        Values by label, in the order given; a label given twice is there once.

    Raises:
        ValueError: If it is no list, or a label no integer in [0, 2**31) and no tuple of different ones.
    """
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ValueError(f"labels must be a list of labels, got {labels!r}; put it in brackets")
    return {_hashable(label): region_values(label) for label in labels}


def region_values(label: LabelKey) -> tuple[int, ...]:
    """Return the values of one label.

    Args:
        label: A label value, or a tuple of values.

    Returns:
        Its values, all different.

    Raises:
        ValueError: If a value is no integer in [0, 2**31), is there twice, or there is none.
    """
    values = label if isinstance(label, tuple | list) else (label,)
    try:
        numbers = tuple(int(value) for value in values)
        sound = bool(numbers) and len(set(numbers)) == len(numbers) and list(numbers) == list(values)
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound or min(numbers) < 0 or max(numbers) > LARGEST_VALUE:
        raise ValueError(f"a label must be an integer >= 0 and < 2**31 or a tuple of different ones, got {label!r}")
    return numbers


def checked_ignored(ignore_label: int | None) -> int | None:
    """Return the value of voxels to leave out.

    Args:
        ignore_label: The value; None for none.

    Returns:
        The same.

    Raises:
        ValueError: If it is no integer in [0, 2**31).
    """
    if ignore_label is not None and (not 0 <= ignore_label <= LARGEST_VALUE or ignore_label != int(ignore_label)):
        raise ValueError(f"ignore_label must be an integer >= 0 and < 2**31, got {ignore_label!r}; leave it out")
    return ignore_label


def _hashable(label: LabelKey) -> LabelKey:
    return tuple(label) if isinstance(label, list) else label
