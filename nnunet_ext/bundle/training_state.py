"""Save the whole state of a training each epoch, and continue from it exactly."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.engines.workflow import Workflow
from monai.handlers import EarlyStopHandler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..atomic import atomic_path
from ..data.samplers import SliceSampler
from ..data.slices import SliceDataset
from ..errors import UserError
from ..training.bare_network import bare_network
from ..training.mixup import Mixup
from .checkpoints import ADAPTER_DIR, BEST_FILE, LAST_FILE, is_adapter
from .model_card import ModelCard

logger = logging.getLogger(__name__)

_HORIZON = {"t_total", "total_iters", "T_max", "warmup_steps"}
"""Entries of a schedule's state that the configuration owns, so that a longer --max_epochs takes effect."""


class SeedEpoch:
    """Seed everything random from (seed, epoch, rank) when an epoch starts, so that a resumed run repeats it.

    Args:
        seed: Seed of the run.
        dataset: Training slices.
        sampler: Their sampler.
        rank: This process.
        mixup: How batches are mixed.
    """

    def __init__(
        self, seed: int, dataset: SliceDataset, sampler: SliceSampler, rank: int = 0, mixup: Mixup | None = None
    ) -> None:
        self.seed = seed
        self.dataset = dataset
        self.sampler = sampler
        self.rank = rank
        self.mixup = mixup

    def attach(self, engine: Workflow) -> None:
        """Register with a trainer.

        Args:
            engine: The trainer.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Workflow) -> None:
        """Seed the epoch that starts.

        Args:
            engine: The trainer.
        """
        epoch = engine.state.epoch
        self.dataset.set_epoch(epoch)
        self.sampler.set_epoch(epoch)
        if self.mixup is not None:
            self.mixup.set_epoch(epoch)
        state = np.random.SeedSequence((self.seed, epoch, self.rank)).generate_state(1)
        torch.manual_seed(int(state[0]))
        np.random.seed(int(state[0]))


class BestModel:
    """Write the weights of the best validation; attach it to the evaluator.

    Where part of the network is frozen, with weights of a file, what was trained is saved alone too (`adapter`).

    Args:
        ckpt_dir: Folder of the run.
        network: The network; a distributed wrapper is taken off.
        card: Written beside the weights.
        content: `whole`: a plain state dict of the whole network, and the adapter if it has one; `adapter`: that alone.

    Raises:
        UserError: If `content` is neither, or an adapter is wanted of a network that has none.
    """

    def __init__(self, ckpt_dir: str | Path, network: nn.Module, card: ModelCard, content: str = "whole") -> None:
        self.ckpt_dir = Path(ckpt_dir)
        self.network: Any = network
        self.card = card
        self.content = content
        if content not in ("whole", "adapter"):
            raise UserError(f"checkpoint_content: must be whole or adapter, got {content!r}")
        if content == "adapter" and not self._has_adapter():
            raise UserError(
                "checkpoint_content: adapter needs frozen weights that came from a file, to restore them from; here "
                "they came from none, or nothing is frozen (tuning=all); give --pretrained FILE, or "
                "--checkpoint_content whole"
            )

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator.

        Args:
            engine: The evaluator, whose key metric decides.
        """
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Workflow) -> None:
        """Save if the validation that just ended is the best so far.

        Args:
            engine: The evaluator.
        """
        if engine.state.best_metric_epoch != engine.state.epoch or engine.state.rank != 0:
            return
        self.card.write(self.ckpt_dir)
        if self.content == "whole":
            with atomic_path(self.ckpt_dir / BEST_FILE) as temporary:
                torch.save(bare_network(self.network).state_dict(), temporary)
        folder = self.ckpt_dir / ADAPTER_DIR
        if self._has_adapter():
            if self.content == "adapter" and is_adapter(folder):
                (self.ckpt_dir / BEST_FILE).unlink(missing_ok=True)  # it would hide the newer adapter
            bare_network(self.network).save_adapter(folder)
            if self.content == "adapter":
                (self.ckpt_dir / BEST_FILE).unlink(missing_ok=True)  # of a part of the run that saved whole models
        elif is_adapter(folder):
            shutil.rmtree(folder)  # of an earlier run: it does not belong to this model

    def _has_adapter(self) -> bool:
        return getattr(bare_network(self.network), "has_adapter", False)


def better(current: float, best: float) -> bool:
    """Compare key metrics; a number is better than nan, which stands for "no foreground anywhere".

    Args:
        current: Metric of the validation that just ended.
        best: Best so far.
    """
    return bool(np.isnan(best) and not np.isnan(current)) or current > best


