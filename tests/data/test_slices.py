"""Slices are the same whatever process reads them, and a label keeps its values."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandAffined, RandGaussianNoised
from torch.utils.data import DataLoader

from nnunet_ext.data import (
    CachedVolume,
    Preprocessing,
    SliceDataset,
    VolumeDataset,
    cache_volumes,
    fit_preprocessing,
    open_dataset,
)
from nnunet_ext.data.normalization import ChannelScheme
from nnunet_ext.data.samplers import Showing


@pytest.fixture(scope="module")
def phantom(tiny_phantom, tmp_path_factory):
    """Volumes and preprocessing of the phantom; as a module's fixture, so that its slices can go to workers."""
    dataset = open_dataset(tiny_phantom)
    cases = list(dataset.training_cases().values())
    volumes = cache_volumes(dataset, cases, tmp_path_factory.mktemp("cache"), progress=False)
    return volumes, fit_preprocessing(dataset, volumes)


def augmentation() -> Compose:
    return Compose(
        [
            RandAffined(
                keys=["image", "label"], prob=1, rotate_range=0.5, scale_range=0.2, mode=["bilinear", "nearest"]
            ),
            RandGaussianNoised(keys="image", prob=0.5, std=0.1),
        ]
    )


def slices(phantom, image_size=(24, 40), transform=None, **options) -> SliceDataset:
    return SliceDataset(*phantom, image_size=image_size, transform=transform, **options)


def test_items_are_all_slices_of_all_volumes(phantom):
    dataset = slices(phantom)
    assert len(dataset) == 5 * 16
    assert {(dataset[item]["case"], dataset[item]["slice"]) for item in (0, 17)} == {
        ("thorax_000", 0),
        ("thorax_001", 1),
    }


def test_item_has_the_canvas_and_types_that_training_needs(phantom):
    item = slices(phantom)[5]
    assert item["image"].shape == (1, 24, 40)
    assert item["image"].dtype == torch.float32
    assert item["label"].shape == (1, 24, 40)
    assert item["label"].dtype == torch.uint8


def test_augmented_items_are_plain_tensors(phantom):
    item = slices(phantom, transform=augmentation())[5]  # where MONAI tracks meta data, as in a spawned worker
    assert type(item["image"]) is type(item["label"]) is torch.Tensor


