"""Adapters as peft folders: what was trained, without the frozen weights of SAM."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from .checkpoint_file import CheckpointError, LoadReport, assign, read_checkpoint
from .lora import ADAPTER

WEIGHTS = "adapter_model.safetensors"
BASE = "base.json"
_PREFIX = "base_model.model."


def sha256_of(file: str | Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save_adapter(network: nn.Module, folder: str | Path, base_file: str | Path | None, options: dict[str, Any]) -> None:
    """Write what was trained as a folder that `peft.PeftModel.from_pretrained` takes; the weights come last.

    The base for peft is the same network without updates (tuning=decoder), with the weights of the base file.

    Args:
        network: A network with updates (`lora_config`), and `saved_modules`, the names of what else was trained.
        folder: Written if it does not exist.
        base_file: The file that the frozen weights came from.
        options: How the network was built, as JSON; kept beside the weights.

    Raises:
        CheckpointError: If the frozen weights came from no file: nothing could restore them.
    """
    if base_file is None:
        raise CheckpointError("an adapter needs the file of its frozen weights; they came from no file: save the model")
    config = getattr(network, "lora_config", None)
    if config is None:
        raise CheckpointError("an adapter needs updates; this network has none (tuning=lora makes them)")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    config.modules_to_save = list(network.saved_modules)  # type: ignore[arg-type]
    config.base_model_name_or_path = Path(base_file).name
    with tempfile.TemporaryDirectory(dir=target) as temporary:
        config.save_pretrained(temporary)
        base = {"file": Path(base_file).name, "sha256": sha256_of(base_file), "options": options}
        (Path(temporary) / BASE).write_text(json.dumps(base, indent=2), encoding="utf-8")
        save_file(adapter_state(network), Path(temporary) / WEIGHTS, metadata={"format": "pt"})
        for name in ("adapter_config.json", BASE, WEIGHTS):
            (Path(temporary) / name).replace(target / name)


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """Return updates and whole trained modules under the names that peft's files have."""
    saved = tuple(f"{name}." for name in network.saved_modules)  # type: ignore[union-attr]
    state = {
        name: value
        for name, value in network.state_dict().items()
        if ".lora_" in name or (name.startswith(saved) and ".base_layer." not in name)
    }
    return {_PREFIX + _peft_name(name): value.detach().cpu().contiguous() for name, value in state.items()}


def load_adapter(network: nn.Module, folder: str | Path, base_file: str | Path | None = None) -> LoadReport:
    """Load an adapter folder into a network whose frozen weights are loaded already.

    Args:
        network: A network with updates of the same shape.
        folder: As written by `save_adapter`.
        base_file: The file that the frozen weights came from; if given, it must be the one the adapter was made on.

    Returns:
        What was loaded; `fresh` are the frozen weights.

    Raises:
        CheckpointError: If the folder is incomplete or does not fit the network or the base.
    """
    path = Path(folder)
    found = read_checkpoint(path / WEIGHTS)
    if base_file is not None and (path / BASE).is_file():
        wanted = json.loads((path / BASE).read_text(encoding="utf-8"))
        if sha256_of(base_file) != wanted["sha256"]:
            raise CheckpointError(f"{path}: was trained on {wanted['file']} of another content than {base_file}")
    own = {_PREFIX + _peft_name(name): name for name in network.state_dict()}
    expected = set(adapter_state(network))
    if set(found) != expected:
        odd = sorted(set(found) ^ expected)
        raise CheckpointError(
            f"{path}: must hold {len(expected)} tensors of this network's adapter, differs in {len(odd)}, such as "
            f"{odd[0]}; see rank, block_ranks, decoder and variant"
        )
    state = network.state_dict()
    for name, value in found.items():
        if state[own[name]].shape != value.shape:
            raise CheckpointError(
                f"{path}: {name} must have the shape {tuple(state[own[name]].shape)}, got {tuple(value.shape)}; "
                "see rank and num_classes"
            )
    return assign(network, {own[name]: value for name, value in found.items()}, LoadReport())


def _peft_name(name: str) -> str:
    return name.replace(f".{ADAPTER}.weight", ".weight").replace(
        f"lora_magnitude_vector.{ADAPTER}", "lora_magnitude_vector"
    )


def restore_base(folder: str | Path) -> dict[str, Any]:
    """Return what an adapter folder says of its base: `file`, `sha256`, `options`.

    Raises:
        CheckpointError: If the folder has no such record.
    """
    record = Path(folder) / BASE
    if not record.is_file():
        raise CheckpointError(f"{folder}: has no {BASE}, so nothing says what the adapter belongs to")
    return json.loads(record.read_text(encoding="utf-8"))
