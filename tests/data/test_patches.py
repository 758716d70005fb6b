import numpy as np
import pytest
import torch
from monai.transforms import RandGaussianNoised

from nnunet_ext.data import cache_volumes, fit_preprocessing, open_dataset
from nnunet_ext.data.patches import PatchDataset
from nnunet_ext.data.raw_dataset import Case
from nnunet_ext.errors import OptionError


@pytest.fixture
def dataset(raw):
    """Two cases of 10 slices of 24 x 20 voxels; intensities count the voxels, labels lie in one corner."""
    for number in range(2):
        image = np.arange(10 * 24 * 20, dtype=np.float32).reshape(10, 24, 20)
        label = np.zeros((10, 24, 20), np.uint8)
        label[4:6, :3, :3] = 1
        raw.case(f"case_{number}", image, label)
    raw.describe(channels=("noNorm",))
    return open_dataset(raw.root)


@pytest.fixture
def make(dataset, tmp_path):
    volumes = cache_volumes(dataset, list(dataset.training_cases().values()), tmp_path / "cache", progress=False)
    preprocessing = fit_preprocessing(dataset, volumes, slice_axis=0)
    return lambda **options: PatchDataset(volumes, preprocessing, **{"image_size": (8, 8), "depth": 4, **options})


def test_patches_that_mostly_show_borders_are_warned_of(make, caplog):
    make(image_size=(24, 20), depth=14)
    assert not caplog.text
    make(image_size=(48, 20), depth=14)
    warning = "of a patch of 14 x 48 x 20 voxels the median image of 10 x 24 x 20 fills 36%"
    assert warning in caplog.text


def test_every_slice_has_items_of_its_own_and_lies_in_their_patches(make):
    patches = make(patches_per_slice=3)
    assert len(patches) == 2 * 10 * 3
    assert len(patches.has_foreground) == len(patches)
    starts = set()
    for item in range(len(patches)):
        data = patches[item]
        assert data["image"].shape == data["label"].shape == (1, 4, 8, 8)
        volume = patches.preprocessing.slices_first(patches.volumes[patches.index[item][0]].image)[0]
        first = int(np.flatnonzero(volume.ravel() == float(data["image"][0, 0, 0, 0]))[0])
        depth, row, column = np.unravel_index(first, volume.shape)
        assert depth <= data["slice"] < depth + 4
        expected = volume[depth : depth + 4, row : row + 8, column : column + 8]
        assert np.array_equal(data["image"][0], expected)
        starts.add((depth, row, column))
    assert len(starts) > 30


@pytest.mark.parametrize(("share", "expected"), [(1.0, 1.0), (0.0, 0.1)])
def test_share_of_patches_that_surely_show_foreground(make, share, expected):
    """At random a patch of 8 x 8 shows the corner of 3 x 3 if it starts in the first 3 of 17 rows and 13 columns."""
    patches = make(foreground_share=share, patches_per_slice=40)
    items = np.flatnonzero(patches.has_foreground)
    shown = np.mean([bool(patches[item]["label"].any()) for item in items])
    assert shown == pytest.approx(expected, abs=0.1)


def test_separate_patches_hold_foreground_where_their_slice_does_and_only_there(make):
    """Slices 4 and 5 hold the corner; a patch of 8 x 8 beside it is empty, and so is any of 4 slices from 6 on."""
    patches = make(separate=True, foreground_share=0.0, patches_per_slice=40)
    starts = set()
    for item, has_foreground in enumerate(patches.has_foreground):
        data = patches[item]
        assert bool(data["label"].any()) == has_foreground
        if data["slice"] == 6:
            starts.add(np.unravel_index(int(data["image"][0, 0, 0, 0]), (10, 24, 20)))
    assert {depth for depth, _, _ in starts} == {3, 4, 5, 6}
    assert min(row for _, row, _ in starts) < 3
    assert min(column for _, _, column in starts) < 3


