"""Weights of SAM and SAMed: Meta's files, SAMed's LoRA files, and back to Meta's layout."""

import copy
import re
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from .checkpoint_file import CheckpointError, LoadReport, assign, read_checkpoint
from .lora import ADAPTER, adapted_layers, restart
from .networks.samed import SAMed
from .variants import VIT_VARIANTS

_PER_CLASS = (
    "mask_decoder.mask_tokens.",
    "mask_decoder.output_hypernetworks_mlps.",
    "mask_decoder.iou_prediction_head.",
)
_QKV = ("q_proj", "k_proj", "v_proj")


def load_sam(network: SAMed, file: str | Path) -> LoadReport:
    """Load Meta's weights into a SAMed; positions are resized, what depends on the classes stays fresh.

    Args:
        network: The network, with or without updates; updates that depend on the frozen weights start anew.
        file: `sam_vit_b_01ec64.pth` or its siblings, or a file in that layout.

    Returns:
        What was loaded, resized, left fresh, and not expected.

    Raises:
        CheckpointError: If the file is damaged, or of another model or size.
    """
    found = read_checkpoint(file)
    _check_is_sam(network, found, file)
    report = LoadReport()
    own = {_without_adapter(name): name for name in network.state_dict() if ".lora_" not in name}
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    values: dict[str, Tensor] = {}
    for name, value in _split(found).items():
        target = own.get(name)
        if target is None:
            report.unexpected.append(name)
            continue
        if name.startswith(_PER_CLASS):
            continue
        fitted = _fit(name, value, shapes[target])
        if fitted.shape != shapes[target]:
            raise CheckpointError(
                f"{file}: {name} must have the shape {tuple(shapes[target])}, got {tuple(value.shape)}"
            )
        if fitted is not value:
            report.resized.append(target)
        values[target] = fitted
    missing = [
        name
        for name, target in own.items()
        if target not in values and not name.startswith((*_PER_CLASS, "input_channels."))
    ]
    if missing:
        raise CheckpointError(f"{file}: lacks {len(missing)} of SAM's weights, such as {missing[0]}")
    assign(network, values, report)
    if network.lora_config is not None:
        restart(network, network.lora_config)
    return report


def load_samed_lora(network: SAMed, file: str | Path) -> LoadReport:
    """Load a LoRA file of the original SAMed: updates, prompt encoder and mask decoder.

    Args:
        network: A SAMed with tuning=lora, decoder=full, whose frozen weights are loaded already.
        file: Such as `epoch_159.pth`: `w_a_000`, `w_b_000`, ... (queries and values of each block in turn) and the
            trained parts under SAM's names.

    Returns:
        What was loaded; `fresh` are the frozen weights.

    Raises:
        CheckpointError: If the file is damaged, of another kind, or its rank or number of classes differ.
    """
    found = read_checkpoint(file)
    if "w_a_000" not in found:
        raise CheckpointError(f"{file}: must be a LoRA file of SAMed (w_a_000, ...), holds {_identify(found)}")
    layers = list(adapted_layers(network).items())
    encoder = [(name, layer) for name, layer in layers if name.startswith("image_encoder.")]
    ordered = sorted(encoder, key=lambda item: (int(re.findall(r"\d+", item[0])[0]), item[0].endswith("v_proj")))
    count = sum(name.startswith("w_a_") for name in found)
    if count != len(ordered):
        raise CheckpointError(f"{file}: must have updates for {len(ordered)} layers, got {count}; see variant, tuning")
    values, report = {}, LoadReport()
    for number, (name, layer) in enumerate(ordered):
        rank = found[f"w_a_{number:03d}"].shape[0]
        if rank != layer.r[ADAPTER]:
            raise CheckpointError(
                f"{file}: rank must be {layer.r[ADAPTER]}, got {rank}; build the network with rank={rank}"
            )
        values[f"{name}.lora_A.{ADAPTER}.weight"] = found[f"w_a_{number:03d}"] / layer.scaling[ADAPTER]
        values[f"{name}.lora_B.{ADAPTER}.weight"] = found[f"w_b_{number:03d}"]
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    for name, value in found.items():
        if name.startswith(("w_a_", "w_b_")):
            continue
        if name not in shapes:
            report.unexpected.append(name)
        elif value.shape != shapes[name]:
            raise CheckpointError(
                f"{file}: {name} must have the shape {tuple(shapes[name])}, got {tuple(value.shape)}; see num_classes"
            )
        else:
            values[name] = value
    return assign(network, values, report)


