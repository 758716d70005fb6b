"""Weights to start from: files in the layouts that Meta releases, of the small variants that demos train, and runs."""

import atexit
import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel

from nnunet_ext.bundle import ModelCard
from nnunet_ext.data import Preprocessing
from nnunet_ext.data.normalization import ChannelScheme, Statistics, scheme_name
from nnunet_ext.data.raw_dataset import RawDataset, open_dataset
from nnunet_ext.networks import ENet
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


def write_enet_run(dataset_dir: str | Path, image_size: Sequence[int] = (32, 32)) -> Path:
    """Write a run of ENet on a data set, with random weights; the same call gives the same folder.

    Args:
        dataset_dir: The data set; its images are not read.
        image_size: Canvas (H, W) in pixels.
    """
    dataset = open_dataset(dataset_dir)
    return _enet_run(dataset.root, tuple(image_size), json.dumps(dataset.description))


@functools.cache
def _enet_run(root: Path, image_size: tuple[int, int], description: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="enet_run_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    dataset = RawDataset(root, json.loads(description))
    ct = Statistics(20.0, 150.0, -900.0, 150.0)
    names = [scheme_name(name) for name in dataset.channel_names]
    schemes = tuple(ChannelScheme(name, False, ct if name == "CTNormalization" else None) for name in names)
    card = ModelCard.of(dataset, Preprocessing(schemes, 0), image_size)
    card.write(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        torch.save(ENet(card.num_channels, card.num_outputs).state_dict(), folder / "model_best.pt")
    return folder
