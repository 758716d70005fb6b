"""Weight files in the published layouts, of small networks with random weights."""

import sys
from pathlib import Path

import pytest
import torch
from published_networks import stock_sam
from segment_anything.modeling import Sam
from torch import nn
from transformers.models.sam2.modeling_sam2 import Sam2HieraDetModel

from sam_lora.hiera import hiera_config
from sam_lora.variants import HIERA_VARIANTS

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from published_sam2unet import PublishedSam2Unet, meta_trunk


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def sam() -> Sam:
    """SAM's modules with weights that are nowhere zero."""
    torch.manual_seed(1)
    network = stock_sam()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return network


@pytest.fixture(scope="session")
def sam_file(sam, tmp_path_factory):
    """A file as Meta releases it."""
    file = tmp_path_factory.mktemp("sam") / "sam_small.pth"
    torch.save(sam.state_dict(), file)
    return file


@pytest.fixture(scope="session")
def hiera() -> Sam2HieraDetModel:
    """Hiera tiny of `transformers`."""
    torch.manual_seed(2)
    network = Sam2HieraDetModel(hiera_config(HIERA_VARIANTS["tiny"])).eval()
    nn.init.normal_(network.pos_embed, std=0.1)
    nn.init.normal_(network.pos_embed_window, std=0.1)
    return network


@pytest.fixture(scope="session")
def sam2_file(hiera, tmp_path_factory):
    """A file as Meta releases SAM2: the image encoder's trunk, and other parts."""
    file = tmp_path_factory.mktemp("sam2") / "sam2_tiny.pt"
    trunk = {f"image_encoder.trunk.{name}": value for name, value in meta_trunk(hiera).items()}
    torch.save({"model": {**trunk, "memory_encoder.fuser.weight": torch.zeros(3)}}, file)
    return file


@pytest.fixture(scope="session")
def published(hiera) -> PublishedSam2Unet:
    torch.manual_seed(3)
    network = PublishedSam2Unet(hiera).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network