def test_index_and_foreground_are_known_without_reading_arrays(phantom, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an array was read")

    monkeypatch.setattr(np, "load", refuse)
    volumes = [CachedVolume(volume.case, volume.folder, volume.info) for volume in phantom[0]]
    dataset = slices((volumes, phantom[1]))
    assert len(dataset.index) == len(dataset.has_foreground) == 80


def test_foreground_flags_match_the_labels(phantom):
    volumes, preprocessing = phantom
    dataset = slices((volumes, Preprocessing(preprocessing.channels, slice_axis=1)), image_size=(16, 32))
    assert dataset.has_foreground.tolist() == [bool(dataset[item]["label"].any()) for item in range(len(dataset))]
    assert 0 < dataset.has_foreground.sum() < len(dataset)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slice_at_its_own_size_is_the_normalised_slice_of_the_volume(phantom, axis):
    volumes, fitted = phantom
    preprocessing = Preprocessing(fitted.channels, axis)
    shape = [n for other, n in enumerate(volumes[0].shape) if other != axis]
    item = SliceDataset(volumes, preprocessing, image_size=tuple(shape))[3]
    whole = VolumeDataset(volumes, preprocessing)[0]
    assert torch.equal(item["image"], whole["image"][:, 3])
    assert torch.equal(item["label"], whole["label"][:, 3])


def items_of(dataset, order, num_workers) -> dict[tuple[str, int], torch.Tensor]:
    loader = DataLoader(dataset, batch_size=1, sampler=order, num_workers=num_workers)
    return {
        (batch["case"][0], int(batch["slice"][0])): torch.cat([batch["image"], batch["label"].float()])
        for batch in loader
    }


def test_items_are_equal_whatever_the_number_of_workers_and_the_order(phantom):
    dataset = slices(phantom, transform=augmentation(), seed=3)
    dataset.set_epoch(2)
    order = list(range(0, 80, 7))
    alone = items_of(dataset, order, 0)
    helped = items_of(dataset, order[::-1], 2)
    assert alone.keys() == helped.keys()
    assert all(torch.equal(alone[key], helped[key]) for key in alone)


@pytest.mark.parametrize("change", ["epoch", "seed", "item"])
def test_augmentation_changes_with(phantom, change):
    volumes, preprocessing = phantom
    one = [volumes[0], volumes[0]]  # the same slices twice, as different items
    dataset = SliceDataset(one, preprocessing, (32, 32), augmentation(), seed=0)
    other = SliceDataset(one, preprocessing, (32, 32), augmentation(), seed=1 if change == "seed" else 0)
    other.set_epoch(1 if change == "epoch" else 0)
    assert not torch.equal(dataset[8]["image"], other[8 + 16 * (change == "item")]["image"])


def test_augmentation_of_one_epoch_is_repeated_exactly(phantom):
    first, second = (slices(phantom, transform=augmentation(), seed=5) for _ in range(2))
    torch.manual_seed(1)
    np.random.seed(1)
    a = first[8]
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(a["image"], second[8]["image"])


def test_label_is_never_interpolated(phantom):
    dataset = slices(phantom, image_size=(47, 29), transform=augmentation())
    allowed = {0, 1, 2, 3, 4}
    values = set()
    for item in range(0, 80, 3):
        values |= set(torch.unique(dataset[item]["label"]).tolist())
    assert values == allowed


def test_image_and_label_are_transformed_together(raw, tmp_path):
    label = np.zeros((4, 48, 48), np.uint8)
    label[:, 8:24, 12:40] = 1
    raw.describe(channels=("noNorm",), labels={"background": 0, "box": 1})
    raw.case("a", image=label.astype(np.float32), label=label)
    dataset = open_dataset(raw.root)
    volumes = cache_volumes(dataset, list(dataset.training_cases().values()), tmp_path, progress=False)
    preprocessing = Preprocessing((ChannelScheme("NoNormalization"),), 0)
    augmented = SliceDataset(volumes, preprocessing, (64, 40), augmentation().transforms[0])
    for item in range(4):
        slice_ = augmented[item]
        inside = slice_["image"] > 0.5
        differ = (inside != (slice_["label"] > 0)).float().mean()
        assert differ < 0.02, "edges may differ by interpolation, not more"


def test_plain_functions_may_transform_too(phantom):
    item = slices(phantom, transform=lambda data: {**data, "image": data["image"] * 0})[0]
    assert not item["image"].any()


def test_volumes_are_whole_and_normalised(phantom):
    item = VolumeDataset(*phantom)[1]
    assert item["image"].shape == (1, 16, 32, 32)
    assert item["label"].shape == (1, 16, 32, 32)
    assert item["case"] == "thorax_001"


def test_ranks_share_the_volumes(phantom):
    parts = [VolumeDataset(*phantom, rank=rank, num_ranks=2) for rank in range(2)]
    cases = [[part[item]["case"] for item in range(len(part))] for part in parts]
    assert cases == [["thorax_000", "thorax_002", "thorax_004"], ["thorax_001", "thorax_003"]]
    assert all(part[0]["label"].any() for part in parts)


def test_rank_without_a_volume_gets_one_that_metrics_ignore(phantom):
    volumes, preprocessing = phantom
    part = VolumeDataset(volumes[:1], preprocessing, rank=1, num_ranks=2)
    assert len(part) == 1
    assert not part[0]["label"].any()
    assert part[0]["image"].any()


def test_slices_are_transformed_from_an_epoch_on(phantom):
    plain, delayed, immediate = (
        slices(phantom, transform=transform, augment_from_epoch=first)
        for transform, first in ((None, 0), (augmentation(), 3), (augmentation(), 0))
    )
    for epoch in (1, 2, 3, 4):
        for dataset in (delayed, immediate):
            dataset.set_epoch(epoch)
        expected = plain if epoch < 3 else immediate
        assert torch.equal(delayed[20]["image"], expected[20]["image"]), epoch
        assert not torch.equal(immediate[20]["image"], plain[20]["image"])


def test_a_slice_that_an_epoch_shows_again_is_transformed_differently(phantom):
    dataset = slices(phantom, transform=augmentation())
    first, second, third = (dataset[Showing(20, turn)]["image"] for turn in range(3))
    assert torch.equal(first, dataset[20]["image"])
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_workers_that_outlive_an_epoch_learn_of_the_next(phantom):
    dataset = slices(phantom, transform=augmentation(), augment_from_epoch=2)
    order = [20, Showing(20, 1), 21, Showing(21, 1)]
    loader = DataLoader(dataset, batch_size=4, sampler=order, num_workers=1, persistent_workers=True)
    for epoch in (1, 2, 3):
        dataset.set_epoch(epoch)
        expected = torch.stack([dataset[item]["image"] for item in order])
        assert torch.equal(next(iter(loader))["image"], expected), epoch
