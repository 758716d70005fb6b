"""One pass over two label maps: how often each pair of labels meets, and the box that each label fills."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from .compiled import compiled
from .flat_maps import FlatMap, slabs_of_both
from .label_index import LabelIndex, number_of
from .runs import pair_run_end

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First index and the one after the last, by axis."""

EMPTY_BOX: Box = ((0, 0), (0, 0), (0, 0))

MOST_LABELS_IN_MATRIX = 2048
_NOTHING = 1 << 40
"""More than any label value."""


@dataclass(frozen=True)
class LabelCounts:
    """Counts and boxes of all labels.

    Attributes:
        matrix: int64, shape (K, K): entry [r, p] counts voxels with number r in the reference and p in the
            prediction; None if there are more than `MOST_LABELS_IN_MATRIX` numbers.
        in_both: int64, shape (K,): voxels that have the number in both maps.
        in_reference: int64, shape (K,): voxels that have the number in the reference.
        in_prediction: int64, shape (K,): voxels that have the number in the prediction.
        reference_boxes: int64, shape (K, 3, 2): box of each number in the reference, [first, after the last] by axis;
            first > last where it doesn't occur. That of number 0 isn't kept.
        prediction_boxes: The same for the prediction.
        n_voxels: Voxels counted.
    """

    matrix: np.ndarray | None
    in_both: np.ndarray
    in_reference: np.ndarray
    in_prediction: np.ndarray
    reference_boxes: np.ndarray
    prediction_boxes: np.ndarray
    n_voxels: int

    def boxes(self, numbers: tuple[int, ...]) -> tuple[Box | None, Box | None]:
        """Return the smallest boxes around some labels in the reference and in the prediction.

        Args:
            numbers: Their numbers, without 0.

        Returns:
            Each box, None if none of them occurs there.
        """
        return _around(self.reference_boxes[list(numbers)]), _around(self.prediction_boxes[list(numbers)])

    def joint_box(self, numbers: tuple[int, ...]) -> Box | None:
        """Return the smallest box around some labels in both maps.

        Args:
            numbers: Their numbers, without 0.

        Returns:
            The box, None if none of them occurs.
        """
        return _around(np.concatenate([self.reference_boxes[list(numbers)], self.prediction_boxes[list(numbers)]]))


def _around(boxes: np.ndarray) -> Box | None:
    boxes = boxes[boxes[:, 0, 1] > 0]
    if not len(boxes):
        return None
    first, stop = boxes[:, :, 0].min(axis=0).tolist(), boxes[:, :, 1].max(axis=0).tolist()
    return ((first[0], stop[0]), (first[1], stop[1]), (first[2], stop[2]))


def count_labels(
    reference: FlatMap, prediction: FlatMap, index: LabelIndex, ignored_value: int | None = None
) -> LabelCounts:
    """Count the labels of two maps.

    Args:
        reference: Map.
        prediction: Map of the same shape.
        index: Numbers of the labels.
        ignored_value: Value in the reference that marks voxels to leave out.

    Returns:
        Counts and boxes, K = `index.other` + 1.
    """
    size = index.other + 1
    has_matrix = size <= MOST_LABELS_IN_MATRIX
    matrix = np.zeros((size, size) if has_matrix else (0, 0), dtype=np.int64)
    margins = np.zeros((3, size), dtype=np.int64)
    boxes = np.zeros((2, size, 3, 2), dtype=np.int64)
    boxes[..., 0] = np.iinfo(np.int64).max
    shape = np.array(reference.array.shape)
    ignored = np.uint64(_NOTHING if ignored_value is None else ignored_value)
    for first, reference_piece, prediction_piece in slabs_of_both(reference, prediction):
        _count(
            reference_piece, prediction_piece, shape, first, index.table, index.large, index.other, ignored,
            matrix, margins, boxes,
        )  # fmt: skip
    if has_matrix:
        margins = np.stack([matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)])
    in_both, in_reference, in_prediction = margins
    n_voxels = int(in_reference.sum())
    return LabelCounts(
        matrix if has_matrix else None, in_both, in_reference, in_prediction, boxes[0], boxes[1], n_voxels
    )


@compiled
def _count(  # type: ignore[no-untyped-def]
    reference, prediction, shape, first_plane, table, large, other, ignored, matrix, margins, boxes
):
    height, width = shape[1], shape[2]
    position = 0
    row, row_stop = -1, 0
    while position < reference.size:
        value, predicted = reference[position], prediction[position]
        if value == 0 and predicted == 0:
            end = pair_run_end(reference, prediction, position, reference.size)
            if ignored != 0:
                _add(matrix, margins, 0, 0, end - position)
            position = end
            continue
        if position >= row_stop:
            row = position // width
            row_stop = (row + 1) * width
        end = pair_run_end(reference, prediction, position, row_stop)
        if np.uint64(value) != ignored:
            in_reference = number_of(value, table, large, other)
            in_prediction = in_reference if value == predicted else number_of(predicted, table, large, other)
            _add(matrix, margins, in_reference, in_prediction, end - position)
            plane, line, column = first_plane + row // height, row % height, position - row * width
            if in_reference:
                _extend(boxes[0, in_reference], plane, line, column, column + end - position)
            if in_prediction:
                _extend(boxes[1, in_prediction], plane, line, column, column + end - position)
        position = end


@njit(inline="always")
def _add(matrix, margins, in_reference, in_prediction, n_voxels):  # type: ignore[no-untyped-def]
    if matrix.size:
        matrix[in_reference, in_prediction] += n_voxels
    else:
        if in_reference == in_prediction:
            margins[0, in_reference] += n_voxels
        margins[1, in_reference] += n_voxels
        margins[2, in_prediction] += n_voxels


@njit(inline="always")
def _extend(box, plane, line, first, stop):  # type: ignore[no-untyped-def]
    box[0, 0] = min(box[0, 0], plane)
    box[0, 1] = max(box[0, 1], plane + 1)
    box[1, 0] = min(box[1, 0], line)
    box[1, 1] = max(box[1, 1], line + 1)
    box[2, 0] = min(box[2, 0], first)
    box[2, 1] = max(box[2, 1], stop)
