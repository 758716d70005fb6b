"""A small ENet on the built-in phantom, for a CRF that finds no trained network to refine."""

import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ..data.raw_dataset import folder_name
from ..errors import UserError
from .checkpoints import BEST_FILE, LAST_FILE, best_model

logger = logging.getLogger(__name__)

_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def train_demo_base(
    dataset_dir: str | Path,
    fold: int | str,
    image_size: Sequence[int] | None,
    *,
    bundle_root: str | Path,
    cache_dir: str | Path,
    epochs: int,
    iterations_per_epoch: int,
    batch_size: int,
) -> Path:
    """Train the demo of the bundle `enet`, in a process of its own, and say so; an earlier one is taken as it is.

    Args:
        dataset_dir: The phantom.
        fold: The fold.
        image_size: Canvas (H, W) in pixels; none for the demo's own.
        bundle_root: The bundle of the CRF, which has that of ENet beside it.
        cache_dir: Folder of decoded volumes; the network goes to `demo_enet` in it.
        epochs: Length of its training.
        iterations_per_epoch: Batches an epoch.
        batch_size: Slices a batch.

    Returns:
        Its weights.

    Raises:
        UserError: If the bundle `enet` is not there, or the training fails.
    """
    size = "x".join(map(str, image_size)) if image_size else "demo"
    length = f"{epochs}x{iterations_per_epoch}x{batch_size}"
    run = Path(cache_dir) / "demo_enet" / folder_name(dataset_dir) / f"fold_{fold}_{size}_{length}"
    if _rank() == 0 and not _finished(run, epochs):
        enet = os.path.normpath(Path(bundle_root, "..", "enet"))
        if not Path(enet, "train.json").is_file():
            raise UserError(
                f"base_checkpoint: there is no trained network, and no bundle {enet} to train one; name one: "
                "--base_checkpoint FILE_OR_FOLDER"
            )
        options = {
            "config_file": f"['{enet}/train.json','{enet}/demo.json']",
            **{"dataset_dir": dataset_dir, "fold": fold, "output_dir": run, "cache_dir": cache_dir},
            **{"max_epochs": epochs, "val_interval": epochs, "iterations_per_epoch": iterations_per_epoch},
            **{"batch_size": batch_size, "num_workers": 0},
            **({"image_size": list(image_size)} if image_size else {}),
        }
        _train([text for name, value in options.items() for text in (f"--{name}", str(value))], run)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    return run / BEST_FILE


def _train(options: list[str], run: Path) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", *options]
    logger.warning(
        f"NO TRAINED NETWORK for the CRF to refine: on the phantom, a small ENet is trained first, into {run}: "
        f"python {shlex.join(command[1:])}"
    )
    # not as one process of a distributed training, which would wait for the others
    environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER}
    if subprocess.run(command, env=environment, check=False).returncode or best_model(run) is None:
        raise UserError(f"base_checkpoint: the training of a small ENet in {run} failed, see above; the same again")


def _finished(run: Path, epochs: int) -> bool:
    if best_model(run) is None or not (run / LAST_FILE).is_file():
        return False
    return torch.load(run / LAST_FILE, map_location="cpu", weights_only=True)["epoch"] >= epochs


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
