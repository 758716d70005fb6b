"""Tiny data and weights for the exporter; its modules are scripts, so their folder goes on the path."""

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from nnunet_ext.bundle import ModelCard  # noqa: E402
from nnunet_ext.data import Preprocessing  # noqa: E402
from nnunet_ext.data.normalization import ChannelScheme, Statistics  # noqa: E402
from nnunet_ext.data.phantom import write_phantom  # noqa: E402
from nnunet_ext.data.phantom_anatomy import LABELS  # noqa: E402
from nnunet_ext.networks import ENet  # noqa: E402


@pytest.fixture(scope="session")
def make_weights(tmp_path_factory):
    """Return a function that writes `model_best.pt` and its description as training does, and returns the file."""

    def make(seed, channels=("CT",), labels=LABELS, dataset_name="Dataset900_ThoraxPhantom", **description):
        folder = tmp_path_factory.mktemp("run")
        ct = Statistics(20.0, 150.0, -900.0, 150.0)
        schemes = [
            ChannelScheme("CTNormalization", False, ct) if name == "CT" else ChannelScheme("ZScoreNormalization")
            for name in channels
        ]
        dataset_json = {
            "channel_names": {str(number): name for number, name in enumerate(channels)},
            "labels": dict(labels),
            "file_ending": ".nii.gz",
            **description,
        }
        card = ModelCard(dataset_json, dataset_name, Preprocessing(tuple(schemes), 0), (64, 64))
        card.write(folder)
        torch.manual_seed(seed)
        network = ENet(card.num_channels, card.num_outputs).train()
        network(torch.randn(4, card.num_channels, 64, 64))  # moves the running statistics from their start values
        torch.save(network.state_dict(), folder / "model_best.pt")
        return folder / "model_best.pt"

    return make


@pytest.fixture(scope="session")
def weights(make_weights):
    return make_weights(seed=1)


@pytest.fixture(scope="session")
def images_dir(tmp_path_factory):
    dataset_dir = tmp_path_factory.mktemp("data") / "Dataset901_Tiny"
    return write_phantom(dataset_dir, num_training=1, num_test=1, shape=(32, 32, 16)) / "imagesTs"
