"""The share of slices without foreground follows the schedule; epochs are exact, seeded, shared, resumable."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from nnunet_ext.data import SAMPLERS, AdaptiveSampler, BackgroundSchedule, make_sampler
from nnunet_ext.errors import OptionError
from nnunet_ext.training import background

NUM_SLICES, NUM_FOREGROUND, EPOCHS = 1000, 300, 11
FLAGS = np.random.default_rng(0).permutation(NUM_SLICES) < NUM_FOREGROUND


class Slices(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.has_foreground)


def adaptive(num_samples=None, flags=FLAGS, **options) -> AdaptiveSampler:
    schedule = {key: options.pop(key) for key in ("course", "keep", "foreground_only_epochs") if key in options}
    return AdaptiveSampler(
        Slices(has_foreground=flags), num_samples, background=BackgroundSchedule(EPOCHS, **schedule), **options
    )


def epoch_of(sampler, epoch: int) -> np.ndarray:
    """Return the items of an epoch, counted from 1 as engines do."""
    sampler.set_epoch(epoch)
    return np.array(list(sampler))


def test_names_and_help_are_of_the_same_samplers():
    assert background.SAMPLERS.keys() == SAMPLERS.keys()


@pytest.mark.parametrize(
    ("schedule", "probabilities"),
    [
        ({}, [0, 0.25, 0.5, 0.75, 1]),
        ({"keep": 0.5}, [0, 0.125, 0.25, 0.375, 0.5]),
        ({"course": "cosine"}, [0, 0.5 - 0.5**1.5, 0.5, 0.5 + 0.5**1.5, 1]),  # (1 - cos(45°)) / 2 = 0.5 - 0.5^1.5
        ({"course": "constant", "keep": 0.3}, [0.3] * 5),
        ({"course": "constant", "foreground_only_epochs": 2}, [0, 0, 1, 1, 1]),
        ({"foreground_only_epochs": 2}, [0, 0, 0, 0.5, 1]),
        ({"foreground_only_epochs": 4}, [0, 0, 0, 0, 1]),
        ({"foreground_only_epochs": 9}, [0] * 5),
    ],
    ids=str,
)
def test_probability_by_epoch(schedule, probabilities):
    course = BackgroundSchedule(5, **schedule)
    assert [course.probability(epoch) for epoch in range(5)] == pytest.approx(probabilities)


def test_batches_made_ahead_of_the_end_are_as_those_of_the_last_epoch():
    assert BackgroundSchedule(5, keep=0.7).probability(5) == 0.7


def test_a_training_of_one_epoch_sees_all_slices():
    assert BackgroundSchedule(1).probability(0) == 1


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"course": "liner"}, "background_schedule must be one of linear, cosine, constant, got 'liner'"),
        ({"keep": 1.5}, r"background_keep must be a number in \[0, 1\], got 1.5"),
        ({"foreground_only_epochs": -1}, "foreground_only_epochs must be an integer >= 0, got -1"),
    ],
)
def test_bad_schedules_are_refused(schedule, message):
    with pytest.raises(OptionError, match=message):
        BackgroundSchedule(5, **schedule)


@pytest.mark.parametrize("course", ["linear", "cosine"])
def test_number_of_background_slices_follows_the_schedule(course):
    """Each is kept by a coin of the epoch's probability: binomial, exact two-sided test in each epoch."""
    sampler = adaptive(course=course)
    for epoch in range(1, EPOCHS + 1):
        items = epoch_of(sampler, epoch)
        probability = BackgroundSchedule(EPOCHS, course).probability(epoch - 1)
        kept = int((~FLAGS[items]).sum())
        assert stats.binomtest(kept, NUM_SLICES - NUM_FOREGROUND, probability).pvalue > 1e-3, epoch
        assert set(items) >= set(np.flatnonzero(FLAGS)), "slices with foreground are always kept"
        assert len(set(items)) == len(items)
    assert len(items) == NUM_SLICES  # the last epoch shows all


@pytest.mark.parametrize("num_samples", [200, 1000, 20_000])
def test_share_in_an_epoch_of_fixed_length_follows_the_schedule(num_samples):
    """Of 300 slices with and 700 without foreground, p * 700 / (300 + p * 700) are without."""
    sampler = adaptive(num_samples)
    for epoch in (1, 4, 6, 11):
        probability = (epoch - 1) / 10
        expected = probability * 700 / (300 + probability * 700)
        found = (~FLAGS[epoch_of(sampler, epoch)]).mean()
        assert found == pytest.approx(expected, abs=4 * 0.5 / num_samples**0.5)


def test_first_epoch_shows_each_foreground_slice_before_any_twice():
    items = epoch_of(adaptive(2 * NUM_FOREGROUND), 1)
    assert sorted(items[:NUM_FOREGROUND]) == sorted(items[NUM_FOREGROUND:]) == np.flatnonzero(FLAGS).tolist()


def test_each_epoch_chooses_other_background_slices():
    sampler = adaptive(course="constant", keep=0.5)
    first, second = (set(epoch_of(sampler, epoch)) - set(np.flatnonzero(FLAGS)) for epoch in (3, 4))
    assert 100 < len(first & second) < 250  # 700 / 4 = 175


def test_length_without_a_number_is_that_of_the_epochs_choice():
    sampler = adaptive(course="constant", keep=0.5, rank=1, num_ranks=3)
    lengths = []
    for epoch in range(1, 6):
        items = epoch_of(sampler, epoch)
        assert len(sampler) == len(items)
        lengths.append(len(items))
    assert len(set(lengths)) > 1


def test_a_data_set_without_foreground_shows_all_slices():
    assert sorted(epoch_of(adaptive(flags=np.zeros(20, bool)), 1)) == list(range(20))


def test_a_resumed_training_goes_on_with_the_same_epoch():
    whole = [epoch_of(adaptive(500, seed=4), epoch).tolist() for epoch in range(1, EPOCHS + 1)]
    running = adaptive(500, seed=4)
    assert [epoch_of(running, epoch).tolist() for epoch in range(7, EPOCHS + 1)] == whole[6:]


def test_ranks_share_the_epoch():
    whole = epoch_of(adaptive(900, seed=1), 5).tolist()
    parts = [epoch_of(adaptive(900, seed=1, rank=rank, num_ranks=3), 5).tolist() for rank in range(3)]
    assert [item for triple in zip(*parts, strict=True) for item in triple] == whole


def test_adaptive_by_name_needs_a_schedule():
    with pytest.raises(OptionError, match="sampler: adaptive needs a background schedule, got none"):
        make_sampler("adaptive", Slices(has_foreground=FLAGS))
