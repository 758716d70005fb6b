"""Two processes train one network, each on its share: what torchrun starts on two GPUs, on CPUs."""

import json
import os
import subprocess
import sys

import pytest
import torch
from test_bundle_resume import state

PLAIN_UNET = {
    "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "arch_kwargs": {
        **{"n_stages": 3, "features_per_stage": [4, 8, 8], "kernel_sizes": [[3, 3, 3]] * 3},
        **{"strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]], "n_conv_per_stage": [1, 1, 1]},
        **{"n_conv_per_stage_decoder": [1, 1], "conv_op": "torch.nn.Conv3d", "conv_bias": True},
        **{"norm_op": "torch.nn.InstanceNorm3d", "nonlin": "torch.nn.LeakyReLU"},
    },
    "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
}
STEPS = [
    pytest.param("train", {}, id="train"),
    pytest.param("pretrain", {"architecture": "genesis"}, id="pretrain-genesis"),
    pytest.param("pretrain", {"architecture": "segresnet", "base_channels": 8}, id="pretrain-segresnet"),
    pytest.param("pretrain", {"architecture": "planned", "plans_file": "nnUNetPlans.json"}, id="pretrain-planned"),
]


@pytest.fixture
def torchrun(genesis, tiny_phantom, workspace, repository):
    """Return a function that runs a step of Models Genesis in some processes."""

    def run(step: str, output_dir: str, processes: int, **options) -> None:
        given = {"val_patches": 4} if step == "pretrain" else {"pretrained": "none"}
        given |= {"iterations_per_epoch": 3, "batch_size": 2, "base_channels": 4, "image_size": "[24,24]"}
        given |= {"patch_depth": 16, "val_interval": 1, "dataset_dir": tiny_phantom, "cache_dir": "cache", **options}
        files = ",".join(f"'{file}'" for file in genesis.files(step, f"multi_gpu_{step}"))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command += ["-m", "monai.bundle", "run", "--config_file", f"[{files}]", "--output_dir", output_dir]
        command += [part for key, value in given.items() for part in (f"--{key}", str(value))]
        environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("step", "options"), STEPS)
def test_two_processes_train_validate_and_are_continued(torchrun, workspace, step, options):
    """Unless every parameter that trains gets a gradient, they stop at the second iteration."""
    configuration = {"patch_size": [16, 24, 24], "architecture": PLAIN_UNET}
    (workspace / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"3d_fullres": configuration}}))
    torchrun(step, "pair", processes=2, max_epochs=1, **options)
    assert state("pair")["epoch"] == 1
    torchrun(step, "pair", processes=2, max_epochs=2, **options)
    assert (state("pair")["epoch"], state("pair")["iteration"]) == (2, 6)
    names = {path.name for path in (workspace / "pair").iterdir()}
    assert {"model_best.pt", "checkpoint_last.pt", "plans.json", "tensorboard"} <= names
    if step == "pretrain":
        assert {path.name for path in (workspace / "pair" / "panels").iterdir()} == {"epoch_0001.png", "epoch_0002.png"}
    weights = torch.load("pair/model_best.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in weights)
