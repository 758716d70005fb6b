"""Read weight files without running code, and say what they hold."""

import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_NESTS = ("model", "state_dict", "network_weights", "network")
_WRAPPERS = ("module.", "_orig_mod.")


class CheckpointError(ValueError):
    """A weight file can't be read, or is not what was asked for."""


@dataclass
class LoadReport:
    """What became of the entries of a weight file and of the parameters of a network.

    Args:
        loaded: Names that were taken as they are.
        resized: Names whose tables of positions were resized.
        fresh: Parameters that the file has no value for, or whose shape depends on the classes.
        unexpected: Entries of the file that the network has no place for.
    """

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return one line with counts, and the names that are neither loaded nor resized."""
        parts = [f"{len(self.loaded)} loaded", f"{len(self.resized)} resized"]
        for what in ("fresh", "unexpected"):
            names = getattr(self, what)
            groups = sorted({".".join(name.split(".")[:2]) for name in names})
            parts.append(f"{len(names)} {what}" + (f" ({', '.join(groups)})" if groups else ""))
        return ", ".join(parts)


def read_checkpoint(file: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file; prefixes of compiled and distributed networks are taken off.

    Args:
        file: A file of `torch.save`, or `.safetensors`.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        CheckpointError: If the file is missing, damaged, holds anything but tensors, or would run code.
    """
    path = Path(file)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for nest in _NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
            break
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise CheckpointError(f"{path}: must hold a state dict, holds {_kind(content)}")
    return {_unwrapped(name): value for name, value in tensors.items()}


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged, or no safetensors file ({error}); fetch it again") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what isn't a pickle is read as one and can fail in any way
        start = path.read_bytes()[:16]
        if zipfile.is_zipfile(path) or start[:1] == b"\x80" or start[:2] == b"PK":
            if isinstance(error, pickle.UnpicklingError):
                reason = "it holds Python objects beside tensors, which could run code; only state dicts are read"
                raise CheckpointError(f"{path}: refused: {reason}") from error
            reason = str(error).partition("\n")[0]
            size = path.stat().st_size
            raise CheckpointError(f"{path}: damaged or cut off ({size} bytes: {reason}); fetch it again") from error
        content = f"it begins with {start!r}" if start else "it is empty"
        raise CheckpointError(f"{path}: refused: no weight file; {content}") from error


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS * 2:
        name = name.removeprefix(wrapper)
    return name.replace("._orig_mod.", ".")


def _kind(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dictionary with the keys {', '.join(map(str, list(content)[:5]))}" if content else "nothing"
    return f"a {type(content).__name__}"


def assign(network: nn.Module, values: dict[str, Tensor], report: LoadReport) -> LoadReport:
    """Put values into a network and complete the report.

    Args:
        network: The network.
        values: Tensors by the network's own names, in its shapes.
        report: With `resized` and `unexpected` filled in; `loaded` and `fresh` are added.

    Returns:
        The report.
    """
    own = network.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    network.load_state_dict(own)  # tells modules that their weights have changed
    report.loaded = [name for name in values if name not in report.resized]
    report.fresh = [name for name in own if name not in values]
    return report
