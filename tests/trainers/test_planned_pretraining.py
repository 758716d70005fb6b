"""nnU-Net's planned network is pre-trained by the bundle, and nnU-Net starts from the result."""

import contextlib
import sys

import monai
import pytest
import torch
from monai.bundle import ConfigWorkflow
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunet_ext.bundle.restoration_networks import restoration_network
from nnunet_ext.errors import UserError
from nnunet_ext.trainers.CustomTrainer import CustomTrainer

TINY = {
    "max_epochs": 1,
    "iterations_per_epoch": 2,
    "batch_size": 2,
    "val_interval": 1,
    "val_patches": 2,
    "num_workers": 0,
    "amp": False,
    "intensities": "nnunet",
}


def pretrain(repository, folders, output_dir, **options) -> None:
    """Run the bundle's pre-training on the raw data set, and restore what it changes for the whole process."""
    config = repository / "bundles" / "models_genesis" / "pretrain.json"
    places = {"dataset_dir": str(folders.raw / folders.plans_path.parent.name), "output_dir": str(output_dir)}
    track_meta, path = monai.data.get_track_meta(), list(sys.path)
    with contextlib.chdir(repository):
        workflow = ConfigWorkflow(
            config_file=str(config),
            workflow_type="train",
            logging_file=False,
            cache_dir=str(output_dir.parent / "cache"),
            **{**TINY, **places, **options},
        )
        try:
            workflow.initialize()
            workflow.run()
            workflow.finalize()
        finally:
            monai.data.set_track_meta(track_meta)
            monai.utils.set_determinism(None)
            sys.path[:] = path


def test_planned_network_is_pre_trained_and_handed_over_both_ways(repository, folders, tmp_path):
    depth, *image_size = folders.plans()["configurations"]["3d_fullres"]["patch_size"]
    options = {"architecture": "planned", "plans_file": str(folders.plans_path)}
    pretrain(repository, folders, tmp_path / "pre", patch_depth=depth, image_size=image_size, **options)
    file = tmp_path / "pre" / "model_best.pt"
    weights = torch.load(file, weights_only=True)

    folders.configure("pre", "network=planned", f"init=genesis:{file}", configuration="3d_fullres")
    trainer = folders.trainer(CustomTrainer, "pre")
    trainer.initialize()
    trainer._load_pretrained()
    own = trainer.network.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[name], weights[name]) for name in own if ".seg_layers." not in name)

    torch.save({"network_weights": weights}, tmp_path / "for_nnunet.pth")
    stock = folders.trainer(CustomTrainer, "pre")
    stock.initialize()
    load_pretrained_weights(stock.network, str(tmp_path / "for_nnunet.pth"))
    taken = stock.network.state_dict()
    assert all(torch.equal(taken[name], own[name]) for name in own if ".seg_layers." not in name)


def test_segresnet_is_pre_trained(repository, folders, tmp_path):
    options = {"architecture": "segresnet", "base_channels": 8, "patch_depth": 8, "image_size": [16, 16]}
    pretrain(repository, folders, tmp_path / "pre", **options)
    weights = torch.load(tmp_path / "pre" / "model_best.pt", weights_only=True)
    network = monai.networks.nets.SegResNet(spatial_dims=3, init_filters=8, in_channels=2, out_channels=2)
    network.load_state_dict(weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "unet"}, "architecture: need one of genesis, segresnet, planned, got 'unet'"),
        ({"architecture": "planned"}, r"plans_file: architecture planned needs nnU-Net's plans, got None; give"),
        ({"architecture": "planned", "configuration": "3d"}, "configuration: .* has 2d, 3d_fullres.*, got 3d"),
        ({"architecture": "planned", "configuration": "2d"}, "configuration: need a 3D one, 2d has patches of"),
    ],
)
def test_what_cannot_be_built_is_refused(folders, options, message):
    plans = {"plans_file": folders.plans_path} if "configuration" in options else {}
    with pytest.raises(UserError, match=message):
        restoration_network(channels=1, **options, **plans)
