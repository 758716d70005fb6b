"""Under nnU-Net with several processes, the sampler and mixup know which of them this one is."""

from collections import Counter

import pytest
import torch

from nnunet_ext.trainers.CustomTrainer import CustomTrainer

STOCK = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
NUM_RANKS, ITERATIONS, BATCH_SIZE = 3, 2, 4
SETTINGS = (
    *("network=enet", "network.input_scale=1", "sampler=adaptive", "mixup=input", "seed=5"),
    *(f"iterations_per_epoch={ITERATIONS}", f"batch_size={NUM_RANKS * BATCH_SIZE}"),
)


@pytest.fixture
def trainer_of(folders, monkeypatch):
    """Return a function that makes the trainer of one of three processes, as nnU-Net sets it up for its GPU."""
    folders.configure("2d_shared", *SETTINGS)

    def make(rank: int) -> CustomTrainer:
        trainer = folders.trainer(CustomTrainer, "2d_shared")
        trainer.is_ddp, trainer.local_rank = True, rank
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: NUM_RANKS)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)
        # the real wrapper waits for the other processes, which are not there
        monkeypatch.setattr(f"{STOCK}.DDP", lambda network, device_ids: network)
        trainer.initialize()
        return trainer

    return make


def test_the_sampler_deals_an_epoch_to_the_processes(trainer_of):
    orders, shares = [], []
    for rank in range(NUM_RANKS):
        trainer = trainer_of(rank)
        loader, _ = trainer.get_dataloaders()
        sampler = loader.data_loader._data.sampler
        assert (trainer.batch_size, sampler.rank, sampler.num_ranks) == (BATCH_SIZE, rank, NUM_RANKS)
        assert (len(sampler), sampler.size()) == (ITERATIONS * BATCH_SIZE, NUM_RANKS * ITERATIONS * BATCH_SIZE)
        orders.append(sampler.draw(sampler._random()).tolist())
        shares.append(list(sampler))
    assert orders[0] == orders[1] == orders[2]
    assert [item for dealt in zip(*shares, strict=True) for item in dealt] == orders[0]


def test_mixup_draws_the_same_share_and_partners_of_its_own(trainer_of):
    weights, orders = Counter(), Counter()
    for rank in range(NUM_RANKS):
        mixup = trainer_of(rank)._mixup
        assert (mixup.rank, mixup.seed) == (rank, 5)
        mixup.begin(torch.zeros(16, 2, 8, 8))
        weights[mixup.mix.weight] += 1
        orders[tuple(mixup.mix.order.tolist())] += 1
    assert len(weights) == 1
    assert len(orders) == NUM_RANKS
