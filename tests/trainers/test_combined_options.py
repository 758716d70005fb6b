"""CRF, manifold mixup, accumulation, missing annotations and deep supervision in one training, behind each network."""

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from nnunet_ext.networks.crf import RefinedNetwork

COMBINED = (
    *("epochs=3", "iterations_per_epoch=3", "val_iterations_per_epoch=1", "batch_size=2", "save_every=1"),
    *("crf=all", "crf.iterations=2", "crf.appearance_weight=1", "crf.appearance_window=3"),
    *(
        "mixup=manifold",
        "accumulation_steps=2",
        "gradient_clip=1",
        "early_stop_patience=2",
        "schedule=cosine",
        "optimizer=adamw",
    ),
)
SLICES = ("sampler=adaptive", "augmentation=affine", "augment_from_epoch=1")
NETWORKS = {
    "planned": ("2d", *SLICES, "network=planned", "deep_supervision=true"),
    "planned-3d": ("3d_fullres", "network=planned", "deep_supervision=true", "loss=dice_focal"),
    "enet": ("2d", *SLICES, "network=enet", "network.input_scale=1", "loss=tversky"),
    "samed": ("2d", *SLICES, "network=samed", "network.variant=small", "network.image_size=64"),
    "sam2unet": (
        *("2d", *SLICES, "network=sam2unet", "network.variant=tiny", "network.image_size=64"),
        *("deep_supervision=true", "loss=structure"),
    ),
    "genesis": ("3d_fullres", "network=genesisunet3d", "network.base_channels=4", "patch_size=8,16,16"),
}


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_interrupted_continued_and_predicted(partial_folders, tmp_path, network):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folders, (configuration, *settings) = partial_folders, NETWORKS[network]
    folders.configure("combined", *COMBINED, *settings, configuration=configuration)
    folders.interrupt("combined", epoch=2)
    folders.train("CustomTrainer", "combined", continue_training=True)

    model = folders.model("CustomTrainer", "combined")
    finished = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert finished["current_epoch"] == 3
    assert np.isfinite(finished["logging"]["train_losses"]).all()
    steps = {int(state["step"]) for state in finished["optimizer_state"]["state"].values()}
    assert steps == {6}  # three batches an epoch: one step of two, and one of the last
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    assert set(summary["mean"]) == {"1", "2"}

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    assert isinstance(predictor.network, RefinedNetwork)
    output = tmp_path / "out"
    output.mkdir()
    images = folders.raw / "Dataset990_Cubes" / "imagesTs"
    predictor.predict_from_files_sequential(str(images), str(output), save_probabilities=True)
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(output / "cube_05.nii.gz")))
    probabilities = np.load(output / "cube_05.npz")["probabilities"]
    np.testing.assert_array_equal(probabilities.argmax(0), label)
    assert np.isfinite(probabilities).all()
