"""Which slices an epoch shows, and in which order."""

import itertools
from collections.abc import Iterator
from typing import Protocol, Self

import numpy as np
from torch.utils.data import Sampler

from ..errors import OptionError
from ..training.background import BackgroundSchedule


class LabelledSlices(Protocol):
    """What a sampler must know of the slices, such as a `SliceDataset`."""

    @property
    def has_foreground(self) -> np.ndarray:
        """Whether each slice holds foreground, shape (N,), boolean."""

    def __len__(self) -> int:
        """Return the number of slices."""


class Showing(int):
    """The number of a slice, and how often the epoch has shown that slice before.

    Args:
        item: Number of the slice.
        turn: 0 the first time, so that each time can be augmented differently.
    """

    turn: int

    def __new__(cls, item: int, turn: int = 0) -> Self:
        """Return the number with its turn."""
        showing = super().__new__(cls, item)
        showing.turn = turn
        return showing


class SliceSampler(Sampler[int]):
    """Shuffle slices anew each epoch; each rank of a distributed run gets an equal share of the same order.

    Subclasses choose the slices of an epoch in `draw`.

    Args:
        dataset: The slices.
        num_samples: Slices in an epoch over all ranks; None takes each slice once.
        seed: Seed of the order, together with the epoch.
        rank: This process, from 0.
        num_ranks: Number of processes.
    """

    def __init__(
        self,
        dataset: LabelledSlices,
        num_samples: int | None = None,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        if num_samples is not None and num_samples < num_ranks:
            raise OptionError(f"num_samples: need at least one a rank ({num_ranks}), got {num_samples}")
        if not len(dataset):
            raise OptionError("sampler: need at least one slice with annotation, got none; check labels and fold")
        self.dataset = dataset
        self.seed = seed
        self.rank = rank
        self.num_ranks = num_ranks
        self.epoch = 0
        self._num_samples = num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch.

        Args:
            epoch: Epoch number.
        """
        self.epoch = epoch

    def size(self) -> int:
        """Return the number of slices in an epoch over all ranks."""
        return len(self.dataset) if self._num_samples is None else self._num_samples

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """Draw the items of one epoch over all ranks.

        Args:
            random: Source of random numbers, seeded by (seed, epoch): every rank draws the same.

        Returns:
            Items, shape (size(),): permutations of all slices, one after another.
        """
        rounds = -(-self.size() // len(self.dataset))
        return np.concatenate([random.permutation(len(self.dataset)) for _ in range(rounds)])[: self.size()]

    def _random(self) -> np.random.Generator:
        """Return the source of random numbers of the epoch, the same on every rank."""
        return np.random.default_rng((self.seed, self.epoch))

    def __len__(self) -> int:
        """Return the number of slices that this rank gets in an epoch."""
        return self.size() // self.num_ranks

    def __iter__(self) -> Iterator[int]:
        """Iterate over this rank's items, each a `Showing`."""
        items = self.draw(self._random())
        share = slice(self.rank, None, self.num_ranks)
        pairs = zip(items[share].tolist(), _turns(items)[share].tolist(), strict=True)
        return (Showing(item, turn) for item, turn in itertools.islice(pairs, len(self)))


def _turns(items: np.ndarray) -> np.ndarray:
    """Return how often each item stands before its place, shape (N,)."""
    order = np.argsort(items, kind="stable")
    ranked = items[order]
    turns = np.empty_like(items)
    turns[order] = np.arange(len(items)) - np.searchsorted(ranked, ranked)
    return turns


class ForegroundSampler(SliceSampler):
    """Draw a fixed share of slices among those with foreground, the rest among all slices.

    Args:
        dataset: The slices.
        num_samples: As for `SliceSampler`.
        seed: As for `SliceSampler`.
        rank: As for `SliceSampler`.
        num_ranks: As for `SliceSampler`.
        foreground_share: Share in [0, 1] that surely holds foreground.
    """

    def __init__(
        self,
        dataset: LabelledSlices,
        num_samples: int | None = None,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        foreground_share: float = 0.5,
    ) -> None:
        super().__init__(dataset, num_samples, seed, rank, num_ranks)
        if not 0 <= foreground_share <= 1:
            raise OptionError(f"foreground_share: need a number in [0, 1], got {foreground_share}")
        self.foreground_share = foreground_share

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """Draw the items of one epoch over all ranks.

        Args:
            random: Source of random numbers.

        Returns:
            Items, shape (size(),), shuffled.
        """
        items = super().draw(random)
        foreground = np.flatnonzero(self.dataset.has_foreground)
        if foreground.size:
            count = round(self.foreground_share * len(items))
            rounds = -(-count // foreground.size)
            chosen = [random.permutation(foreground) for _ in range(rounds)]
            items[:count] = np.concatenate(chosen)[:count] if chosen else items[:0]
        return random.permutation(items)


class AdaptiveSampler(SliceSampler):
    """Show all slices with foreground, and of the others a random share that grows over the epochs.

    Where an epoch is longer than that, it is several such choices one after another; where it is shorter, a part of
    one. So the expected share of slices without foreground is p * B / (F + p * B), of F slices with and B without
    foreground and the probability p of the epoch.

    Args:
        dataset: The slices.
        num_samples: As for `SliceSampler`; None takes each chosen slice once, so that epochs differ in length.
        seed: As for `SliceSampler`.
        rank: As for `SliceSampler`.
        num_ranks: As for `SliceSampler`.
        background: Probability by epoch; by default all slices are kept.
    """

    def __init__(
        self,
        dataset: LabelledSlices,
        num_samples: int | None = None,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        background: BackgroundSchedule | None = None,
    ) -> None:
        super().__init__(dataset, num_samples, seed, rank, num_ranks)
        self.background = background or BackgroundSchedule(epochs=1)

    def size(self) -> int:
        """Return the number of slices in the epoch over all ranks."""
        return len(self._choose(self._random())) if self._num_samples is None else self._num_samples

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """Draw the items of one epoch over all ranks.

        Args:
            random: Source of random numbers.

        Returns:
            Items, shape (size(),): choices, each shuffled, one after another.
        """
        items = self._choose(random)
        if self._num_samples is None:
            return items
        rounds, count = [items], len(items)
        while count < self._num_samples:
            rounds.append(self._choose(random))
            count += len(rounds[-1])
        return np.concatenate(rounds)[: self._num_samples]

    def _choose(self, random: np.random.Generator) -> np.ndarray:
        """Return the slices with foreground and some of the others, shuffled; all, if that would be none."""
        foreground = np.asarray(self.dataset.has_foreground)
        # engines count epochs from 1; 0 stands for "not started yet"
        probability = self.background.probability(max(0, self.epoch - 1))
        kept = np.flatnonzero(foreground | (random.random(len(foreground)) < probability))
        return random.permutation(kept if kept.size else len(foreground))


SAMPLERS: dict[str, type[SliceSampler]] = {
    "uniform": SliceSampler,
    "foreground": ForegroundSampler,
    "adaptive": AdaptiveSampler,
}


def make_sampler(
    name: str, dataset: LabelledSlices, background: BackgroundSchedule | None = None, **options: int | None
) -> SliceSampler:
    """Make a sampler by its name.

    Args:
        name: A key of `SAMPLERS`.
        dataset: The slices.
        background: For `adaptive`: the probability that a slice without foreground is kept.
        **options: Arguments of `SliceSampler`.

    Raises:
        OptionError: If the name is unknown, or `adaptive` has no schedule.
    """
    if name not in SAMPLERS:
        raise OptionError(f"sampler: need one of {sorted(SAMPLERS)}, got {name!r}")
    if SAMPLERS[name] is AdaptiveSampler:
        if background is None:
            raise OptionError("sampler: adaptive needs a background schedule, got none; give a BackgroundSchedule")
        return AdaptiveSampler(dataset, **options, background=background)  # type: ignore[arg-type]
    return SAMPLERS[name](dataset, **options)  # type: ignore[arg-type]
