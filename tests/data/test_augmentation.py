"""Every set of transforms keeps sizes and label values, is seeded, and does what its name says: slices and patches."""

import numpy as np
import pytest
import torch

from nnunet_ext.data import AUGMENTATIONS, make_augmentation
from nnunet_ext.errors import OptionError

SIZES = [(48, 40), (12, 48, 40), (16, 48, 40)]  # a slice; patches that nnU-Net turns in space, and in their slices
CHANGING = AUGMENTATIONS.keys() - {"none"}
OURS = CHANGING - {"nnunet"}
VALUES = (0, 3, 200)  # a mean of two of them is none of them


@pytest.fixture(params=SIZES, ids=str)
def size(request) -> tuple[int, ...]:
    return request.param


def item(size: tuple[int, ...]) -> dict:
    """Return a slice or a patch of smooth intensities, in which value 200 lies within value 3."""
    places = np.indices(size)
    distance = np.hypot(places[-2] - 24, places[-1] - 20)
    if len(size) == 3:
        distance = np.hypot(distance, 2 * (places[0] - size[0] / 2))
    label = np.select([distance < 7, distance < 14], [200, 3], 0).astype(np.uint8)
    image = np.exp(-(distance**2) / 200)[None].repeat(2, 0).astype(np.float32)
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(label)[None], "case": "a", "slice": 3}


def augmented(name: str, seed: int, size: tuple[int, ...]) -> dict:
    transform = make_augmentation(name, size)
    transform.set_random_state(seed=seed)
    return transform(item(size))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_sizes_types_and_other_entries_are_kept(name, size):
    for seed in range(5):
        found = augmented(name, seed, size)
        assert found["image"].shape == (2, *size)
        assert found["image"].dtype == torch.float32
        assert found["label"].shape == (1, *size)
        assert (found["case"], found["slice"]) == ("a", 3)
        assert torch.as_tensor(found["image"]).isfinite().all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_label_maps_are_never_interpolated(name, size):
    for seed in range(30):
        assert set(np.unique(augmented(name, seed, size)["label"])) <= set(VALUES), seed


@pytest.mark.parametrize("name", sorted(OURS))
def test_image_and_label_move_together(name, size):
    """The image is brightest where the label is highest, also after the transform: their overlap stays."""
    for seed in range(20):
        found = augmented(name, seed, size)
        inner, outer = found["label"][0] == 200, found["label"][0] == 0
        if inner.any() and outer.any():
            assert found["image"][0][inner].mean() > found["image"][0][outer].mean() + 0.3, seed


