"""Augmentation under nnU-Net: the set of the options, from its epoch on, in nnU-Net's loader."""

import numpy as np
import pytest
import torch

from nnunet_ext.data.shared_epoch import SharedEpoch
from nnunet_ext.trainers.CustomTrainer import CustomTrainer
from nnunet_ext.training.augmentations import AUGMENTATIONS

SHORT = ("batch_size=4", "iterations_per_epoch=3")
GENESIS = ("3d_fullres", "network=genesisunet3d", "network.base_channels=4")
SHAPES = {
    "slices": ("2d", "network=enet", "network.input_scale=1"),
    "volumes": (*GENESIS, "patch_size=8,16,16"),
    "flat volumes": (*GENESIS, "patch_size=8,40,40"),  # so flat that nnU-Net turns them within their slices only
}
OWN = sorted(AUGMENTATIONS.keys() - {"none", "nnunet"})


@pytest.fixture(params=SHAPES)
def shape(request) -> str:
    return request.param


def transform_of(folders, *settings: str, epoch: int = 0, shape: str = "slices"):
    """Return the training transforms that nnU-Net's loader gets, and the size of their input."""
    configuration, *of_shape = SHAPES[shape]
    folders.configure("augment", *SHORT, *of_shape, *settings, configuration=configuration)
    trainer = folders.trainer(CustomTrainer, "augment")
    trainer.initialize()
    trainer.current_epoch = epoch
    loader, _ = trainer.get_dataloaders()
    size = tuple(loader.data_loader.patch_size)[-len(trainer.configuration_manager.patch_size) :]
    return loader.data_loader.transforms, size, trainer


def patch(size) -> dict[str, torch.Tensor]:
    """Return a patch of smooth intensities, in which label 200 lies within label 3, and -1 at one side."""
    places = np.stack([axis / length - 0.5 for axis, length in zip(np.indices(size), size, strict=True)])
    distance = np.linalg.norm(places, axis=0)
    label = np.select([distance < 0.1, distance < 0.2, places[-1] < -0.26], [200, 3, -1], 0).astype(np.int16)
    image = np.exp(-(distance**2) / 0.03)[None].repeat(2, 0).astype(np.float32)
    return {"image": torch.from_numpy(image), "segmentation": torch.from_numpy(label)[None]}


