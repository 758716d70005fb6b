"""The trained network that a CRF refines: found, recognised by its weights, and checked against a data set."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.raw_dataset import RawDataset, open_dataset
from ..errors import OptionError, UserError
from ..networks import available, build_network
from ..networks.crf import BANDWIDTHS, default_bandwidths
from .checkpoints import LAST_FILE, best_model, fingerprint, is_adapter, load_checkpoint, models_below, read_state
from .demo_base import train_demo_base
from .model_card import PATCH_DEPTH, ModelCard, read_model_card

logger = logging.getLogger(__name__)

_CRF = "crf"


@dataclass(frozen=True)
class BaseModel:
    """A trained network that makes logits of slices, or of patches.

    Args:
        network: Its key.
        options: Its options, as JSON.
        card: Its description; the canvas is that of the CRF.
        checkpoint: Its weights, a file or an adapter folder; none where the CRF's own checkpoint holds them.
    """

    network: str
    options: dict[str, Any]
    card: ModelCard
    checkpoint: Path | None = None

    @classmethod
    def of_card(cls, card: ModelCard) -> "BaseModel":
        """Return what the description of a CRF's model says of its base.

        Args:
            card: Description of a model of the bundle `crf`.

        Raises:
            UserError: If it describes another model.
        """
        options = card.network_options
        if "base" not in options:
            raise UserError(
                f"ckpt_dir: need a model of the bundle crf, got one without a CRF, trained on {card.dataset_name}; "
                "to predict with a CRF behind it: --mode inference --base_checkpoint FILE"
            )
        return cls(options["base"], dict(options.get("base_options", {})), card)

    def crf_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the whole network, with which `refined_network` builds it.

        Args:
            given: Options of `nnunet_ext.networks.CRF` other than the base and the kind of labels. Bandwidths of None
                are so many voxels as `BANDWIDTHS` says, by their smallest side.
        """
        own = {"base": self.network, "base_options": self.options, "regions": self.card.label_map.has_regions}
        spacing_mm: Sequence[float] = ()  # a pixel of the canvas
        if self.card.patch_depth is not None:
            preprocessing = self.card.preprocessing
            known = preprocessing.spacing_mm
            spacing_mm = preprocessing.ordered_slices_first(known) if known else []
            if not spacing_mm:
                logger.warning(
                    f"WARNING: plans.json of {self.checkpoint} has no spacing_mm; the CRF takes voxels for mm"
                )
            own |= {PATCH_DEPTH: self.card.patch_depth, "spacing_mm": spacing_mm}
            given = {**dict.fromkeys(BANDWIDTHS), **given}
        # in the order given: runs are told apart by the text of their settings
        defaults = default_bandwidths(spacing_mm)
        return {**own, **{n: defaults.get(n) if value is None else value for n, value in given.items()}}

    def fingerprint(self) -> str:
        """Return the SHA-256, hexadecimal, of the weights; empty where the CRF's own checkpoint holds them."""
        return "" if self.checkpoint is None else fingerprint(self.checkpoint)

    def load_into(self, network: Any, pretrained: str | None = None, bundle_root: str | Path = ".") -> Any:
        """Load the weights of the base into a CRF's network.

        Args:
            network: A `nnunet_ext.networks.CRF` of this base.
            pretrained: See `load_checkpoint`, as for the following one.
            bundle_root: The bundle.

        Returns:
            The network.

        Raises:
            UserError: If the weights are damaged, do not fit, or frozen ones are missing.
        """
        assert self.checkpoint is not None, "the weights of this base lie in the CRF's checkpoint"
        load_checkpoint(network.base, self.checkpoint, pretrained, bundle_root)
        logger.info(f"base: {self.network} of {self.checkpoint}; the CRF starts from its initial values")
        return network


def find_base(
    base_checkpoint: str | Path,
    dataset_dir: str | Path,
    fold: int | str,
    image_size: Sequence[int] | None = None,
    **demo: Any,
) -> BaseModel:
    """Find the base of a training; on the built-in phantom, train a small ENet where there is none.

    Args:
        base_checkpoint: A checkpoint, a run, or a folder of runs: the newest best model of this data set and fold.
        dataset_dir: The data set.
        fold: The fold.
        image_size: Canvas (H, W) in pixels; none for the base's own.
        **demo: Options of `train_demo_base`.

    Raises:
        UserError: If there is no base, it is of another data set, or its canvas is fixed and another one is wanted.
    """
    dataset, place = open_dataset(dataset_dir), Path(base_checkpoint)
    checkpoint = _one_model(place) or _newest(place, dataset.name, fold)
    command = f"python -m monai.bundle run --config_file bundles/enet/train.json --dataset_dir {dataset_dir}"
    command += f" --fold {fold}"
    if checkpoint is None and (Path(dataset_dir) / "phantom.json").is_file():
        checkpoint = train_demo_base(dataset_dir, fold, image_size, **demo)
    if checkpoint is None:
        state = "holds none" if place.exists() else "does not exist"
        raise UserError(
            f"base_checkpoint: need a model trained on {dataset.name}, fold {fold}, but {place} {state}; train one: "
            f"{command}; or name one: --base_checkpoint FILE_OR_FOLDER"
        )
    base = read_base(checkpoint, image_size)
    _check_data_set(base.card, dataset, checkpoint, command)
    if base.card.dataset_name != dataset.name:
        logger.warning(
            f"WARNING: {checkpoint} was trained on {base.card.dataset_name}, not on {dataset.name}: it may have seen "
            "the cases that validate here"
        )
    trained = setting_of(checkpoint, "fold")
    if trained not in (None, str(fold)):
        logger.warning(
            f"WARNING: {checkpoint} was trained on fold {trained}: it may have seen the cases that validate here, in "
            f"fold {fold}"
        )
    return base


