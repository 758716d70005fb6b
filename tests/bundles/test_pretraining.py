"""Models Genesis learns to restore images without labels, and hands what it learnt to the training."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from ignite.engine import Events
from matplotlib import image as png
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_bundle_resume import assert_equal_states, state

from nnunet_ext.bundle import finetuning_command, lower, pretrained_file, read_model_card
from nnunet_ext.bundle.restoration_networks import restoration_network
from nnunet_ext.errors import OptionError, UserError
from nnunet_ext.networks._weights import read_weights

TINY = {
    "max_epochs": 2,
    "iterations_per_epoch": 5,
    "batch_size": 2,
    "base_channels": 4,
    "image_size": [24, 24],
    "patch_depth": 16,
    "val_interval": 1,
    "val_patches": 4,
    "num_workers": 0,
    "amp": False,
    "cache_dir": "cache",
}


def scalars(folder: str, name: str) -> list[float]:
    events = EventAccumulator(f"{folder}/tensorboard", size_guidance={"images": 0})
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def pretrain(genesis, dataset_dir, **options):
    return genesis.run("pretrain", **{**TINY, "dataset_dir": str(dataset_dir), "output_dir": "pre", **options})


def test_lower_error_is_better_and_any_is_better_than_nan():
    nan = float("nan")
    assert [lower(1.0, 2.0), lower(2.0, 1.0), lower(1.0, nan), lower(nan, 1.0), lower(nan, nan)] == [
        True,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(("architecture", "base_channels"), [("genesis", 3), ("segresnet", 12)])
def test_width_that_a_network_cannot_have_is_an_error_of_the_option(architecture, base_channels):
    with pytest.raises(OptionError, match=f"base_channels.*got {base_channels}"):
        restoration_network(architecture, 1, base_channels)


def test_pre_training_has_every_property(genesis, workspace, tiny_phantom):
    workflow = genesis.workflow("pretrain", **TINY, dataset_dir=str(tiny_phantom), output_dir="pre")
    assert workflow.check_properties() == []


@pytest.mark.parametrize("task", ["genesis", "masked_cubes"])
def test_pre_training_lowers_the_error_of_restoration_and_draws_panels(genesis, workspace, tiny_phantom, task, caplog):
    # a quarter of the cubes of 4 voxels: most of what is blank has neighbours that are not
    options = {"task": task, "iterations_per_epoch": 30, "mask_side": 4, "mask_share": 0.25, "warmup_iterations": 1}
    with caplog.at_level("INFO"):
        pretrain(genesis, tiny_phantom, **options)
    assert "(val_error_before: " in caplog.text
    assert "--pretrained pre/model_best.pt" in caplog.text and "--base_channels 4" in caplog.text
    errors = scalars("pre", "val_restoration_error")
    assert len(errors) == 2
    assert errors[1] < errors[0]
    assert {path.name for path in Path("pre/panels").iterdir()} == {"epoch_0001.png", "epoch_0002.png"}
    panel = png.imread("pre/panels/epoch_0002.png")
    assert panel.shape[1] >= 700
    before = scalars("pre", "val_error_before")
    assert before[0] == before[1] > 0
    events = EventAccumulator("pre/tensorboard", size_guidance={"images": 0})
    events.Reload()
    (tag,) = events.Tags()["images"]
    assert [(image.step, image.height, image.width) for image in events.Images(tag)] == [(1, 48, 72), (2, 48, 72)]
    middle = panel[: panel.shape[0] // 2, : panel.shape[1] // 3 * 3, 0]
    original, corrupted, restored = np.split(middle, 3, axis=1)
    assert not np.array_equal(original, corrupted)
    assert not np.array_equal(corrupted, restored)


@pytest.mark.parametrize("transfer", ["all", "encoder"])
def test_training_starts_from_the_pre_training_of_its_fold(genesis, workspace, tiny_phantom, transfer):
    options = {**genesis.tiny, "dataset_dir": str(tiny_phantom), "base_channels": 4, "cache_dir": "cache"}
    options.pop("pretrained")
    pretrain(genesis, tiny_phantom, output_dir=str(Path(pretrained_file(tiny_phantom, 0)).parent))
    network = genesis.workflow("train", **options, transfer=transfer).parser.get_parsed_content("initialized")
    found, own = read_weights(pretrained_file(tiny_phantom, 0)), network.state_dict()
    equal = {name.split("_")[0] for name in own if name.endswith("weight") and torch.equal(own[name], found[name])}
    assert equal == ({"down"} if transfer == "encoder" else {"down", "up"})


@pytest.mark.parametrize("intensities", ["unit", "nnunet"])
def test_other_intensities_than_in_pre_training_are_a_warning(genesis, workspace, tiny_phantom, caplog, intensities):
    options = {**genesis.tiny, "dataset_dir": str(tiny_phantom), "base_channels": 4, "cache_dir": "cache"}
    with caplog.at_level("INFO"):
        pretrain(genesis, tiny_phantom, max_epochs=1, intensities="nnunet")
    assert "--base_channels 4 --intensities nnunet --slice_axis 0" in caplog.text
    with pytest.raises(UserError, match="must be a network that segments"):
        read_model_card("pre/model_best.pt")
    caplog.clear()
    training = genesis.workflow("train", **{**options, "pretrained": "pre/model_best.pt", "intensities": intensities})
    training.parser.get_parsed_content("initialized")
    warning = "was trained with intensities=nnunet, this training has intensities=unit; give --intensities nnunet"
    assert (warning in caplog.text) == (intensities == "unit")


def test_validation_images_of_the_fold_are_never_trained_on(genesis, workspace, tiny_phantom):
    workflow = genesis.workflow("pretrain", **TINY, dataset_dir=str(tiny_phantom), output_dir="pre")
    train = genesis.workflow("train", **{**genesis.tiny, "dataset_dir": str(tiny_phantom), "cache_dir": "cache"})
    data, fold = (w.parser.get_parsed_content("data") for w in (workflow, train))
    for part in ("train_volumes", "val_volumes"):
        assert [v.case for v in getattr(data, part)] == [v.case for v in getattr(fold, part)]
    assert not any(volume.label.any() for volume in (*data.train_volumes, *data.val_volumes)), "labels were read"


def test_folder_of_images_without_labels_is_enough(genesis, workspace, tiny_phantom):
    root = workspace / "raw" / "Dataset953_Unlabelled"
    shutil.copytree(tiny_phantom / "imagesTr", root / "pool")
    shutil.copy(tiny_phantom / "dataset.json", root)
    workflow = pretrain(genesis, root, images_dir=str(root / "pool"), max_epochs=1)
    data = workflow.parser.get_parsed_content("data")
    assert (len(data.train_volumes), len(data.val_volumes)) == (4, 1)
    assert Path("pre/model_best.pt").is_file()


def test_several_channels_with_nnunets_intensities(genesis, workspace):
    from test_bundle_data_sets import write_blobs

    root = write_blobs(workspace / "raw" / "Dataset951_Blobs", num_channels=2)
    workflow = pretrain(genesis, root, intensities="nnunet", max_epochs=1)
    batch = next(iter(workflow.parser.get_parsed_content("train::dataloader")))
    assert batch["image"].shape == batch["label"].shape == (2, 2, 16, 24, 24)
    assert batch["label"].min() < 0  # z-scores


def test_interrupted_pre_training_ends_with_the_same_weights(genesis, workspace, tiny_phantom):
    def interrupt(engine):
        if engine.state.iteration == 7:
            raise KeyboardInterrupt

    options = {**TINY, "dataset_dir": str(tiny_phantom)}
    pretrain(genesis, tiny_phantom, output_dir="whole")
    workflow = genesis.workflow("pretrain", **options, output_dir="parts")
    torch.manual_seed(0)  # the trainer is made here, before "run" has seeded
    workflow.parser.get_parsed_content("train::trainer").add_event_handler(Events.ITERATION_COMPLETED, interrupt)
    with pytest.raises(KeyboardInterrupt):
        workflow.run()
    assert state("parts")["epoch"] == 1
    pretrain(genesis, tiny_phantom, output_dir="parts")
    assert_equal_states(state("whole"), state("parts"))
    best = [torch.load(f"{name}/model_best.pt", weights_only=True) for name in ("whole", "parts")]
    assert_equal_states(*best)


def test_missing_pre_training_is_an_error_that_says_how_to_get_it(genesis, workspace, tiny_phantom):
    root = workspace / "raw" / "Dataset954_Mine"
    shutil.copytree(tiny_phantom, root)
    (root / "phantom.json").unlink()
    options = {**genesis.tiny, "dataset_dir": str(root), "cache_dir": "cache", "output_dir": "run"}
    options.pop("pretrained")
    with pytest.raises(UserError, match=r"pretrained: neither .*pre-train first \(bundles/models_genesis/pretrain"):
        genesis.run("train", **options)
    with pytest.raises(OptionError, match="task: need one of genesis, masked_cubes, got 'jigsaw'"):
        pretrain(genesis, root, task="jigsaw")
    with pytest.raises(UserError, match="images_dir: need 2 images at least"):
        one = root / "one"
        one.mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4, 4), np.float32)), str(one / "a_0000.nii.gz"))
        pretrain(genesis, root, images_dir=str(one))


def test_corrupted_patches_stay_in_the_range_and_differ_from_their_targets(genesis, workspace, tiny_phantom):
    workflow = genesis.workflow("pretrain", **TINY, dataset_dir=str(tiny_phantom), output_dir="pre")
    dataset = workflow.parser.get_parsed_content("train::dataset")
    items = [dataset[item] for item in range(0, len(dataset), 7)]
    for item in items:
        for key in ("image", "label"):
            assert item[key].min() >= 0
            assert item[key].max() <= 1
    assert np.mean([not torch.equal(item["image"], item["label"]) for item in items]) > 0.9


def test_run_does_not_continue_from_another_start(genesis, workspace, tiny_phantom):
    pretrain(genesis, tiny_phantom)
    options = {**genesis.tiny, "dataset_dir": str(tiny_phantom), "base_channels": 4, "cache_dir": "cache"}
    options |= {"output_dir": "run", "max_epochs": 1, "iterations_per_epoch": 1}

    def train(**changes):
        with genesis.readable_errors():
            genesis.workflow("train", **{**options, **changes}).run()

    train(pretrained="none")
    for changes in ({"pretrained": "pre/model_best.pt"}, {"pretrained": "none", "transfer": "encoder"}):
        with pytest.raises(UserError, match=f"other settings.*{list(changes)[-1]}: "):
            train(**changes)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("genesis", "--pretrained pre/model_best.pt --dataset_dir D --fold 0 --base_channels 8"),
        ("planned", "configure -d D -c 3d_lowres --name 3d_lowres_pretrained --set network=planned init=genesis:pre/"),
        ("segresnet", "segresnet starts from pre/model_best.pt"),
    ],
)
def test_command_that_follows_trains_what_was_pre_trained(architecture, expected):
    assert expected in finetuning_command("train.json", "pre", "D", 0, architecture, 8, "3d_lowres")
