"""Two processes train one network, each on its share: what torchrun starts on two GPUs, on CPUs."""

import os
import subprocess
import sys

import pytest
import torch
from test_bundle_resume import state

STEPS = ("train", "pretrain")


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
@pytest.mark.parametrize("step", STEPS)
def test_two_processes_train_validate_and_are_continued(torchrun, workspace, step):
    torchrun(step, "pair", processes=2, max_epochs=1)
    assert state("pair")["epoch"] == 1
    torchrun(step, "pair", processes=2, max_epochs=2)
    assert (state("pair")["epoch"], state("pair")["iteration"]) == (2, 6)
    names = {path.name for path in (workspace / "pair").iterdir()}
    assert {"model_best.pt", "checkpoint_last.pt", "plans.json", "tensorboard"} <= names
    if step == "pretrain":
        assert {path.name for path in (workspace / "pair" / "panels").iterdir()} == {"epoch_0001.png", "epoch_0002.png"}
    weights = torch.load("pair/model_best.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in weights)
