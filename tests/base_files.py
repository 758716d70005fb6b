"""Weight files to start from, in the layouts that Meta releases, of the small variants that demos train."""

import sys
from pathlib import Path

import torch
from torch import nn
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel

from sam_lora import SAMed
from sam_lora.hiera import hiera_config
from sam_lora.sam_checkpoint import to_meta_layout
from sam_lora.variants import HIERA_VARIANTS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from published_sam2unet import meta_trunk


def _sam() -> dict:
    return to_meta_layout(SAMed(1, 4, variant="small", image_size=64))


def _sam2() -> dict:
    hiera = Sam2HieraDetModel(hiera_config(HIERA_VARIANTS["mini"]))
    nn.init.normal_(hiera.pos_embed, std=0.1)
    nn.init.normal_(hiera.pos_embed_window, std=0.1)
    return {"model": {f"image_encoder.trunk.{name}": value for name, value in meta_trunk(hiera).items()}}


LAYOUTS = {"samed": _sam, "sam2unet": _sam2}
"""By bundle."""


def write_base_file(bundle: str, file: Path, seed: int = 7) -> Path:
    """Write the weights that a bundle's small network starts from.

    Args:
        bundle: Name of the bundle.
        file: File to write.
        seed: Of the random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        content = LAYOUTS[bundle]()
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    return file
