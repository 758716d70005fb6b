"""Which slices an epoch shows, and in which order."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from ..errors import OptionError
from .slices import SliceDataset


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
        dataset: SliceDataset,
        num_samples: int | None = None,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        if num_samples is not None and num_samples < num_ranks:
            raise OptionError(f"num_samples: need at least one a rank ({num_ranks}), got {num_samples}")
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

    def __len__(self) -> int:
        """Return the number of slices that this rank gets in an epoch."""
        return self.size() // self.num_ranks

    def __iter__(self) -> Iterator[int]:
        """Iterate over this rank's items."""
        items = self.draw(np.random.default_rng((self.seed, self.epoch)))
        return iter(items[self.rank :: self.num_ranks][: len(self)].tolist())


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
        dataset: SliceDataset,
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


SAMPLERS: dict[str, type[SliceSampler]] = {"uniform": SliceSampler, "foreground": ForegroundSampler}


def make_sampler(name: str, dataset: SliceDataset, **options: int | None) -> SliceSampler:
    """Make a sampler by its name.

    Args:
        name: A key of `SAMPLERS`.
        dataset: The slices.
        **options: Arguments of `SliceSampler`.

    Raises:
        OptionError: If the name is unknown.
    """
    if name not in SAMPLERS:
        raise OptionError(f"sampler: need one of {sorted(SAMPLERS)}, got {name!r}")
    return SAMPLERS[name](dataset, **options)  # type: ignore[arg-type]
