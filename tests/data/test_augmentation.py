"""Every set of transforms keeps sizes and label values, is seeded, and does what its name says."""

import numpy as np
import pytest
import torch

from nnunet_ext.data import AUGMENTATIONS, make_augmentation
from nnunet_ext.errors import OptionError

SIZE = (48, 40)
CHANGING = sorted(AUGMENTATIONS.keys() - {"none"})
VALUES = (0, 3, 200)  # a mean of two of them is none of them


def item() -> dict:
    """Return a slice of smooth intensities, in which value 200 lies within value 3."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(rows - 24, columns - 20)
    label = np.select([distance < 7, distance < 14], [200, 3], 0).astype(np.uint8)
    image = np.exp(-(distance**2) / 200)[None].repeat(2, 0).astype(np.float32)
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(label)[None], "case": "a", "slice": 3}


def augmented(name: str, seed: int) -> dict:
    transform = make_augmentation(name, SIZE)
    transform.set_random_state(seed=seed)
    return transform(item())


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_sizes_types_and_other_entries_are_kept(name):
    for seed in range(5):
        found = augmented(name, seed)
        assert found["image"].shape == (2, *SIZE)
        assert found["image"].dtype == torch.float32
        assert found["label"].shape == (1, *SIZE)
        assert (found["case"], found["slice"]) == ("a", 3)
        assert torch.as_tensor(found["image"]).isfinite().all()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_label_maps_are_never_interpolated(name):
    for seed in range(30):
        assert set(np.unique(augmented(name, seed)["label"])) <= set(VALUES), seed


@pytest.mark.parametrize("name", sorted({"affine", "elastic", "crop", "zoom", "basic"}))
def test_image_and_label_move_together(name):
    """The image is brightest where the label is highest, also after the transform: their overlap stays."""
    for seed in range(20):
        found = augmented(name, seed)
        inner, outer = found["label"][0] == 200, found["label"][0] == 0
        if inner.any() and outer.any():
            assert found["image"][0][inner].mean() > found["image"][0][outer].mean() + 0.3, seed


@pytest.mark.parametrize("name", CHANGING)
def test_a_set_changes_slices_and_its_seed_decides_how(name):
    first, again = ([augmented(name, seed)["image"] for seed in range(20)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({image.numpy().tobytes() for image in first}) > 3
    assert any(not torch.equal(image, item()["image"]) for image in first)


def test_none_changes_nothing():
    found = augmented("none", 0)
    assert torch.equal(found["image"], item()["image"])
    assert torch.equal(found["label"], item()["label"])


@pytest.mark.parametrize("name", ["affine", "elastic", "crop", "zoom"])
def test_geometric_sets_move_labels(name):
    assert any(not torch.equal(augmented(name, seed)["label"], item()["label"]) for seed in range(20))


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


def test_nnunet_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    augmented("nnunet", 5)
    assert (torch.rand(1), np.random.rand()) == expected


def test_nnunet_gives_what_nnunets_own_transforms_give():
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    own = nnUNetTrainer.get_training_transforms(SIZE, (-np.pi, np.pi), None, (0, 1), do_dummy_2d_data_aug=False)
    for seed in range(5):
        transform = make_augmentation("nnunet", SIZE)
        transform.set_random_state(seed=seed)
        state = transform.transforms[0].R.get_state()
        drawn = int(transform.transforms[0].R.randint(2**31))
        transform.transforms[0].R.set_state(state)
        found = transform(item())
        torch.manual_seed(drawn)
        np.random.seed(drawn)
        expected = own(image=item()["image"], segmentation=item()["label"].to(torch.int16))
        torch.testing.assert_close(found["image"], expected["image"])


def test_an_unknown_set_is_refused():
    with pytest.raises(OptionError, match=r"augmentation must be one of none, basic, .*nnunet, got 'elastc'"):
        make_augmentation("elastc", SIZE)
