"""Two processes train a bundle together: torchrun, gloo, the overlay `multi_gpu_train.json`, the adaptive sampler."""

import json
import os
import subprocess
import sys

import pytest
import torch
from base_files import write_enet_run

EPOCHS, ITERATIONS, BATCH_SIZE, NUM_RANKS = 2, 3, 2, 2

PROGRAM = """
import json, os, sys
import torch
from monai.bundle import ConfigWorkflow
from nnunet_ext.data import AdaptiveSampler

drawn, whole, iterate = [], [], AdaptiveSampler.__iter__

def record(sampler):
    items = list(iterate(sampler))
    drawn.append([int(item) for item in items])
    whole.append(sampler.draw(sampler._random()).tolist())
    return iter(items)

AdaptiveSampler.__iter__ = record
files = [f"bundles/{sys.argv[2]}/{part}.json" for part in ("train", "multi_gpu_train")]
workflow = ConfigWorkflow(config_file=files, logging_file=False, workflow_type="train", **json.loads(sys.argv[1]))
sys.argv = sys.argv[:1]
workflow.initialize()
workflow.run()
network, trainer, mixup = (workflow.parser.get_parsed_content(k) for k in ("network", "train::trainer", "train::mixup"))
wrapped = isinstance(network, torch.nn.parallel.DistributedDataParallel)
content = {
    "drawn": drawn, "whole": whole, "wrapped": wrapped, "length": trainer.state.epoch_length,
    "iteration": trainer.state.iteration, "parameters": [p.detach() for p in network.parameters()],
    "share": mixup.mix.weight, "point": mixup.mix.point, "order": mixup.mix.order,
    "flags": workflow.parser.get_parsed_content("train::dataset").has_foreground.tolist(),
}
torch.save(content, f"rank{os.environ['RANK']}.pt")
workflow.finalize()
"""


@pytest.fixture(scope="module", params=["enet", "crf"])
def ranks(request, tiny_phantom, repository, tmp_path_factory) -> list[dict]:
    """What each of two processes saw and ended with; the CRF trains behind the last layer of a frozen network."""
    place = tmp_path_factory.mktemp("two_processes")
    (place / "bundles").symlink_to(repository / "bundles")
    (place / "program.py").write_text(PROGRAM)
    options = {
        "dataset_dir": str(tiny_phantom),
        "cache_dir": "cache",
        "output_dir": "run",
        "max_epochs": EPOCHS,
        "iterations_per_epoch": ITERATIONS,
        "batch_size": BATCH_SIZE,
        "val_interval": EPOCHS,
        "num_workers": 0,
        "sampler": "adaptive",
        "mixup": "manifold",
    }
    if request.param == "crf":
        options |= {"mode": "last", "base_checkpoint": str(write_enet_run(tiny_phantom))}
    else:
        options["image_size"] = [32, 32]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(NUM_RANKS)]
    done = subprocess.run(
        [*launcher, "program.py", json.dumps(options), request.param],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (place / "run" / "checkpoint_last.pt").is_file()
    return [torch.load(place / f"rank{rank}.pt", weights_only=True) for rank in range(NUM_RANKS)]


@pytest.mark.slow
def test_each_rank_gets_its_share_of_the_same_epoch(ranks):
    """Two epochs of 3 batches of 2 slices each on 2 ranks: 12 places of one order, dealt in turn."""
    assert ranks[0]["whole"] == ranks[1]["whole"]
    assert ranks[0]["whole"][0] != ranks[0]["whole"][1]
    for epoch in range(EPOCHS):
        order = ranks[0]["whole"][epoch]
        shares = [rank["drawn"][epoch] for rank in ranks]
        assert len(order) == ITERATIONS * BATCH_SIZE * NUM_RANKS
        assert [len(share) for share in shares] == [ITERATIONS * BATCH_SIZE] * NUM_RANKS
        assert [item for pair in zip(*shares, strict=True) for item in pair] == order
        assert len(set(order)) == len(order)
        assert not set(shares[0]) & set(shares[1])
    flags = ranks[0]["flags"]
    assert all(flags[item] for rank in ranks for item in rank["drawn"][0])  # the first epoch shows foreground only


@pytest.mark.slow
def test_the_ranks_train_one_network(ranks):
    for rank in ranks:
        assert rank["wrapped"]
        assert rank["length"] == ITERATIONS
        assert rank["iteration"] == EPOCHS * ITERATIONS
        assert len(rank["drawn"]) == EPOCHS
    for one, other in zip(*(rank["parameters"] for rank in ranks), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_the_ranks_mix_alike_with_partners_of_their_own(ranks):
    assert ranks[0]["share"] == ranks[1]["share"]
    assert ranks[0]["point"] == ranks[1]["point"]
    assert [len(rank["order"]) for rank in ranks] == [BATCH_SIZE] * NUM_RANKS
