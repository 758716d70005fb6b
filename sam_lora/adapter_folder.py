"""Adapters as folders: what was trained, without the frozen weights of SAM; with LoRA as peft has them."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class BaseFile:
    """The file that frozen weights came from.

    Args:
        path: Where it lies, or lay.
        sha256: SHA-256 of its content, hexadecimal.
    """

    path: Path
    sha256: str

    @classmethod
    def of(cls, file: str | Path) -> "BaseFile":
        """Describe a file that is there."""
        return cls(Path(file), sha256_of(file))


def save_adapter(network: nn.Module, folder: str | Path, base: BaseFile | None, options: dict[str, Any]) -> None:
    """Write what was trained as a folder; the weights come last.

    Where the network has updates, `peft.PeftModel.from_pretrained` takes the folder. The base for peft is the same
    network without updates (tuning=decoder), with the weights of the base file.

    Args:
        network: A network with `saved_modules`, the names of what was trained beside updates (`lora_config`).
        folder: Written if it does not exist.
        base: The file that the frozen weights came from.
        options: How the network was built, as JSON; kept beside the weights.

    Raises:
        CheckpointError: If no weights are frozen, or they came from no file: nothing could restore them.
    """
    if network.tuning == "all":
        raise CheckpointError("an adapter needs frozen weights; tuning=all trains every one: save the model")
    if base is None:
        raise CheckpointError("an adapter needs the file of its frozen weights; they came from no file: save the model")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    config: Any = network.lora_config
    record = {"file": base.path.name, "sha256": base.sha256, "path": str(base.path.resolve()), "options": options}
    prefix = f".{target.name}-"
    for leftover in target.parent.glob(f"{prefix}*"):  # of a killed run
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as temporary:
        if config is not None:
            config.modules_to_save = list(network.saved_modules)  # type: ignore[arg-type]
            config.base_model_name_or_path = base.path.name
            config.save_pretrained(temporary)
        (Path(temporary) / BASE).write_text(json.dumps(record, indent=2), encoding="utf-8")
        save_file(adapter_state(network), Path(temporary) / WEIGHTS, metadata={"format": "pt"})
        (Path(temporary) / WEIGHTS).chmod(
            (Path(temporary) / BASE).stat().st_mode
        )  # safetensors lets only its owner read
        for name in ("adapter_config.json", BASE, WEIGHTS)[config is None :]:
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


def load_adapter(network: nn.Module, folder: str | Path) -> LoadReport:
    """Load an adapter folder into a network whose frozen weights are loaded already.

    Args:
        network: A network of the same shape.
        folder: As written by `save_adapter`.

    Returns:
        What was loaded; `fresh` are the frozen weights.

    Raises:
        CheckpointError: If the folder is incomplete or does not fit the network.
    """
    path = Path(folder)
    found = read_checkpoint(path / WEIGHTS)
    own = {_PREFIX + _peft_name(name): name for name in network.state_dict()}
    expected = set(adapter_state(network))
    if set(found) != expected:
        odd = sorted(set(found) ^ expected)
        raise CheckpointError(
            f"{path}: must hold {len(expected)} tensors of this network's adapter, differs in {len(odd)}, such as "
            f"{odd[0]}; see rank, block_ranks, decoder, tuning and variant"
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


def find_base(folder: str | Path, places: Sequence[str | Path] = ()) -> BaseFile:
    """Find the file that the frozen weights of an adapter came from, by its content.

    Args:
        folder: As written by `save_adapter`.
        places: Where it may lie, best first: files, or folders that hold a file of its name. Where it lay when the
            adapter was written comes last.

    Raises:
        CheckpointError: If it is in none of them, or files are there but with another content.
    """
    record = read_base(folder)
    named = [Path(place) for place in (*places, record.get("path", record["file"]))]
    is_file = [place.is_file() or (place.suffix != "" and not place.is_dir()) for place in named]
    found = (place if file else place / record["file"] for place, file in zip(named, is_file, strict=True))
    candidates = list(dict.fromkeys(found))
    present = [place for place in candidates if place.is_file()]
    for place in present:
        if sha256_of(place) == record["sha256"]:
            return BaseFile(place, record["sha256"])
    wanted = f"{folder}: was trained on {record['file']} (SHA-256 {record['sha256']})"
    if present:
        raise CheckpointError(f"{wanted}, of another content than {', '.join(map(str, present))}")
    raise CheckpointError(f"{wanted}, which is missing; looked for {', '.join(map(str, candidates))}")


def read_base(folder: str | Path) -> dict[str, Any]:
    """Return what an adapter folder says of its base: `file`, `sha256`, `path` (where it lay), `options`.

    Raises:
        CheckpointError: If the folder has no such record, or a damaged one.
    """
    record = Path(folder) / BASE
    if not record.is_file():
        raise CheckpointError(f"{folder}: has no {BASE}, so nothing says what the adapter belongs to")
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{record}: must be JSON, but cannot be read ({error})") from error
    if not isinstance(content, dict) or not {"file", "sha256"} <= set(content):
        raise CheckpointError(f"{record}: must name file and sha256 of the frozen weights; take another adapter")
    return content
