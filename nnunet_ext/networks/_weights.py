"""Start a network from the weights of a file: read without running code, complete or refused."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_NESTS = ("state_dict", "network_weights", "network", "model")
_WRAPPERS = ("module.", "_orig_mod.")
PARTS = ("all", "encoder")


class WeightsError(ValueError):
    """A weight file can't be read, or doesn't fit the network."""


@dataclass
class LoadReport:
    """What became of the entries of a weight file and of a network.

    Args:
        loaded: Names that were taken as they are.
        adapted: Names whose single input channel was spread over those of the network.
        fresh: Entries of the network that were left as they were.
        unexpected: Entries of the file that the network has no place for.
    """

    loaded: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return one line with counts, and the groups of names that weren't loaded."""
        parts = [f"{len(self.loaded)} loaded", f"{len(self.adapted)} adapted"]
        for what in ("fresh", "unexpected"):
            names = getattr(self, what)
            groups = sorted({".".join(name.split(".")[:2]) for name in names})
            parts.append(f"{len(names)} {what}" + (f" ({', '.join(groups)})" if groups else ""))
        return ", ".join(parts)


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file of `torch.save`.

    Args:
        file: A state dict, or a dictionary that holds one under `state_dict`, `network_weights`, `network`, `model`;
            prefixes of distributed and compiled networks are taken off.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        WeightsError: If the file is missing, damaged, holds no state dict, or would run code.
    """
    path = Path(file)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = "no file of torch.save" if isinstance(error, KeyError) else str(error).partition("\n")[0]
        raise WeightsError(
            f"{path}: damaged, or it holds Python objects beside tensors, which could run code ({reason}); "
            "save its state dict alone, or fetch it again"
        ) from error
    for nest in _NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
            break
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise WeightsError(f"{path}: must hold a state dict, holds a {type(content).__name__} without tensors")
    return {_unwrapped(name): value for name, value in tensors.items()}


def load_weights(
    network: nn.Module,
    file: str | Path,
    *,
    encoder: tuple[str, ...],
    head: tuple[str, ...],
    parts: str = "all",
) -> LoadReport:
    """Put the weights of a file into a network, except for its last layer.

    Args:
        network: The network; unchanged if the file doesn't fit.
        file: As for `read_weights`.
        encoder: Prefixes of the encoder's names.
        head: Prefixes of the last layer's names, which belong to the classes and stay fresh.
        parts: `all`: everything but the last layer; `encoder`: that alone.

    Returns:
        What was loaded, adapted, left fresh and not expected. A file of one input channel fits any number: its first
        convolution is divided among them.

    Raises:
        WeightsError: If the file can't be read, lacks a wanted entry, or has it in another shape or not finite.
        ValueError: If `parts` is neither.
    """
    if parts not in PARTS:
        raise ValueError(f"parts must be one of {', '.join(PARTS)}, got {parts!r}")
    found, own = read_weights(file), network.state_dict()
    report = LoadReport(unexpected=[name for name in found if name not in own])
    faults, values = [], {}
    for name, value in own.items():
        if name.startswith(head) or (parts == "encoder" and not name.startswith(encoder)):
            report.fresh.append(name)
        elif name not in found:
            faults.append(f"{name} is missing")
        else:
            fitted = _fit(found[name], value.shape)
            if fitted.shape != value.shape:
                faults.append(f"{name} must have the shape {tuple(value.shape)}, got {tuple(fitted.shape)}")
            elif not fitted.isfinite().all():
                faults.append(f"{name} must be finite, holds NaN or infinity")
            (report.loaded if fitted is found[name] else report.adapted).append(name)
            values[name] = fitted
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        held = ", ".join(list(found)[:3])
        raise WeightsError(
            f"{file}: does not fit this network: {'; '.join(faults[:3])}{more}; it holds {held}, ...; "
            "build the network as that of the file"
        )
    network.load_state_dict({**own, **values})
    return report


def _fit(value: Tensor, shape: torch.Size) -> Tensor:
    """Divide a convolution of one input channel among several: equal channels give what the one gave."""
    if value.ndim < 4 or value.ndim != len(shape) or value.shape[1] != 1 or shape[1] == 1:
        return value
    return value.repeat_interleave(shape[1], dim=1) / shape[1]


def _unwrapped(name: Any) -> str:
    name = str(name)
    for wrapper in _WRAPPERS * 2:
        name = name.removeprefix(wrapper)
    return name.replace("._orig_mod.", ".")
