"""What a CRF's bundle trains, and how its network is used with nothing trained at all."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from ignite.engine import Events
from monai.engines.evaluator import Evaluator
from monai.engines.workflow import Workflow
from torch import nn

from ..atomic import atomic_path
from ..errors import OptionError
from ..networks.crf import CRF
from .base_model import BaseModel, find_base, read_base, setting_of
from .checkpoints import PACKAGED_FILE, best_model, choose_run, find_checkpoint, models_below
from .model_card import PATCH_DEPTH

logger = logging.getLogger(__name__)

MODES = {"inference": "crf", "crf": "crf", "last": "last"}
"""What trains, as `nnunet_ext.networks.CRF` calls it, by mode; in the first, nothing is trained."""


def trainable_part(mode: str) -> str:
    """Return what trains in a mode, as `nnunet_ext.networks.CRF` calls it.

    Raises:
        OptionError: If there is no such mode.
    """
    if mode not in MODES:
        raise OptionError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    return MODES[mode]


def refined_network(
    in_channels: int, num_classes: int, options: Mapping[str, Any], trainable: str = "crf"
) -> nn.Module:
    """Build a network with a CRF behind it.

    Args:
        in_channels: Channels of the input.
        num_classes: Classes including background, or regions.
        options: Options of `nnunet_ext.networks.CRF`, as JSON; of a network of volumes with `patch_depth`.
        trainable: What trains: `crf` or `last`.

    Raises:
        OptionError: If an option is unknown or its value is not allowed.
    """
    base_options = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in dict(options.get("base_options", {})).items()
    }
    chosen = {**options, "base_options": base_options, "trainable": trainable}
    spatial_dims = 2 if chosen.pop(PATCH_DEPTH, None) is None else 3
    try:
        return CRF(in_channels, num_classes, spatial_dims=spatial_dims, **chosen)
    except (TypeError, ImportError, ValueError) as error:
        raise OptionError(f"options of the CRF: {error}") from error


def crf_checkpoint(
    mode: str,
    ckpt_dir: str | Path,
    bundle_root: str | Path,
    dataset_dir: str | Path,
    base_checkpoint: str | Path,
    crf_options: Mapping[str, Any],
    output_dir: str | Path,
    pretrained: str | None = None,
    fold: int | str | None = None,
    image_size: Sequence[int] | None = None,
    demo: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return the weights to predict with: trained ones, or (mode inference) the base with an untrained CRF.

    Args:
        mode: One of `MODES`.
        ckpt_dir: See `find_checkpoint`, as for the following two.
        bundle_root: The bundle.
        dataset_dir: Data set to predict.
        base_checkpoint: See `find_base`; used in mode inference only, as all that follow.
        crf_options: Options of `nnunet_ext.networks.CRF` other than the base and the kind of labels.
        output_dir: The untrained model is written to `untrained` in it.
        pretrained: Where the frozen weights lie, for a base that is an adapter.
        fold: Fold whose validation cases are to be predicted; none for images that belong to no fold.
        image_size: See `find_base`.
        demo: Options of `train_demo_base`.

    Raises:
        UserError: If there are no such weights.
    """
    trainable_part(mode)
    if mode != "inference":
        return _trained(mode, Path(ckpt_dir), bundle_root, dataset_dir)
    if fold is None:
        base = read_base(find_checkpoint(base_checkpoint, "", dataset_dir, "base_checkpoint"))
    else:
        base = find_base(base_checkpoint, dataset_dir, fold, image_size, **demo)
    return str(_write_untrained(base, crf_options, Path(output_dir) / "untrained", pretrained, bundle_root))


def _trained(mode: str, ckpt_dir: Path, bundle_root: str | Path, dataset_dir: str | Path) -> str:
    """Return a trained model: of several runs one of the mode, if there is any, else one that was trained at all."""
    several = ckpt_dir.is_dir() and best_model(ckpt_dir) is None
    runs = {model: setting_of(model, "mode") for model in models_below(ckpt_dir)} if several else {}
    trained = [model for model, found in runs.items() if found is not None]  # mode inference leaves no state
    if not trained:
        return find_checkpoint(ckpt_dir, bundle_root, dataset_dir)
    same = [model for model in trained if runs[model] == mode]
    if not same:
        logger.warning(f"WARNING: no run below {ckpt_dir} was trained in mode {mode}; taking one of another mode")
    return find_checkpoint(choose_run(same or trained, dataset_dir))


def _write_untrained(
    base: BaseModel, crf_options: Mapping[str, Any], folder: Path, pretrained: str | None, bundle_root: str | Path
) -> Path:
    """Write a base with an untrained CRF as training would, so that its predictions know whose they are."""
    options, card = base.crf_options(crf_options), base.card
    network = base.load_into(refined_network(card.num_channels, card.num_outputs, options), pretrained, bundle_root)
    replace(card, network_options=options).write(folder)
    file = folder / PACKAGED_FILE
    # an open file, because torch puts a path's name into the content, by whose hash predictions are continued
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        torch.save(network.state_dict(), stream)
    return file


class WithoutTraining:
    """In mode inference, validate once and end before the first step; attach it to the trainer, after `TrainingState`.

    Args:
        mode: One of `MODES`.
        validator: The evaluator.
    """

    def __init__(self, mode: str, validator: Evaluator) -> None:
        self.mode = mode
        self.validator = validator

    def attach(self, engine: Workflow) -> None:
        """Register with a trainer.

        Args:
            engine: The trainer.
        """
        if self.mode == "inference":
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Workflow) -> None:
        """Validate, which saves the model, and end.

        Args:
            engine: The trainer.
        """
        self.validator.run(1)
        engine.terminate()