def read_base(checkpoint: str | Path, image_size: Sequence[int] | None = None) -> BaseModel:
    """Recognise a trained network by its description and its weights.

    Args:
        checkpoint: A file or an adapter folder, with its description beside it.
        image_size: Canvas (H, W) in pixels; none for its own.

    Raises:
        UserError: If it is no network of this project's bundles, or its canvas is fixed and another one is wanted.
    """
    file = Path(checkpoint)
    card = read_model_card(file)
    if "base" in card.network_options:
        raise UserError(f"base_checkpoint: {file} has a CRF already; give the model that it was made from")
    key, options = _recognize(card, file)
    if image_size is not None and tuple(image_size) != tuple(card.image_size):
        if "image_size" in options:
            raise OptionError(
                f"image_size: {key} of {file} is for {list(card.image_size)}, got {list(image_size)}; leave it out"
            )
        card = replace(card, image_size=(int(image_size[0]), int(image_size[1])))
    return BaseModel(key, options, card, file)


def _one_model(place: Path) -> Path | None:
    if place.is_file():
        return place
    return place.resolve() if is_adapter(place) else best_model(place)


def _newest(place: Path, dataset_name: str, fold: int | str) -> Path | None:
    """Return the newest model below a folder that was trained on a fold of a data set and has no CRF."""
    for model in reversed(models_below(place)):
        try:
            card = read_model_card(model)
        except UserError as error:
            logger.warning(f"{model} is left out: {error}")
            continue
        same = card.dataset_name == dataset_name and setting_of(model, "fold") in (None, str(fold))
        if same and "base" not in card.network_options:
            return model
    return None


def setting_of(checkpoint: Path, name: str) -> str | None:
    """Return a setting of the run that a best model belongs to, None if nothing beside it says so.

    Args:
        checkpoint: The best model.
        name: One of the settings that don't change between the parts of a run.
    """
    file = checkpoint.parent / LAST_FILE
    if not file.is_file():
        return None
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)["settings"].get(name)
    except Exception:  # torch raises many kinds for a damaged file, which is not the one that is asked for
        return None


def _check_data_set(card: ModelCard, dataset: RawDataset, checkpoint: Path, command: str) -> None:
    for entry in ("channel_names", "labels", "regions_class_order"):
        trained, wanted = card.dataset_json.get(entry), dataset.description.get(entry)
        if trained != wanted:
            raise UserError(
                f"base_checkpoint: {checkpoint} was trained on {card.dataset_name} with {entry} {trained}, but "
                f"{dataset.name} has {wanted}; give a model of this data set, or train one: {command}"
            )


def _recognize(card: ModelCard, checkpoint: Path) -> tuple[str, dict[str, Any]]:
    """Return the key and the options of the network whose weights a file holds."""
    shapes = None if is_adapter(checkpoint) else _shapes(read_state(checkpoint, "base_checkpoint"))
    dims = len(card.patch_size)
    unusable = []
    for key, info in available().items():
        if key == _CRF or dims not in info.spatial_dims:
            continue
        try:
            options = _options(card, info.options())
        except ImportError as error:
            unusable.append(str(error))
            continue
        if options is None:
            continue
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
        with torch.device("meta"):
            network = build_network(key, card.num_channels, card.num_outputs, dims, **values)
        if _shapes(network.state_dict()) == shapes or (shapes is None and hasattr(network, "find_base")):
            return key, options
    tried = "".join(f"; {reason}" for reason in unusable)
    raise UserError(
        f"base_checkpoint: {checkpoint} must be a {dims}D network of this project's bundles, with the options of "
        f"plans.json beside it ({card.network_options}), but none has its weights{tried}"
    )


def _options(card: ModelCard, allowed: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the options of a description as a network names them; None if it doesn't have them all."""
    # bundles put lora_ before the options of LoRA, which networks that have nothing else call by their bare names
    given = [name for name in card.network_options if name != PATCH_DEPTH]
    names = {name: name if name in allowed else name.removeprefix("lora_") for name in given}
    if not set(names.values()) <= set(allowed):
        return None
    options = {names[name]: card.network_options[name] for name in given}
    return {**options, "image_size": list(card.image_size)} if "image_size" in allowed else options


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, torch.Tensor | nn.Parameter)}