def centre(array: torch.Tensor, size) -> torch.Tensor:
    starts = [(whole - part) // 2 for whole, part in zip(array.shape[1:], size, strict=True)]
    return array[(slice(None), *(slice(start, start + part) for start, part in zip(starts, size, strict=True)))]


@pytest.mark.parametrize("name", OWN)
def test_a_set_changes_patches_and_never_mixes_labels(folders, shape, name):
    transform, size, trainer = transform_of(folders, f"augmentation={name}", shape=shape)
    wanted = tuple(trainer.configuration_manager.patch_size)
    found = [transform(**patch(size)) for _ in range(20)]
    for sample in found:
        assert sample["image"].shape == (2, *wanted)
        assert sample["segmentation"].shape == (1, *wanted)
        assert set(np.unique(sample["segmentation"])) <= {0, 3, 200}  # a mean of two of them is none of them
    assert len({sample["image"].numpy().tobytes() for sample in found}) > 3


@pytest.mark.parametrize("name", OWN)
def test_a_region_to_ignore_never_becomes_certain_background(folders, shape, name):
    transform, size, _ = transform_of(folders, f"augmentation={name}", shape=shape)
    ignored = {**patch(size), "segmentation": torch.full((1, *size), 3, dtype=torch.int16)}
    for _ in range(10):
        assert (transform(**ignored)["segmentation"] == 3).all()


def test_none_is_the_centre_of_the_patch(folders, shape):
    transform, size, trainer = transform_of(folders, "augmentation=none", shape=shape)
    wanted = tuple(trainer.configuration_manager.patch_size)
    sample = transform(**patch(size))
    torch.testing.assert_close(sample["image"], centre(patch(size)["image"], wanted))
    expected = centre(patch(size)["segmentation"], wanted)
    assert set(expected.unique().tolist()) == {-1, 0, 3, 200}
    assert torch.equal(sample["segmentation"].long(), expected.clamp_min(0).long())


def test_no_set_stands_in_for_another(folders, shape):
    found = {}
    for name in AUGMENTATIONS:
        transform, size, _ = transform_of(folders, f"augmentation={name}", shape=shape)
        np.random.seed(0)
        torch.manual_seed(0)
        found[name] = torch.stack([transform(**patch(size))["image"] for _ in range(8)])
    assert len({images.numpy().tobytes() for images in found.values()}) == len(AUGMENTATIONS)


@pytest.mark.parametrize("name", ["zoom", "nnunet"])
def test_transforms_begin_with_their_epoch(folders, shape, name):
    """An epoch has 3 batches of 4: 24 plain patches, then changed ones, from epoch 3 on."""
    transform, size, trainer = transform_of(folders, f"augmentation={name}", "augment_from_epoch=3", shape=shape)
    plain = centre(patch(size)["image"], tuple(trainer.configuration_manager.patch_size))
    same = [torch.equal(transform(**patch(size))["image"], plain) for _ in range(60)]
    assert all(same[:24])
    assert not all(same[24:])


def test_a_resumed_training_knows_that_they_have_begun(folders):
    transform, size, trainer = transform_of(folders, "augmentation=affine", "augment_from_epoch=3", epoch=2)
    plain = centre(patch(size)["image"], tuple(trainer.configuration_manager.patch_size))
    assert not all(torch.equal(transform(**patch(size))["image"], plain) for _ in range(12))


@pytest.mark.parametrize(
    ("configuration", "name"), [("2d", "nnunet"), ("2d", "elastic"), ("3d_fullres", "elastic"), ("3d_fullres", "crop")]
)
def test_a_batch_with_coarser_targets_is_trained_on(folders, configuration, name):
    """The planned network has deep supervision; nnU-Net makes its targets after the transforms."""
    settings = ("network=planned", "batch_size=2", "iterations_per_epoch=1")
    own = (f"augmentation={name}", "augment_from_epoch=2")
    folders.configure("planned", *settings, *own, configuration=configuration)
    trainer = folders.trainer(CustomTrainer, "planned")
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    for _ in range(3):  # plain and changed ones
        assert np.isfinite(trainer.train_step(next(loader))["loss"])


def test_flat_volumes_keep_their_slices_in_nnunets_loader(folders):
    _, size, trainer = transform_of(folders, "augmentation=affine", shape="flat volumes")
    _, within_slices, _, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert within_slices
    assert (size[0], mirror_axes) == (8, None)
    assert min(size[1:]) > 40


@pytest.mark.parametrize("name", OWN)
def test_volumes_of_a_data_set_are_loaded_with_each_set(folders, name):
    """Their six slices are fewer than the patch has: nnU-Net pads labels with -1, which no loss knows."""
    folders.configure("3d_own", *SHORT, *SHAPES["volumes"][1:], f"augmentation={name}", configuration="3d_fullres")
    trainer = folders.trainer(CustomTrainer, "3d_own")
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    batch = next(loader)
    assert batch["data"].shape == (4, 2, 8, 16, 16)
    assert batch["target"].shape == (4, 1, 8, 16, 16)
    assert set(batch["target"].unique().tolist()) <= {0, 1, 2}


def test_a_set_moves_the_labels_of_the_stage_before_too(folders):
    """A cascade hands them over as a second label map, which becomes one channel of the image for each label."""
    _, size, trainer = transform_of(folders, "augmentation=zoom", shape="volumes")
    wanted, labels = (8, 16, 16), patch(size)["segmentation"].clamp(0, 1)
    transform = trainer.get_training_transforms(
        wanted, (0, 0), None, None, False, is_cascaded=True, foreground_labels=[1]
    )
    moved = [transform(image=patch(size)["image"], segmentation=labels.repeat(2, 1, 1, 1)) for _ in range(10)]
    for sample in moved:
        assert sample["image"].shape == (3, *wanted)
        assert torch.equal(sample["image"][2:], sample["segmentation"].float())
    assert len({sample["image"].numpy().tobytes() for sample in moved}) > 3


def test_volumes_can_do_without_augmentation_at_first(folders):
    folders.configure("3d_late", "network=planned", "batch_size=2", "augment_from_epoch=2", configuration="3d_fullres")
    trainer = folders.trainer(CustomTrainer, "3d_late")
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    assert next(loader)["data"].shape == (2, 2, *trainer.configuration_manager.patch_size)


def test_epochs_are_counted_over_samples():
    epoch = SharedEpoch(samples_per_epoch=3, first_epoch=5, ahead=2)
    assert [epoch.advance() for _ in range(6)] == [(5, 1), (5, 2), (5, 0), (5, 1), (5, 2), (6, 0)]


def test_names_and_help_are_of_the_same_sets():
    from nnunet_ext.data import AUGMENTATIONS as TRANSFORMS

    assert list(AUGMENTATIONS) == list(TRANSFORMS)