def merged(network: SAMed) -> SAMed:
    """Return a copy without updates, whose weights contain them.

    Args:
        network: A SAMed, with or without updates.
    """
    plain = copy.deepcopy(network)
    for name, layer in adapted_layers(plain).items():
        layer.merge(safe_merge=True)
        plain.set_submodule(name, layer.get_base_layer())
    plain.lora_config = None
    return plain


def to_meta_layout(network: SAMed) -> dict[str, Tensor]:
    """Return the weights under the names and in the shapes that `segment_anything`'s modules have.

    Updates are merged; the classes' tokens take the place of SAM's, the input's convolution is left out.

    Args:
        network: A SAMed.
    """
    state = {k: v for k, v in merged(network).state_dict().items() if not k.startswith("input_channels.")}
    fused: dict[str, Tensor] = {}
    for name, value in state.items():
        head, split, kind = name.partition(".qkv.")
        if not split:
            fused[name] = value
        elif kind.startswith("q_proj"):
            end = kind.removeprefix("q_proj.")
            fused[f"{head}.qkv.{end}"] = torch.cat([state[f"{head}.qkv.{part}.{end}"] for part in _QKV])
    return fused


def _split(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in Meta's layout with the fused projections in three parts."""
    parts: dict[str, Tensor] = {}
    for name, value in state.items():
        head, fused, end = name.partition(".attn.qkv.")
        if fused and end in ("weight", "bias"):
            parts |= {f"{head}.attn.qkv.{part}.{end}": v for part, v in zip(_QKV, value.chunk(3), strict=True)}
        else:
            parts[name] = value
    return parts


def _without_adapter(name: str) -> str:
    return name.replace(".base_layer.", ".")


def _fit(name: str, value: Tensor, shape: torch.Size) -> Tensor:
    """Return a table of positions in another size; anything else as it is."""
    if value.shape == shape:
        return value
    if name == "image_encoder.pos_embed":
        return F.interpolate(
            value.permute(0, 3, 1, 2), tuple(shape[1:3]), mode="bilinear", align_corners=False
        ).permute(0, 2, 3, 1)
    if ".rel_pos_" in name and value.shape[1:] == shape[1:]:
        return F.interpolate(value.T[None], shape[0], mode="linear", align_corners=False)[0].T
    return value


def _check_is_sam(network: SAMed, found: dict[str, Tensor], file: str | Path) -> None:
    own = network.variant
    key = next(name for name, variant in VIT_VARIANTS.items() if variant == own)
    depth = len({name.split(".")[2] for name in found if name.startswith("image_encoder.blocks.")})
    positions = found.get("image_encoder.pos_embed")
    width = positions.shape[-1] if positions is not None and positions.ndim == 4 else 0
    if (depth, width) != (own.depth, own.embed_dim):
        raise CheckpointError(
            f"{file}: must be SAM {key} ({own.depth} blocks of width {own.embed_dim}), holds {_identify(found)}"
        )


def _identify(found: dict[str, Tensor]) -> str:
    """Return in words what a state dict looks like."""
    if "w_a_000" in found:
        return f"a LoRA file of SAMed, rank {found['w_a_000'].shape[0]}"
    if any(name.startswith("image_encoder.trunk.") for name in found):
        return "SAM2"
    positions = found.get("image_encoder.pos_embed")
    if positions is not None and positions.ndim == 4:
        depth = len({name.split(".")[2] for name in found if name.startswith("image_encoder.blocks.")})
        known = [k for k, v in VIT_VARIANTS.items() if (v.depth, v.embed_dim) == (depth, positions.shape[-1])]
        return f"SAM {known[0] if known else ''} ({depth} blocks of width {positions.shape[-1]})".replace("  ", " ")
    return f"something else ({len(found)} tensors, such as {next(iter(found))})"
