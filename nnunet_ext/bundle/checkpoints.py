"""Where weights lie, whole models or adapters on a base file, and how they come into a network."""

import hashlib
import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines.workflow import Workflow
from torch import nn

from ..data.raw_dataset import folder_name
from ..errors import UserError

logger = logging.getLogger(__name__)

BEST_FILE = "model_best.pt"
LAST_FILE = "checkpoint_last.pt"
PACKAGED_FILE = "model.pt"
ADAPTER_DIR = "adapter"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""peft's name."""


def is_adapter(path: str | Path) -> bool:
    """Return whether a path is an adapter folder: what was trained, without the frozen weights.

    Args:
        path: Any path.
    """
    return (Path(path) / _ADAPTER_WEIGHTS).is_file()


def best_model(run: str | Path) -> Path | None:
    """Return the best model of a run: the whole one, else its adapter; None if there is neither.

    Args:
        run: Folder of the run.
    """
    return _first_model(Path(run), BEST_FILE)


def find_checkpoint(
    ckpt_dir: str | Path,
    bundle_root: str | Path = ".",
    dataset_dir: str | Path | None = None,
    option: str = "ckpt_dir",
) -> str:
    """Find the weights to predict with.

    Args:
        ckpt_dir: A checkpoint file, an adapter folder, a run's folder, or a folder of runs (the newest best model is
            taken, one of the same data set before others).
        bundle_root: The bundle, whose `models/model.pt` or `models/adapter` is taken when there is no run.
        dataset_dir: Data set to predict; its name chooses among several runs.
        option: What messages call `ckpt_dir`.

    Returns:
        Path of the checkpoint, a file or an adapter folder.

    Raises:
        UserError: If there is none (it says where it looked and what to do), or it cannot be read.
    """
    folder, models = Path(ckpt_dir), Path(bundle_root) / "models"
    if is_adapter(folder):
        return str(folder.resolve())  # what belongs to it lies in the folder above, also of "."
    found = folder if folder.is_file() else best_model(folder)
    if found is None and (runs := models_below(folder)):
        found = choose_run(runs, dataset_dir)
    if found := found or _first_model(models, PACKAGED_FILE):
        if not is_adapter(found):
            read_state(found, option)
        return str(found)
    raise UserError(
        f"{option}: need a checkpoint, but neither {folder}/**/{BEST_FILE} (or {ADAPTER_DIR}) nor "
        f"{models / PACKAGED_FILE} (or {ADAPTER_DIR}) exists; train first (train.json), or give --{option} "
        "FILE_OR_FOLDER"
    )


def read_state(checkpoint: Path, option: str) -> Mapping[str, Any]:
    """Read a state dict, or that of the network in the state of a training; large tensors are not copied.

    Args:
        checkpoint: The file.
        option: What to call it in a message.

    Raises:
        UserError: If it cannot be read.
    """
    is_zip = zipfile.is_zipfile(checkpoint)
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).partition("\n")[0] if is_zip else "it is damaged, or no file of torch.save"
        raise UserError(f"{option}: {checkpoint}: must be a state dict, but cannot be read ({reason})") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{option}: {checkpoint}: must be a state dict, got a {type(content).__name__}")
    return content.get("network", content)