class TrainingState:
    """Save network, optimiser, schedule, scaler, best metric and early stopping; restore them when a run starts.

    Attach it to the trainer after the validation and the schedule, so that it sees the end of the epoch.

    Args:
        ckpt_dir: Folder of the run; the state is `checkpoint_last.pt` in it.
        network: The network.
        optimizer: Its optimiser.
        scheduler: Its learning-rate schedule.
        evaluator: The validation engine, for the best metric.
        early_stop: MONAI's early stopping, whose counter is kept.
        settings: What must not change between the parts of a run, such as data set and fold.
        resume: Whether to continue from an existing state; if not, such a state is an error.
        interval: Epochs between saves; the last epoch is always saved.
    """

    def __init__(
        self,
        ckpt_dir: str | Path,
        network: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        evaluator: Workflow,
        early_stop: EarlyStopHandler | None = None,
        settings: dict[str, Any] | None = None,
        resume: bool = True,
        interval: int = 1,
    ) -> None:
        self.file = Path(ckpt_dir) / LAST_FILE
        self.network = network
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.evaluator = evaluator
        self.early_stop = early_stop
        self.settings = {key: str(value) for key, value in (settings or {}).items()}
        self.resume = resume
        self.interval = interval

    def attach(self, engine: Workflow) -> None:
        """Register with a trainer.

        Args:
            engine: The trainer.
        """
        engine.add_event_handler(Events.STARTED, self.restore)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Workflow) -> None:
        """Write the state after an epoch, atomically.

        Args:
            engine: The trainer.
        """
        state = engine.state
        stops = bool(engine.should_terminate) or state.epoch >= (state.max_epochs or 0)
        if state.rank != 0 or (state.epoch % self.interval and not stops):
            return
        content = {
            "network": bare_network(self.network).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {k: v for k, v in self.scheduler.state_dict().items() if k not in _HORIZON},
            "scaler": None if engine.scaler is None else engine.scaler.state_dict(),
            "epoch": int(state.epoch),
            "iteration": int(state.iteration),
            "best_metric": float(self.evaluator.state.best_metric),
            "best_metric_epoch": int(self.evaluator.state.best_metric_epoch),
            "early_stop": self._early_stop_state(),
            "stopped_early": bool(engine.should_terminate),
            "settings": self.settings,
            "base_sha256": _base_sha256(self.network),
        }
        with atomic_path(self.file) as temporary:
            torch.save(content, temporary)

    def restore(self, engine: Workflow) -> None:
        """Continue from the saved state, if there is one.

        Args:
            engine: The trainer.

        Raises:
            UserError: If the state is of a run with other settings, cannot be read, or `resume` is off.
        """
        if not self.file.is_file():
            return
        if not self.resume:
            raise UserError(f"resume: {self.file} exists; give another --output_dir, or drop --resume False")
        content = self._read()
        try:
            bare_network(self.network).load_state_dict(content["network"])
        except RuntimeError as error:
            raise UserError(f"{self.file} belongs to another network ({error}); give another --output_dir") from error
        try:
            self.optimizer.load_state_dict(content["optimizer"])
        except ValueError as error:
            raise UserError(
                f"{self.file}: other parameters trained there, perhaps in an older version ({error}); give another "
                "--output_dir"
            ) from error
        self.scheduler.load_state_dict({**self.scheduler.state_dict(), **content["scheduler"]})
        if content["scaler"] is not None and engine.scaler is not None:
            engine.scaler.load_state_dict(content["scaler"])
        if self.early_stop is not None and content["early_stop"] is not None:
            _ignite_handler(self.early_stop).load_state_dict(content["early_stop"])
        self.evaluator.state.best_metric = content["best_metric"]
        self.evaluator.state.best_metric_epoch = content["best_metric_epoch"]
        engine.state.epoch = content["epoch"]
        engine.state.iteration = content["epoch"] * engine.state.epoch_length
        self._announce(engine, content)

    def _announce(self, engine: Workflow, content: dict[str, Any]) -> None:
        epoch, total = content["epoch"], engine.state.max_epochs
        if content["stopped_early"] and not self._has_patience_left():
            logger.info(f"{self.file}: stopped early after epoch {epoch}; a larger --early_stop_patience continues it")
            engine.terminate()
        elif epoch >= total:
            logger.info(f"{self.file}: this run is finished ({epoch} epochs); a larger --max_epochs continues it")
            engine.terminate()
        else:
            logger.info(f"continuing from {self.file} after epoch {epoch} of {total}")

    def _read(self) -> dict[str, Any]:
        try:
            content = torch.load(self.file, map_location="cpu", weights_only=True)
            saved = content["settings"]
        except Exception as error:  # torch raises many kinds for a damaged file
            reason = f"{type(error).__name__}; damaged, or not written by this training"
            raise UserError(f"{self.file}: cannot be read ({reason}); remove it to start anew") from error
        # what an older version didn't save can't be compared
        changed = {key: (saved[key], value) for key, value in self.settings.items() if saved.get(key, value) != value}
        if changed:
            listed = ", ".join(f"{key}: {old} -> {new}" for key, (old, new) in changed.items())
            raise UserError(f"{self.file} belongs to a run with other settings ({listed}); give another --output_dir")
        own = _base_sha256(self.network)
        if content.get("base_sha256", own) != own:
            old, new = (f"a file of SHA-256 {sha}" if sha else "no file" for sha in (content["base_sha256"], own))
            raise UserError(
                f"{self.file} belongs to a run whose frozen weights came from {old}, got {new}; give the same "
                "--pretrained, or another --output_dir"
            )
        return content

    def _has_patience_left(self) -> bool:
        handler = None if self.early_stop is None else _ignite_handler(self.early_stop)
        return handler is None or handler.counter < handler.patience

    def _early_stop_state(self) -> dict[str, Any] | None:
        if self.early_stop is None:
            return None
        state = _ignite_handler(self.early_stop).state_dict()
        best = state["best_score"]
        return {**state, "best_score": None if best is None else float(best)}


def _base_sha256(network: nn.Module) -> str | None:
    """Return the SHA-256 of the file that frozen weights came from; None if nothing is frozen, or from no file."""
    inner = bare_network(network)
    return inner.base_file.sha256 if getattr(inner, "has_adapter", False) else None


def _ignite_handler(handler: EarlyStopHandler) -> Any:
    assert handler._handler is not None, "the early-stop handler needs its trainer"
    return handler._handler
