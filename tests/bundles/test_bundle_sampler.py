"""Every bundle of slices trains on those of the sampler that it is told to."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from nnunet_ext.data import AdaptiveSampler
from nnunet_ext.errors import UserError

EPOCHS, BATCH_SIZE, ITERATIONS = 3, 8, 20


@pytest.fixture(scope="session")
def half_labelled(tiny_phantom, tmp_path_factory) -> Path:
    """The tiny phantom, whose upper half has lost its labels."""
    folder = shutil.copytree(tiny_phantom, tmp_path_factory.mktemp("half") / tiny_phantom.name)
    for path in (folder / "labelsTr").glob("*.nii.gz"):
        image = nib.load(path)
        label = np.array(image.dataobj)
        label[..., label.shape[-1] // 2 :] = 0
        nib.save(nib.Nifti1Image(label, image.affine, image.header), path)
    return folder


@pytest.fixture
def options(bundle, half_labelled):
    if "patch_depth" in bundle.train:
        pytest.skip("the bundle shows patches of volumes, not slices")
    return {
        "dataset_dir": str(half_labelled),
        "cache_dir": "cache",
        "output_dir": "run",
        "max_epochs": EPOCHS,
        "iterations_per_epoch": ITERATIONS,
        "batch_size": BATCH_SIZE,
        "val_interval": EPOCHS,
        "augmentation": "none",  # a shift can move the only labelled pixels out of a slice
    }


def background_shares(bundle, **options) -> list[float]:
    """Run the bundle's trainer without its network; return the share of slices without a label by epoch."""
    workflow = bundle.workflow("train", **{**bundle.tiny, **options})
    trainer = workflow.parser.get_parsed_content("train::trainer")
    shares: list[list[bool]] = []

    def look(engine, batch):
        if engine.state.iteration % ITERATIONS == 1:
            shares.append([])
        shares[-1] += [not label.any() for label in batch["label"]]
        return [{"loss": 0.0}]

    trainer._process_function = look
    with bundle.readable_errors():
        workflow.run()
    assert [len(epoch) for epoch in shares] == [ITERATIONS * BATCH_SIZE] * len(shares)
    return [sum(epoch) / len(epoch) for epoch in shares]


def counts(bundle, **options) -> tuple[int, int]:
    """Return the number of training slices with and without a label."""
    parser = ConfigParser()
    parser.read_config(bundle.files("train"))
    parser.update({**bundle.tiny, **options})
    flags = parser.get_parsed_content("train::dataset").has_foreground
    return int(flags.sum()), int((~flags).sum())


@pytest.mark.parametrize(
    ("schedule", "probabilities"),
    [
        ({}, [0, 0.5, 1]),
        ({"background_schedule": "constant", "background_keep": 0.5, "foreground_only_epochs": 1}, [0, 0.5, 0.5]),
    ],
    ids=str,
)
def test_share_of_background_slices_follows_the_schedule(bundle, workspace, options, schedule, probabilities):
    with_label, without = counts(bundle, **options)
    assert with_label > 10
    assert without > 10
    expected = [p * without / (with_label + p * without) for p in probabilities]
    shares = background_shares(bundle, sampler="adaptive", **options, **schedule)
    # 160 slices an epoch: one standard deviation of a share is at most 0.04, less by drawing without replacement
    assert shares == pytest.approx(expected, abs=0.12)
    assert shares[0] == 0


def test_a_course_that_changed_does_not_continue_a_run(bundle, workspace, options):
    background_shares(bundle, sampler="adaptive", **{**options, "max_epochs": 1})
    with pytest.raises(UserError, match=r"background_keep: 1\.0 -> 0\.5"):
        background_shares(bundle, sampler="adaptive", background_keep=0.5, **options)


def test_no_slice_is_decoded_to_learn_its_label(bundle, workspace, options):
    parser = ConfigParser()
    parser.read_config(bundle.files("train"))
    parser.update({**bundle.tiny, **options, "sampler": "adaptive"})
    sampler = parser.get_parsed_content("train::sampler")
    assert isinstance(sampler, AdaptiveSampler)
    for path in (workspace / "cache").rglob("*.npy"):
        path.unlink()
    for epoch in range(1, EPOCHS + 1):
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == ITERATIONS * BATCH_SIZE
