"""Tell people how far a run is and how long it takes."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from ignite.handlers.tqdm_logger import ProgressBar
from monai.engines.trainer import Trainer
from monai.engines.workflow import Workflow
from torch.utils.tensorboard import SummaryWriter

from .checkpoints import best_model

logger = logging.getLogger(__name__)


class Progress:
    """Show a progress bar with loss and remaining time; attach it to a trainer or an evaluator.

    Args:
        description: Shown before the bar.
        interval: Iterations between updates of the loss; each one waits for the device.
    """

    def __init__(self, description: str, interval: int = 5) -> None:
        self.description = description
        self.interval = interval

    def attach(self, engine: Workflow) -> None:
        """Register with an engine.

        Args:
            engine: Trainer or evaluator.
        """
        bar = ProgressBar(desc=self.description, persist=False)
        if isinstance(engine, Trainer):
            bar.attach(
                engine,
                event_name=Events.ITERATION_COMPLETED(every=self.interval),
                output_transform=lambda output: {"loss": float(_first(output)["loss"])},
            )
        else:
            bar.attach(engine)


class TimeEstimate:
    """Say early in a run without a GPU how long it will take, and how to see something sooner.

    Args:
        device: The run's device; on a GPU nothing is said.
        hint: Command that shows the method quickly; none if empty.
        after_iterations: Iterations to measure, the first (which warms up) not counted.
    """

    def __init__(self, device: torch.device | str, hint: str, after_iterations: int = 3) -> None:
        self.device = torch.device(device)
        self.hint = hint
        self.after_iterations = after_iterations
        self._start: tuple[int, float] | None = None

    def attach(self, engine: Workflow) -> None:
        """Register with a trainer.

        Args:
            engine: The trainer.
        """
        if self.device.type == "cpu":
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Workflow) -> None:
        """Measure, and speak once.

        Args:
            engine: The trainer.
        """
        iteration = engine.state.iteration
        if self._start is None:
            self._start = iteration, time.monotonic()
        elif iteration == self._start[0] + self.after_iterations:
            seconds = (time.monotonic() - self._start[1]) / self.after_iterations
            total = (engine.state.max_epochs or 0) * (engine.state.epoch_length or 0) - iteration
            logger.info(
                f"on this CPU an iteration takes {seconds:.2f} s and the rest of the training about "
                f"{_duration(seconds * total)}, plus validation; interrupted (Ctrl-C), it continues from its last "
                "finished epoch" + (f". For a quick look: {self.hint}" if self.hint else "")
            )


class ValidationReport:
    """Log the Dice of each label after a validation, also to TensorBoard; attach it to the evaluator.

    Args:
        names: Names of the labels in the order of the metric's columns.
        metric: Name of the metric, whose per-case values (cases, labels) MONAI keeps.
        log_dir: TensorBoard folder; None for none.
    """

    def __init__(self, names: list[str], metric: str = "val_mean_dice", log_dir: str | None = None) -> None:
        self.names = list(names)
        self.metric = metric
        self.log_dir = log_dir
        self._writer: SummaryWriter | None = None

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator.

        Args:
            engine: The evaluator.
        """
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Workflow) -> None:
        """Log the means over the cases where the label exists.

        Args:
            engine: The evaluator.
        """
        if engine.state.rank != 0:
            return
        values = engine.state.metric_details[self.metric].float().cpu().numpy()
        counts = np.isfinite(values).sum(axis=0)
        sums = np.nansum(values, axis=0)
        means = [float(s / n) if n else float("nan") for s, n in zip(sums, counts, strict=True)]
        listed = ", ".join(
            f"{name} {mean:.3f} (n={n})" for name, mean, n in zip(self.names, means, counts, strict=True)
        )
        mean = engine.state.metrics[self.metric]
        logger.info(f"epoch {engine.state.epoch}: mean Dice {mean:.4f}; {listed}")
        if self.log_dir is not None:
            self._writer = self._writer or SummaryWriter(self.log_dir)
            for name, value in zip(self.names, means, strict=True):
                self._writer.add_scalar(f"dice/{name}", value, engine.state.epoch)
            self._writer.flush()


class RunSummary:
    """Say at the end what was reached, where it lies and what comes next; attach it to the trainer.

    Args:
        ckpt_dir: Folder of the run.
        evaluator: The validation engine.
        next_steps: Commands to propose.
        metric: What the evaluator's key metric is called.
        baseline: Another metric of the evaluator, which the key metric is to be judged by.
    """

    def __init__(
        self,
        ckpt_dir: str | Path,
        evaluator: Workflow,
        next_steps: list[str],
        metric: str = "mean Dice",
        baseline: str | None = None,
    ) -> None:
        self.ckpt_dir = Path(ckpt_dir)
        self.evaluator = evaluator
        self.next_steps = next_steps
        self.metric = metric
        self.baseline = baseline

    def attach(self, engine: Workflow) -> None:
        """Register with a trainer.

        Args:
            engine: The trainer.
        """
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Workflow) -> None:
        """Log the summary.

        Args:
            engine: The trainer.
        """
        if engine.state.rank != 0:
            return
        best, model = self.evaluator.state, best_model(self.ckpt_dir)
        if model is None:
            logger.info(f"no epoch was completed and validated; run again to continue in {self.ckpt_dir}")
            return
        steps = "".join(f"\n  {step}" for step in self.next_steps)
        baseline = None if self.baseline is None else best.metrics.get(self.baseline)
        beside = "" if baseline is None else f" ({self.baseline}: {baseline:.4f})"
        logger.info(
            f"best {self.metric} {best.best_metric:.4f}{beside} at epoch {best.best_metric_epoch}, weights in {model}; "
            f"next:{steps}"
        )


def _first(output: Any) -> dict[str, Any]:
    return output[0] if isinstance(output, list) else output


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
