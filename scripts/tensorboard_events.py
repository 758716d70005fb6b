"""What trainings have written for TensorBoard: curves, and how long they took."""

from collections import defaultdict
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader


def read_curve(folder: Path, metric: str, steps_per_epoch: int) -> list[tuple[int, float]]:
    """Read a metric's values.

    Args:
        folder: Folder of the events; all files in it count, of an epoch that ran twice the last.
        metric: Name of the scalar, whose steps are epochs.
        steps_per_epoch: Iterations of an epoch.

    Returns:
        Iterations and value of each epoch.
    """
    events = EventAccumulator(str(folder))
    events.Reload()
    values = {event.step: event.value for event in events.Scalars(metric)}
    return [(epoch * steps_per_epoch, round(value, 4)) for epoch, value in sorted(values.items())]


def read_minutes(folder: Path) -> float:
    """Read how long a training took.

    Args:
        folder: Folder of the events; their files carry the process in their names.

    Returns:
        Minutes by the clock from the first event of each process to its last, summed over the processes.

    Raises:
        FileNotFoundError: If there are no events.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for file in folder.glob("events.out.tfevents.*"):
        process = file.name.split(".")[-2]
        times[process] += [event.wall_time for event in EventFileLoader(str(file)).Load()]
    if not times:
        raise FileNotFoundError(f"{folder}: must hold the TensorBoard events of a training, but has none")
    return round(sum(max(t) - min(t) for t in times.values()) / 60, 2)
