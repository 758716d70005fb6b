"""Score the probabilities or logits that lie beside a case's label map."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from .calibration import ProbabilityBlock, ProbabilityError, as_probabilities, blocks_of_slabs, score_blocks
from .common_grid import placed_on
from .dataset_labels import DatasetLabels, Label
from .errors import CaseError
from .geometry import Geometry, check_same_geometry
from .label_channels import Channels, LabelChannels, channels_of_dataset
from .label_score import label_key
from .probabilities import ProbabilityFile, errors_named, open_probabilities
from .probability_scores import ProbabilityScores
from .readers import LabelImage


def open_for_case(
    path: Path | None, prediction_file: Path, source: str, dataset: DatasetLabels | None
) -> tuple[ProbabilityFile, LabelChannels]:
    """Find the probabilities of a case and what their channels are of.

    Args:
        path: The case's .npz file, None if it has none.
        prediction_file: Any file of the prediction, for the message.
        source: What was asked for, one of `pairs.SOURCES`.
        dataset: Labels of dataset.json, None if there is none.

    Returns:
        Where they are, and the channels.

    Raises:
        CaseError: If there are none, or they don't fit dataset.json; names the file.
    """
    if path is None:
        raise CaseError(
            f"{prediction_file}: needs probabilities or logits beside it, an .npz and a .pkl file, got only labels; "
            "save them when predicting"
        )
    file = open_probabilities(path, source if source in ("probabilities", "logits") else None, dataset)
    try:
        return file, channels_of_dataset(file.array.shape[0], dataset)
    except ValueError as error:
        raise CaseError(f"{path}: {error}") from error


def score_file(
    file: ProbabilityFile,
    channels: LabelChannels,
    reference: LabelImage,
    labels: Sequence[Label],
    ignore_label: int | None,
) -> ProbabilityScores:
    """Score probabilities on disk against a reference; they are read in pieces.

    Args:
        file: The probabilities or logits.
        channels: What their channels are of.
        reference: True label map.
        labels: Labels to score.
        ignore_label: Value in the reference that marks voxels to leave out.

    Returns:
        Scores; labels without a channel are missing.

    Raises:
        CaseError: If the grids differ, the file is damaged, or a label has no channel; names the file.
    """
    path = file.array.path
    if reference.frames_only:
        reference = placed_on(file.geometry, reference, path)
    geometry, reference_geometry = _of_equal_dimension(file.geometry, reference.geometry)
    check_same_geometry(geometry, reference_geometry, path, reference.path, resamples=False)
    keys = [label_key(label.values) for label in labels]
    try:
        unions = [channels.of(label.values) for label in labels]
    except ValueError as error:
        raise CaseError(f"{path}: {error}") from error
    truth = reference.array.reshape(file.array.shape[1:])
    with errors_named(path):
        try:
            return score_blocks(
                truth,
                lambda: probability_blocks(file, channels, unions),
                keys,
                channels,
                file.name,
                ignore_label,
                channel_by_channel=_is_channel_by_channel(file, unions),
            )
        except ProbabilityError as error:
            raise CaseError(f"{path}: {error}") from error


def probability_blocks(
    file: ProbabilityFile, channels: LabelChannels, unions: Sequence[Channels] = ()
) -> Iterator[ProbabilityBlock]:
    """Yield the file's probabilities: channel after channel if that will do, because it is read faster so.

    Args:
        file: The probabilities or logits.
        channels: What their channels are of.
        unions: Channels to unite; a single one is yielded anyway.

    Yields:
        Blocks, those of the same rows in ascending order of channels.

    Raises:
        ProbabilityError: If a number is no probability.
    """
    if not _is_channel_by_channel(file, unions):
        yield from blocks_of_slabs(file.array.slabs(), channels, unions, logits=file.name == "logits")
        return
    for channel, rows, block in file.array.blocks():
        yield (channel,), rows, as_probabilities(block)


def _is_channel_by_channel(file: ProbabilityFile, unions: Sequence[Channels]) -> bool:
    return file.name != "logits" and all(len(union) <= 1 for union in unions)


def _of_equal_dimension(own: Geometry, other: Geometry) -> tuple[Geometry, Geometry]:
    """Drop the first axis of a one-slice volume whose counterpart is a 2D image."""
    if len(own.shape) == len(other.shape) + 1 and own.shape[0] == 1:
        return own.without_first_axis(), other
    if len(other.shape) == len(own.shape) + 1 and other.shape[0] == 1:
        return own, other.without_first_axis()
    return own, other


def labels_with_channel(channels: LabelChannels, labels: Sequence[Label]) -> tuple[Label, ...]:
    """Return labels found in files, and those that have a channel but don't occur, ascending.

    Args:
        channels: What the channels are of; no regions.
        labels: Labels that occur, each of one value.

    Returns:
        All of them.
    """
    found = {label.values: label for label in labels}
    for key in channels.foreground():
        assert isinstance(key, int), "labels come from files only where there are no regions"
        found.setdefault((key,), Label((key,)))
    return tuple(found[values] for values in sorted(found))
