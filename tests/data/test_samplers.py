"""An epoch has the length asked for, its own order, and no slice twice over the ranks."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_ext.data import SAMPLERS, BackgroundSchedule, ForegroundSampler
from nnunet_ext.data import make_sampler as make
from nnunet_ext.errors import OptionError

FLAGS = np.arange(20) < 5  # 5 of 20 slices hold foreground


class Slices(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.has_foreground)


def slices(flags=FLAGS) -> Slices:
    return Slices(has_foreground=np.asarray(flags))


def make_sampler(name, dataset, **options):
    return make(name, dataset, background=BackgroundSchedule(epochs=5, course="constant"), **options)


def epoch_of(sampler, epoch=0) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("num_samples", [None, 1, 7, 20, 53])
def test_epoch_has_exactly_the_length_asked_for(name, num_samples):
    sampler = make_sampler(name, slices(), num_samples=num_samples)
    assert len(sampler) == len(epoch_of(sampler)) == (num_samples or 20)
    assert set(epoch_of(sampler)) <= set(range(20))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_order_depends_on_seed_and_epoch_only(name):
    def order(seed, epoch):
        return epoch_of(make_sampler(name, slices(), num_samples=40, seed=seed), epoch)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("num_samples", [20, 54])
def test_ranks_share_one_epoch_without_overlap(name, num_samples):
    whole = epoch_of(make_sampler(name, slices(), num_samples=num_samples, seed=3), 1)
    parts = [
        epoch_of(make_sampler(name, slices(), num_samples=num_samples, seed=3, rank=rank, num_ranks=2), 1)
        for rank in range(2)
    ]
    assert [item for pair in zip(*parts, strict=True) for item in pair] == whole


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_ranks_get_equal_shares_of_an_odd_epoch(name):
    lengths = {len(epoch_of(make_sampler(name, slices(), num_samples=10, rank=rank, num_ranks=3))) for rank in range(3)}
    assert lengths == {3}


def test_uniform_epoch_shows_each_slice_once_before_any_twice():
    items = epoch_of(make_sampler("uniform", slices(), num_samples=50))
    counts = np.bincount(items, minlength=20)
    assert sorted(np.unique(counts)) == [2, 3]
    assert sorted(epoch_of(make_sampler("uniform", slices()))) == list(range(20))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_an_item_knows_how_often_the_ranks_have_shown_it_before(name):
    parts = [epoch_of(make_sampler(name, slices(), num_samples=54, rank=rank, num_ranks=2), 1) for rank in range(2)]
    seen: Counter[int] = Counter()
    for item in (item for pair in zip(*parts, strict=True) for item in pair):
        assert item.turn == seen[item]
        seen[item] += 1
    assert max(seen.values()) > 1


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1])
def test_foreground_sampler_holds_at_least_its_share(share):
    sampler = ForegroundSampler(slices(), num_samples=1000, foreground_share=share)
    found = FLAGS[epoch_of(sampler)].mean()
    assert found == pytest.approx(share + (1 - share) * 0.25, abs=0.05)  # 5 of 20 by chance
    assert found >= share


def test_foreground_slices_are_spread_over_the_epoch():
    sampler = ForegroundSampler(slices(), num_samples=1000, foreground_share=0.5)
    first, second = np.split(FLAGS[epoch_of(sampler)], 2)
    assert first.mean() == pytest.approx(second.mean(), abs=0.1)


def test_foreground_sampler_works_without_any_foreground():
    assert len(epoch_of(ForegroundSampler(slices(np.zeros(20, bool)), num_samples=30))) == 30


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_bad_share_is_refused(share):
    with pytest.raises(OptionError, match=r"foreground_share: need a number in \[0, 1\]"):
        ForegroundSampler(slices(), foreground_share=share)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_no_slice_at_all_is_refused(name):
    with pytest.raises(OptionError, match="sampler: need at least one slice with annotation, got none"):
        make_sampler(name, slices([]), num_samples=4)


def test_fewer_samples_than_ranks_is_refused():
    with pytest.raises(OptionError, match=r"num_samples: need at least one a rank \(4\), got 3"):
        make_sampler("uniform", slices(), num_samples=3, num_ranks=4)


def test_unknown_sampler_is_refused_with_the_known_ones():
    with pytest.raises(
        OptionError, match=r"sampler: need one of \['adaptive', 'foreground', 'uniform'\], got 'unifrom'"
    ):
        make_sampler("unifrom", slices())
