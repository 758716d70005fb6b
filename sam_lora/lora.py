"""LoRA through peft: which layers get it, and what its options mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

ADAPTER = "default"
INITS = ("default", "gaussian", "pissa")


@dataclass(frozen=True)
class LoraOptions:
    """How low-rank updates are shaped and started.

    Args:
        rank: Rank r of each update, >= 1.
        alpha: The update is scaled by alpha / r (by alpha / sqrt(r) with `rslora`); None: alpha = r, no scaling.
        dropout: Dropout rate of the update's input.
        dora: Whether magnitude and direction are learned apart (Liu et al. 2024, arXiv:2402.09353).
        rslora: Whether to scale by the square root of the rank (Kalajdzievski 2023, arXiv:2312.03732).
        init: `default` (A uniform, B zero), `gaussian` (A normal, B zero) or `pissa` (principal components of the
            frozen weights, which keep the rest; Meng et al. 2024, arXiv:2404.02948).
        block_ranks: Rank of each encoder block, 0 for none; empty: `rank` everywhere.

    Raises:
        ValueError: If an option is out of range.

    Source:
        Hu et al. 2021, arXiv:2106.09685.
    """

    rank: int = 4
    alpha: float | None = None
    dropout: float = 0.0
    dora: bool = False
    rslora: bool = False
    init: str = "default"
    block_ranks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank must be >= 1, got {self.rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.alpha is not None and self.alpha <= 0:
            raise ValueError(f"alpha must be > 0, got {self.alpha}; none stands for the rank")
        if self.init not in INITS:
            raise ValueError(f"init must be one of {', '.join(INITS)}, got {self.init!r}")
        if any(rank < 0 for rank in self.block_ranks):
            raise ValueError(f"block_ranks must be >= 0, got {self.block_ranks}")

    def ranks(self, depth: int) -> list[int]:
        """Return the rank of each of `depth` blocks.

        Raises:
            ValueError: If `block_ranks` has another length, or no block has an update.
        """
        if self.block_ranks and len(self.block_ranks) != depth:
            raise ValueError(f"block_ranks must have {depth} numbers, one a block, got {len(self.block_ranks)}")
        ranks = list(self.block_ranks or [self.rank] * depth)
        if not any(ranks):
            raise ValueError("block_ranks must have a rank > 0")
        return ranks

    def scale_of(self, rank: int) -> float:
        """Return peft's `lora_alpha` for a rank."""
        if self.alpha is not None:
            return self.alpha
        return rank**0.5 if self.rslora else rank


def lora_config(options: LoraOptions, targets: str, block_ranks: Sequence[int], block: str) -> LoraConfig:
    """Return peft's configuration.

    Args:
        options: Shape and start of the updates.
        targets: Regular expression of the names of the layers.
        block_ranks: Rank of each encoder block.
        block: Regular expression of a name inside a block, with `{}` for the block's number.
    """
    default = max(block_ranks)
    others = {block.format(number): rank for number, rank in enumerate(block_ranks) if rank not in (0, default)}
    return LoraConfig(
        r=default,
        lora_alpha=options.scale_of(default),  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        use_dora=options.dora,
        use_rslora=options.rslora,
        init_lora_weights={"default": True}.get(options.init, options.init),  # type: ignore[arg-type]
        target_modules=targets,
        rank_pattern=others,
        alpha_pattern={name: options.scale_of(rank) for name, rank in others.items()},  # type: ignore[misc]
    )


def inject(network: nn.Module, config: LoraConfig) -> None:
    """Put the updates into a network, in place; everything else stops being trainable.

    Args:
        network: The network.
        config: peft's configuration.
    """
    inject_adapter_in_model(config, network, ADAPTER)


def adapted_layers(network: nn.Module) -> dict[str, LoraLayer]:
    """Return the layers that carry an update, by name."""
    return {name: module for name, module in network.named_modules() if isinstance(module, LoraLayer)}


def restart(network: nn.Module, config: LoraConfig) -> None:
    """Start the updates anew; needed after other base weights were loaded, where the start depends on them.

    Args:
        network: A network with updates.
        config: peft's configuration that they were made by.
    """
    layers: list[Any] = list(adapted_layers(network).values())
    for layer in layers:
        trained = {name: p for name, p in layer.named_parameters() if "base_layer" not in name}
        layer.update_layer(ADAPTER, layer.r[ADAPTER], layer.lora_alpha[ADAPTER], config=config)
        for name, parameter in trained.items():  # the same objects, because an optimiser may hold them
            owner, _, last = name.rpartition(".")
            fresh = layer.get_submodule(owner)
            parameter.data = getattr(fresh, last).data
            setattr(fresh, last, parameter)
