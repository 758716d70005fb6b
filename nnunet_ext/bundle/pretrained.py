"""Weights that a network starts from."""

import logging
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UserError
from .checkpoints import fingerprint
from .model_card import ModelCard, read_model_card

logger = logging.getLogger(__name__)


def initialize(
    network: nn.Module,
    pretrained: str | None,
    bundle_root: str | Path,
    dataset_dir: str | Path,
    card: ModelCard | None = None,
    **options: Any,
) -> Any:
    """Load the weights that a network starts from, by the network's own `load_pretrained`.

    On the built-in phantom a missing file is a warning, because there is nothing to lose.

    Args:
        network: The network.
        pretrained: Weight file, looked for here and in the bundle; `none` for random weights.
        bundle_root: The bundle.
        dataset_dir: Data set of the training.
        card: Description of the training; a file that was trained on other intensities is then a warning.
        **options: Handed on to `load_pretrained`, such as the parts to take over.

    Returns:
        The network.

    Raises:
        UserError: If the file is missing (with the user's own data), damaged, or does not fit.
    """
    if pretrained is None or (pretrained := str(pretrained)).lower() in ("", "none"):
        logger.info("the network starts from random weights (pretrained is none)")
        return network
    places = [Path(pretrained), Path(bundle_root) / pretrained]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        advice = _advice(network, file=places[1], bundle_root=bundle_root)
        if not (Path(dataset_dir) / "phantom.json").is_file():
            raise UserError(f"pretrained: neither {places[0]} nor {places[1]} exists; {advice}")
        logger.warning(f"NO PRE-TRAINED WEIGHTS: {places[1]} is missing, the network starts from random ones; {advice}")
        return network
    try:
        report = network.load_pretrained(file, **options)  # type: ignore[operator]
    except ValueError as error:
        raise UserError(f"pretrained: {error}") from error
    logger.info(f"{file}: {report}")
    if card is not None:
        _compare(card, file)
    return network


def _compare(card: ModelCard, file: Path) -> None:
    """Warn if weights were trained on images that looked otherwise, as far as a description beside them says."""
    try:
        before = read_model_card(file, pretraining=True).preprocessing
    except UserError:
        return
    for option in ("intensities", "slice_axis"):
        own, theirs = getattr(card.preprocessing, option), getattr(before, option)
        if own != theirs:
            logger.warning(
                f"WARNING: {file} was trained with {option}={theirs}, this training has {option}={own}; give "
                f"--{option} {theirs}, or pre-train with --{option} {own}"
            )


def start_of(pretrained: str | None, bundle_root: str | Path) -> str:
    """Return what tells one start of a training from another: the SHA-256 of the weight file, or `random`.

    Args:
        pretrained: See `initialize`, as for the following one.
        bundle_root: The bundle.
    """
    if pretrained is None or pretrained.lower() in ("", "none"):
        return "random"
    places = (Path(pretrained), Path(bundle_root) / pretrained)
    file = next((place for place in places if place.is_file()), None)
    return "random" if file is None else fingerprint(file)


def _advice(network: nn.Module, file: Path, bundle_root: str | Path) -> str:
    """Return how to get the weights that a network of this size can start from."""
    if hasattr(network, "encoder_names"):
        return (
            f"pre-train first ({Path(bundle_root, 'pretrain.json')}, same --dataset_dir and --fold), name another file "
            "such as Genesis_Chest_CT.pt (--pretrained FILE), or start from random weights (--pretrained none)"
        )
    random = "start from random weights, all of which are trained: --pretrained none --tuning all"
    released = getattr(network, "released_weights", (file.name,))
    if not released:
        return f"there are no released weights for this size of network; {random}"
    listed = Path(bundle_root, "large_files.yml")
    if listed.is_file() and released[0] in listed.read_text(encoding="utf-8"):
        return f"fetch it: python -m monai.bundle download_large_files --bundle_path {bundle_root}; or {random}"
    return f"this size of network starts from {released[0]}: fetch that from its authors' page and name it; or {random}"
