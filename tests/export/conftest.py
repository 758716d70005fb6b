"""Tiny data and weights for the exporter; its modules are scripts, so their folder goes on the path."""

import sys
from pathlib import Path

import pytest
import torch
from base_files import LAYOUTS, write_base_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from export_configs import read_configs  # noqa: E402
from export_weights import build_network  # noqa: E402
from monai.bundle import ConfigParser  # noqa: E402

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


class BasedRun:
    """A run of a bundle on frozen weights of a file, named as the bundle's large_files.yml names it."""

    def __init__(self, bundle: str, folder: Path) -> None:
        self.bundle = bundle
        self.bundle_dir = ROOT / "bundles" / bundle
        (self.large_file,) = ConfigParser.load_config_file(self.bundle_dir / "large_files.yml")["large_files"]
        self.base_file = write_base_file(bundle, folder / "base" / Path(self.large_file["path"]).name)
        self.folder = folder / "run"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "model_best.pt"

    @property
    def adapter(self) -> Path:
        return self.folder / "adapter"

    def write(self) -> "BasedRun":
        """Write the run as training does, of the demo's small network with the tuning of train.json."""
        configs = read_configs(self.bundle_dir)
        train, demo = configs["train.json"], configs["demo.json"]
        values = {**train, **demo, "tuning": train["tuning"]}
        options = {name: values[name] for name in train["network_options"]}
        dataset_json = {"channel_names": {"0": "CT"}, "labels": dict(LABELS), "file_ending": ".nii.gz"}
        ct = Statistics(20.0, 150.0, -900.0, 150.0)
        preprocessing = Preprocessing((ChannelScheme("CTNormalization", False, ct),), 0)
        ModelCard(dataset_json, "Dataset901_Tiny", preprocessing, (64, 64), options).write(self.folder)
        torch.manual_seed(1)
        network = build_network(self.bundle_dir, self.folder)
        network.load_pretrained(self.base_file)
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.data += 0.02 * torch.randn_like(parameter)
        torch.save(network.state_dict(), self.checkpoint)
        network.save_adapter(self.adapter)
        return self


@pytest.fixture(scope="session", params=sorted(LAYOUTS))
def based_run(request, tmp_path_factory) -> BasedRun:
    """A run of each bundle that starts from published weights; read only."""
    return BasedRun(request.param, tmp_path_factory.mktemp(f"based_{request.param}")).write()
