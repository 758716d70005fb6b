"""Find, check and describe the weights that an exported bundle carries."""

from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from nnunet_ext.bundle import ModelCard, find_checkpoint, load_checkpoint, read_model_card
from nnunet_ext.bundle.checkpoints import is_adapter
from nnunet_ext.data import Preprocessing
from nnunet_ext.data.normalization import ChannelScheme, Statistics, measure, scheme_name
from nnunet_ext.data.phantom import generate_case
from nnunet_ext.errors import UserError

_NAMED = 5
"""So many names of a long list are shown."""


def export_weights(
    bundle_dir: Path, models_dir: Path, checkpoint: Path, pretrained: str | Path | None = None
) -> ModelCard:
    """Write `model.pt`, `plans.json` and `dataset.json` from a checkpoint.

    Args:
        bundle_dir: The bundle, whose `inference.json` defines the network.
        models_dir: Folder to write.
        checkpoint: `model_best.pt`, `model.pt`, `checkpoint_last.pt` or an adapter folder, with its description
            beside it.
        pretrained: Where an adapter's frozen weights lie, if not where they lay or in the bundle.

    Returns:
        The description of the model.

    Raises:
        UserError: If the checkpoint cannot be read or does not fit the network.
    """
    card = write_card(checkpoint, models_dir)
    network = build_network(bundle_dir, models_dir)
    load_weights(network, checkpoint, pretrained, bundle_dir)
    _save(network, models_dir)
    return card


def write_card(checkpoint: Path, models_dir: Path) -> ModelCard:
    """Copy the description beside a checkpoint.

    Args:
        checkpoint: A file or an adapter folder.
        models_dir: Folder to write.

    Raises:
        UserError: If the checkpoint or its description is missing.
    """
    if not (checkpoint.is_file() or is_adapter(checkpoint)):
        raise UserError(f"--checkpoint: need a file or an adapter folder, got {checkpoint}, which does not exist")
    card = read_model_card(checkpoint)
    card.write(models_dir)
    return card


def load_weights(network: nn.Module, checkpoint: Path, pretrained: str | Path | None, bundle_dir: Path) -> None:
    """Load a checkpoint into a network, and name what does not fit.

    Args:
        network: The network.
        checkpoint: See `export_weights`, as for the following ones.
        pretrained: Where an adapter's frozen weights lie.
        bundle_dir: The bundle.

    Raises:
        UserError: If the checkpoint cannot be read or does not fit the network.
    """
    if is_adapter(checkpoint):
        load_checkpoint(network, checkpoint, None if pretrained is None else str(pretrained), bundle_dir)
        return
    weights = _read_weights(checkpoint)
    _check_fit(network, weights, checkpoint)
    network.load_state_dict(weights)


def export_random_weights(
    bundle_dir: Path,
    models_dir: Path,
    metadata: dict[str, Any],
    image_size: tuple[int, int],
    network_options: dict[str, Any],
) -> ModelCard:
    """Write fresh weights of a fixed seed, and a description that the metadata and a phantom yield.

    Args:
        bundle_dir: The bundle, whose `inference.json` defines the network.
        models_dir: Folder to write.
        metadata: Content of the bundle's `metadata.json`, for channels and labels.
        image_size: Canvas (H, W) of the network in pixels.
        network_options: Further options of the network.

    Returns:
        The description of the model.
    """
    card = _phantom_card(metadata, image_size, network_options)
    card.write(models_dir)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(bundle_dir, models_dir)
    _save(network, models_dir)
    return card


def choose_checkpoint(bundle_dir: Path, run_dir: Path) -> Path:
    """Find the weights to export when none are named.

    Args:
        bundle_dir: The bundle; its `models/model.pt` goes first.
        run_dir: Folder of its runs; the newest best model is taken.

    Raises:
        UserError: If there are none.
    """
    packaged = bundle_dir / "models" / "model.pt"
    if packaged.is_file():
        return packaged
    try:
        return Path(find_checkpoint(run_dir, bundle_dir))
    except UserError as error:
        raise UserError(
            f"need weights, but neither {packaged} nor a best model below {run_dir} exists; train first, "
            "or give --checkpoint FILE or --random-init"
        ) from error


def _read_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        reason = str(error).partition("\n")[0]
        raise UserError(f"{checkpoint}: must be weights that load with weights_only=True ({reason})") from error
    if isinstance(content, dict) and isinstance(content.get("network"), dict):
        content = content["network"]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(
            f"{checkpoint}: must be a state dict or a checkpoint_last.pt of a bundle's training, got something else"
        )
    return content


def build_network(bundle_dir: Path, models_dir: Path) -> nn.Module:
    """Build the network that `inference.json` defines for a description.

    Args:
        bundle_dir: The bundle.
        models_dir: Folder of the description.
    """
    parser = ConfigParser()
    parser.read_config(str(bundle_dir / "configs" / "inference.json"))
    parser["bundle_root"] = str(bundle_dir)
    parser["checkpoint"] = str(models_dir / "model.pt")
    return parser.get_parsed_content("network_def")


def _check_fit(network: nn.Module, weights: dict[str, torch.Tensor], checkpoint: Path) -> None:
    expected = network.state_dict()
    shapes = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    differences = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": shapes,
    }
    told = [f"{kind}: {_listed(names)}" for kind, names in differences.items() if names]
    if told:
        raise UserError(
            f"{checkpoint}: does not fit network_def of inference.json with the channels and labels of the "
            f"dataset.json beside it; {'; '.join(told)}; give the checkpoint of this network"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _save(network: nn.Module, models_dir: Path) -> None:
    state = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    torch.save(state, models_dir / "model.pt")


def _phantom_card(metadata: dict[str, Any], image_size: tuple[int, int], network_options: dict[str, Any]) -> ModelCard:
    formats = metadata["network_data_format"]
    channels = formats["inputs"]["image"]["channel_def"]
    outputs = formats["outputs"]["pred"]["channel_def"]
    case = generate_case(0, (64, 64, 32))
    tissue_hu: Statistics = measure(case.image_hu[case.label > 0], clipped=False)
    names = [scheme_name(channels[key]) for key in sorted(channels, key=int)]
    schemes = tuple(ChannelScheme(name, False, tissue_hu if name == "CTNormalization" else None) for name in names)
    dataset_json = {
        "channel_names": channels,
        "labels": {outputs[key]: int(key) for key in sorted(outputs, key=int)},
        "file_ending": ".nii.gz",
    }
    return ModelCard(dataset_json, "RandomWeights", Preprocessing(schemes, 0), image_size, network_options)
