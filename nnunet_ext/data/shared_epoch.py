"""The epoch of each sample, counted in memory that all worker processes of a data loader share."""

import multiprocessing


class SharedEpoch:
    """Count samples over all worker processes, and tell each its epoch and its position in it.

    nnU-Net's workers make batches ahead of time and never learn the epoch. Their number is enough: each epoch takes
    as many samples as the one before.

    Args:
        samples_per_epoch: Samples of an epoch, >= 1.
        first_epoch: Epoch that the training starts or goes on with, counted from 0.
        ahead: Samples made before the first epoch starts: nnU-Net makes one batch for nothing.
    """

    def __init__(self, samples_per_epoch: int, first_epoch: int = 0, ahead: int = 0) -> None:
        self.samples_per_epoch = samples_per_epoch
        self.first_epoch = first_epoch
        self._count = multiprocessing.Value("q", -ahead)

    def advance(self) -> tuple[int, int]:
        """Return the epoch of the next sample, counted from 0, and its position in the epoch."""
        with self._count.get_lock():
            number = self._count.value
            self._count.value += 1
        epochs, position = divmod(number, self.samples_per_epoch)
        return self.first_epoch + max(0, epochs), position