def fingerprint(checkpoint: str | Path) -> str:
    """Return the SHA-256, hexadecimal, of a checkpoint's file; of an adapter folder, that of its weights.

    Args:
        checkpoint: A file or an adapter folder.
    """
    path = Path(checkpoint)
    with (path / _ADAPTER_WEIGHTS if is_adapter(path) else path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def load_checkpoint(
    network: nn.Module, checkpoint: str | Path, pretrained: str | None = None, bundle_root: str | Path = "."
) -> None:
    """Load weights into a network: a whole model, or an adapter and the frozen weights that it was trained on.

    Args:
        network: The network.
        checkpoint: A state dict, the state of a training, or an adapter folder.
        pretrained: Where an adapter's frozen weights lie, a file or a folder; else they are looked for beside the
            adapter, in the bundle's `models`, and where they lay when it was trained.
        bundle_root: The bundle.

    Raises:
        UserError: If the weights are damaged, do not fit, or the frozen ones are missing or others.
    """
    if is_adapter(checkpoint):
        _restore_adapter(network, Path(checkpoint), pretrained, Path(bundle_root))
        return
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        network.load_state_dict(content.get("network", content))
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UserError(
            f"{checkpoint}: must be the weights of this network ({type(network).__name__}), but cannot be loaded "
            f"({error}); give the checkpoint that plans.json beside it belongs to"
        ) from error


def find_base_file(network: Any, folder: str | Path, pretrained: str | Path | None, bundle_root: str | Path) -> Any:
    """Find the file of the frozen weights that an adapter was trained on, by its content.

    Args:
        network: The network.
        folder: Adapter folder.
        pretrained: See `load_checkpoint`, as for the following one.
        bundle_root: The bundle.

    Returns:
        What the network's `restore` takes, with `path` and `sha256`.

    Raises:
        UserError: If it is missing, or of another content.
    """
    if not hasattr(network, "find_base"):
        raise UserError(f"{folder}: is an adapter; {type(network).__name__} takes whole models only, give such a file")
    root, given = Path(bundle_root), str(pretrained or "none")
    named = [] if given.lower() == "none" else [given, root / given]
    try:
        return network.find_base(folder, [*named, Path(folder).parent, root / "models"])
    except ValueError as error:
        raise UserError(
            f"{error}; name the file: --pretrained FILE, or fetch it: python -m monai.bundle download_large_files "
            f"--bundle_path {root}"
        ) from error


class LoadCheckpoint:
    """Load weights when an evaluator starts; attach it as a handler.

    Args:
        network: See `load_checkpoint`, as for the following ones.
        checkpoint: A file or an adapter folder.
        pretrained: Where an adapter's frozen weights lie.
        bundle_root: The bundle.
    """

    def __init__(
        self,
        network: nn.Module,
        checkpoint: str | Path,
        pretrained: str | None = None,
        bundle_root: str | Path = ".",
    ) -> None:
        self.network = network
        self.checkpoint = checkpoint
        self.pretrained = pretrained
        self.bundle_root = bundle_root

    def attach(self, engine: Workflow) -> None:
        """Register with an evaluator.

        Args:
            engine: The evaluator.
        """
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Workflow) -> None:
        """Load the weights.

        Args:
            engine: The evaluator.
        """
        load_checkpoint(self.network, self.checkpoint, self.pretrained, self.bundle_root)
        logger.info(f"weights of {self.checkpoint}")


def _restore_adapter(network: Any, folder: Path, pretrained: str | None, bundle_root: Path) -> None:
    base = find_base_file(network, folder, pretrained, bundle_root)
    try:
        network.restore(folder, base)
    except ValueError as error:
        raise UserError(f"checkpoint: {error}") from error
    logger.info(f"frozen weights of {base.path}")


def _first_model(folder: Path, whole: str) -> Path | None:
    if (folder / whole).is_file():
        return folder / whole
    return folder / ADAPTER_DIR if is_adapter(folder / ADAPTER_DIR) else None


def models_below(folder: Path) -> list[Path]:
    """Return the best model of each run in a folder, the newest last.

    Args:
        folder: Folder of runs; it need not exist.
    """
    runs = {path.parent for path in folder.rglob(BEST_FILE)}
    runs |= {path.parent.parent for path in folder.rglob(f"{ADAPTER_DIR}/{_ADAPTER_WEIGHTS}")}
    models = [model for run in sorted(runs) if (model := best_model(run))]
    return sorted(models, key=lambda path: (path / _ADAPTER_WEIGHTS if is_adapter(path) else path).stat().st_mtime)


def choose_run(models: list[Path], dataset_dir: str | Path | None) -> Path:
    """Return the newest model of a data set; where there is none, the newest of all, with a warning.

    Args:
        models: Best models of runs, the newest last.
        dataset_dir: The data set, by its name; none: the newest of all.

    Raises:
        UserError: If no model has its description.
    """
    if dataset_dir is None:
        return models[-1]
    wanted = folder_name(dataset_dir)
    known = {wanted, Path(dataset_dir).resolve().name}  # trained by a link, or by what it leads to
    plans = {model: model.parent / "plans.json" for model in models}
    for file in [file for file in plans.values() if not file.is_file()]:
        logger.warning(f"{file.parent} is left out: it has no {file.name}")
    models = [model for model in models if plans[model].is_file()]
    names = {model: json.loads(plans[model].read_text(encoding="utf-8"))["dataset_name"] for model in models}
    same = [model for model in models if names[model] in known]
    if not same:
        newest = models[-1]
        logger.warning(f"no run was trained on {wanted}; taking the newest, {newest}, trained on {names[newest]}")
    return (same or models)[-1]