@pytest.mark.parametrize("name", sorted(CHANGING))
def test_a_set_changes_images_and_its_seed_decides_how(name, size):
    first, again = ([augmented(name, seed, size)["image"] for seed in range(20)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({image.numpy().tobytes() for image in first}) > 3
    assert any(not torch.equal(image, item(size)["image"]) for image in first)


def test_none_changes_nothing(size):
    found = augmented("none", 0, size)
    assert torch.equal(found["image"], item(size)["image"])
    assert torch.equal(found["label"], item(size)["label"])


@pytest.mark.parametrize("name", ["affine", "elastic", "crop", "zoom"])
def test_geometric_sets_move_labels(name, size):
    assert any(not torch.equal(augmented(name, seed, size)["label"], item(size)["label"]) for seed in range(20))


def transformed(name: str, size: tuple[int, ...], label: torch.Tensor, seed: int) -> dict:
    transform = make_augmentation(name, size)
    transform.set_random_state(seed=seed)
    return transform({"image": label.float(), "label": label})


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_is_everywhere_stays_everywhere(name, size):
    """An image goes on beyond its border, and so does its label, foreground or ignored: it is no background there."""
    label = torch.full((1, *size), 200, dtype=torch.uint8)
    for seed in range(20):
        assert (torch.as_tensor(transformed(name, size, label, seed)["label"]) == 200).all(), seed


@pytest.mark.parametrize("name", sorted(OURS - {"basic"}))  # basic changes intensities too
def test_labels_at_the_border_stay_those_of_the_image(name, size):
    """Rows in bands that reach both borders: an image that shows its labels, smooth, still does."""
    rows = torch.arange(size[-2]).view(-1, 1) // (size[-2] // 4)
    label = rows.expand(1, *size).to(torch.uint8)
    for seed in range(10):
        found = transformed(name, size, label, seed)
        assert (torch.as_tensor(found["image"]) - torch.as_tensor(found["label"])).abs().max() < 1.01, seed


def middle(volume: torch.Tensor) -> np.ndarray:
    """Return the centre of mass (D, H, W) of an image."""
    weights = np.asarray(volume[0], np.float64)
    return np.array([np.average(places, weights=weights) for places in np.indices(weights.shape)])


@pytest.mark.parametrize("name", ["basic", "affine"])
def test_patches_are_shifted_along_each_axis(name):
    size = (24, 48, 40)
    start = middle(item(size)["image"])
    moved = [np.abs(middle(augmented(name, seed, size)["image"]) - start) > 1 for seed in range(30)]
    assert np.any(moved, axis=0).all()


def test_affine_turns_patches_within_their_slices_only():
    """Where the label holds the number of the slice, every slice that is only turned or sheared keeps one value."""
    size = (24, 48, 40)
    label = torch.arange(1, 25, dtype=torch.uint8).view(1, 24, 1, 1).expand(1, *size)
    transform = make_augmentation("affine", size)
    transform.set_random_state(seed=0)
    for _ in range(10):
        found = transform({**item(size), "label": label})["label"][0, :, 20:28, 16:24]
        inside = found.amin(dim=(1, 2)) > 0
        assert torch.equal(found.amin(dim=(1, 2))[inside], found.amax(dim=(1, 2))[inside])
        assert inside.sum() > 8


@pytest.mark.parametrize("name", ["basic", "affine", "crop"])
def test_rows_and_columns_are_shifted_and_scaled_alike(name):
    """Centre and extent of a disk of radius 12 vary as much along one axis as along the other."""
    square = (64, 64)
    rows, columns = np.mgrid[:64, :64]
    disk = torch.from_numpy((np.hypot(rows - 32, columns - 32) < 12).astype(np.uint8))[None]
    found = []
    for seed in range(80):
        transform = make_augmentation(name, square)
        transform.set_random_state(seed=seed)
        places = np.argwhere(transform({"image": disk.float(), "label": disk})["label"][0].numpy())
        found.append([places.mean(axis=0), np.ptp(places, axis=0)])
    for along_rows, along_columns in np.std(found, axis=0):
        assert 0.6 < along_rows / along_columns < 1.6


SHIFTS = [((40, 40), (4, 4)), ((128, 60), (12, 6)), ((200, 120), (12, 12))]


@pytest.mark.parametrize(("size", "largest"), SHIFTS, ids=str)
def test_basic_shifts_slices_by_12_pixels_or_a_tenth_of_their_side(size, largest):
    """A disk at the centre moves by the shift, turned by up to 0.26 (15 degrees) and divided by 0.85 to 1.15."""
    places = np.indices(size) - (np.array(size).reshape(2, 1, 1) - 1) / 2
    disk = torch.from_numpy((np.hypot(*places) < 5).astype(np.uint8))[None]
    moved = [
        np.abs(middle(torch.as_tensor(transformed("basic", size, disk, seed)["label"])) - middle(disk))
        for seed in range(60)
    ]
    for along, own, other in zip(np.max(moved, axis=0), largest, largest[::-1], strict=True):
        assert 0.7 * own < along < (own + other * np.sin(0.26)) / 0.85 + 0.5


def test_nnunet_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    augmented("nnunet", 5, SIZES[0])
    assert (torch.rand(1), np.random.rand()) == expected


NNUNETS = [(SIZES[0], np.pi, False), (SIZES[1], np.pi, True), (SIZES[2], np.pi / 6, False)]
"""Size, largest angle, and whether patches turn within their slices: more than 3 times as wide as deep."""


@pytest.mark.parametrize(("size", "angle", "within_slices"), NNUNETS, ids=str)
def test_nnunet_gives_what_nnunets_own_transforms_give(size, angle, within_slices):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    axes = tuple(range(len(size)))
    own = nnUNetTrainer.get_training_transforms(size, (-angle, angle), None, axes, do_dummy_2d_data_aug=within_slices)
    for seed in range(5):
        transform = make_augmentation("nnunet", size)
        transform.set_random_state(seed=seed)
        state = transform.transforms[0].R.get_state()
        drawn = int(transform.transforms[0].R.randint(2**31))
        transform.transforms[0].R.set_state(state)
        found = transform(item(size))
        torch.manual_seed(drawn)
        np.random.seed(drawn)
        expected = own(image=item(size)["image"], segmentation=item(size)["label"].to(torch.int16))
        torch.testing.assert_close(found["image"], expected["image"])


def test_an_unknown_set_is_refused():
    with pytest.raises(OptionError, match=r"augmentation must be one of none, basic, .*nnunet, got 'elastc'"):
        make_augmentation("elastc", SIZES[0])