def test_separate_patches_without_room_show_what_there_is(make):
    patches = make(separate=True, image_size=(24, 20), depth=10)
    assert not patches.has_foreground[0]
    assert patches[0]["label"].any()


def test_transforms_begin_with_their_epoch(make):
    patches = make(transform=RandGaussianNoised("image", prob=1.0), augment_from_epoch=2)
    plain = make()
    for epoch, same in ((1, True), (2, False)):
        patches.set_epoch(epoch)
        plain.set_epoch(epoch)
        assert torch.equal(patches[5]["image"], plain[5]["image"]) is same


@pytest.mark.parametrize(
    "options",
    [{"depth": 0}, {"image_size": (8, 0)}, {"image_size": (8,)}, {"patches_per_slice": 0}, {"foreground_share": 1.5}],
)
def test_sizes_and_shares_out_of_range_are_refused(make, options):
    with pytest.raises(OptionError, match=r"need image_size of two numbers|foreground_share must be a number in"):
        make(**options)


def test_patches_are_seeded_by_seed_epoch_and_item(make):
    noise = RandGaussianNoised("image", prob=1.0)
    first, again, other = make(transform=noise), make(transform=noise), make(transform=noise, seed=1)
    assert torch.equal(first[5]["image"], again[5]["image"])
    assert not torch.equal(first[5]["image"], other[5]["image"])
    again.set_epoch(1)
    assert not torch.equal(first[5]["image"], again[5]["image"])


def test_volume_smaller_than_the_patch_is_continued(make):
    data = make(image_size=(32, 16), depth=16)[0]
    assert data["image"].shape == data["label"].shape == (1, 16, 32, 16)
    assert torch.equal(data["image"][0, 9], data["image"][0, 15])
    assert torch.equal(data["image"][0, :, 23], data["image"][0, :, 31])


def test_case_without_a_label_gets_an_empty_one(dataset, tmp_path):
    case = dataset.training_cases()["case_0"]
    (volume,) = cache_volumes(dataset, [Case(case.name, case.images)], tmp_path / "cache", progress=False)
    (labelled,) = cache_volumes(dataset, [case], tmp_path / "cache", progress=False)
    assert not volume.label.any()
    assert volume.label.shape == volume.image.shape[1:]
    assert volume.folder != labelled.folder
    assert labelled.label.any()


@pytest.mark.parametrize(
    ("channel", "expected"), [("CT", [0.0, 0.0, 0.5, 1.0, 1.0]), ("MR", [0.0, 0.0, 0.5, 1.0, 1.0])]
)
def test_unit_intensities_end_at_0_and_1(raw, tmp_path, channel, expected):
    values = np.linspace(-4000, 4000, 9 * 16 * 16, dtype=np.float32).reshape(9, 16, 16)
    if channel == "CT":
        values[0, 0, :5] = [-3000, -1000, 0, 1000, 3000]
    raw.case("case_0", values, np.zeros(values.shape, np.uint8))
    raw.describe(channels=(channel,))
    dataset = open_dataset(raw.root)
    (volume,) = cache_volumes(dataset, list(dataset.training_cases().values()), tmp_path / "cache", progress=False)
    preprocessing = fit_preprocessing(dataset, [volume], intensities="unit")
    given = [-3000, -1000, 0, 1000, 3000] if channel == "CT" else [-4000, -3960, 0, 3960, 4000]
    array = np.array(given, np.float32).reshape(1, 1, 1, 5)
    assert preprocessing.normalize(array, volume.statistics).flatten().tolist() == pytest.approx(expected, abs=0.01)


def test_other_intensities_are_refused(dataset, tmp_path):
    volumes = cache_volumes(dataset, list(dataset.training_cases().values()), tmp_path / "cache", progress=False)
    with pytest.raises(OptionError, match="intensities: need one of nnunet, unit, got 'hu'"):
        fit_preprocessing(dataset, volumes, intensities="hu")
