"""Weights of SAM2's image encoder and of SAM2-UNet."""

import re
from pathlib import Path

from torch import Tensor

from .checkpoint_file import CheckpointError, LoadReport, assign, read_checkpoint
from .lora import restart
from .networks.sam2unet import SAM2UNet
from .variants import HIERA_VARIANTS

_TRUNK = "image_encoder.trunk."
_QKV = ("q_proj", "k_proj", "v_proj")
_RENAMES = (
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
)
_UNET_RENAMES = (
    (r"^rfb([1-4])\.branch(\d)\.(\d)\.", lambda m: f"reductions.{int(m[1]) - 1}.branches.{m[2]}.{_inner(m[2], m[3])}"),
    (r"^rfb([1-4])\.conv_cat\.", lambda m: f"reductions.{int(m[1]) - 1}.join."),
    (r"^rfb([1-4])\.conv_res\.", lambda m: f"reductions.{int(m[1]) - 1}.shortcut."),
    (r"^up([1-3])\.conv\.double_conv\.", lambda m: f"ups.{int(m[1]) - 1}.convs."),
    (r"^side1\.", "heads.0."),
    (r"^side2\.", "heads.1."),
    (r"^head\.", "heads.2."),
)


def load_pretrained(network: SAM2UNet, file: str | Path) -> LoadReport:
    """Load SAM2's image encoder, or a whole SAM2-UNet, whichever the file holds.

    Args:
        network: The network.
        file: See `load_sam2` and `load_sam2unet`.

    Returns:
        What was loaded, left fresh, and not expected.

    Raises:
        CheckpointError: If the file is damaged, or of another model or size.
    """
    whole = any(name.startswith("rfb1.") for name in read_checkpoint(file))
    return load_sam2unet(network, file) if whole else load_sam2(network, file)


def load_sam2(network: SAM2UNet, file: str | Path) -> LoadReport:
    """Load SAM2's image encoder; adapters, updates and decoder stay as they are.

    Args:
        network: The network; updates that depend on the frozen weights start anew.
        file: `sam2.1_hiera_large.pt` or its siblings, or a folder file of `transformers` (`model.safetensors`).

    Returns:
        What was loaded, left fresh (the decoder), and not expected (what SAM2 has beside its image encoder).

    Raises:
        CheckpointError: If the file is damaged, or of another model or size.
    """
    found = read_checkpoint(file)
    native = "vision_encoder.backbone."
    trunk = {k.removeprefix(_TRUNK): v for k, v in found.items() if k.startswith(_TRUNK)}
    trunk = trunk or {k.split(native, 1)[1]: v for k, v in found.items() if native in k}
    if not trunk:
        raise CheckpointError(
            f"{file}: must be SAM2 ({_TRUNK}...), holds {len(found)} tensors such as {next(iter(found))}"
        )
    values = {f"encoder.trunk.{name}": value for name, value in _trunk(trunk).items()}
    report = _load(network, values, file, required="encoder.trunk.")
    report.unexpected = [name for name in found if not name.startswith(_TRUNK) and native not in name]
    return report


def load_sam2unet(network: SAM2UNet, file: str | Path) -> LoadReport:
    """Load a whole SAM2-UNet in the layout of its released weights.

    Args:
        network: A SAM2UNet with tuning=adapter; heads of another number of classes stay fresh.
        file: Such as `SAM2UNet-COD.pth`.

    Returns:
        What was loaded, left fresh, and not expected (the fourth upsampling block, which is never used).

    Raises:
        CheckpointError: If the file is damaged, or of another model or size.
    """
    found = read_checkpoint(file)
    if not any(name.startswith("rfb1.") for name in found):
        raise CheckpointError(
            f"{file}: must be SAM2-UNet (rfb1...), holds {len(found)} tensors such as {next(iter(found))}"
        )
    if network.tuning != "adapter":
        raise CheckpointError(
            f"{file}: holds adapters; the network must be built with tuning=adapter, got {network.tuning}"
        )
    values: dict[str, Tensor] = {}
    trunk: dict[str, Tensor] = {}
    unexpected = []
    for name, value in found.items():
        learned = re.match(r"encoder\.blocks\.(\d+)\.prompt_learn\.([02])\.(.+)", name)
        if learned:
            values[f"encoder.adapters.{learned[1]}.{'down' if learned[2] == '0' else 'up'}.{learned[3]}"] = value
        elif name.startswith("encoder."):
            trunk[re.sub(r"^(blocks\.\d+)\.block\.", r"\1.", name.removeprefix("encoder."))] = value
        elif name.startswith("up4."):
            unexpected.append(name)
        else:
            values[_renamed(name, _UNET_RENAMES)] = value
    values |= {f"encoder.trunk.{name}": value for name, value in _trunk(trunk).items()}
    own = network.state_dict()
    for name in [n for n in values if n.startswith("heads.") and n in own and own[n].shape != values[n].shape]:
        del values[name]
    report = _load(network, values, file, required=("encoder.", "reductions.", "ups."))
    report.unexpected += unexpected
    return report


def _load(
    network: SAM2UNet, values: dict[str, Tensor], file: str | Path, required: str | tuple[str, ...]
) -> LoadReport:
    own = network.state_dict()
    bare = {name.replace(".base_layer.", "."): name for name in own if ".lora_" not in name}
    missing = [name for name in bare if name.startswith(required) and name not in values]
    wrong = [name for name, value in values.items() if name in bare and own[bare[name]].shape != value.shape]
    if missing or wrong:
        key = next(name for name, variant in HIERA_VARIANTS.items() if variant == network.variant)
        blocks = len({re.sub(r"\D*(\d+).*", r"\1", n) for n in values if n.startswith("encoder.trunk.blocks.")})
        width = values.get("encoder.trunk.pos_embed")
        got = f"{blocks} blocks of width {width.shape[1] if width is not None else '?'}"
        want = f"{sum(network.variant.blocks)} blocks of width {network.variant.embed_dim}"
        raise CheckpointError(
            f"{file}: must be of variant {key} ({want}), holds {got}; {len(missing)} tensors are missing, "
            f"{len(wrong)} have other shapes, such as {(missing + wrong)[0]}"
        )
    report = LoadReport(unexpected=[name for name in values if name not in bare])
    assign(network, {bare[name]: value for name, value in values.items() if name in bare}, report)
    if network.lora_config is not None:
        restart(network, network.lora_config)
    return report


def _trunk(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return Hiera's weights, of Meta's or of transformers' names, under this project's names."""
    own: dict[str, Tensor] = {}
    for name, value in state.items():
        renamed = _renamed(name, _RENAMES)
        head, fused, end = renamed.partition(".attn.qkv.")
        if fused and end in ("weight", "bias"):
            own |= {f"{head}.attn.qkv.{part}.{end}": v for part, v in zip(_QKV, value.chunk(3), strict=True)}
        else:
            own[renamed] = value
    return own


def _renamed(name: str, renames: tuple) -> str:
    for pattern, new in renames:
        name = re.sub(pattern, new, name)
    return re.sub(r"(branches\.\S*?|join|shortcut)\.?(conv|bn)\.", _conv_or_norm, name)


def _inner(branch: str, position: str) -> str:
    return "" if branch == "0" else f"{position}."


def _conv_or_norm(match: re.Match) -> str:
    return f"{match[1]}.{'0' if match[2] == 'conv' else '1'}."
