"""Commands that people type after a run, to be printed at its end."""

import os
import shlex
from pathlib import Path

from ..data.preprocessing import Preprocessing
from ..data.raw_dataset import folder_name
from .checkpoints import BEST_FILE


def prediction_command(config_file: str, ckpt_dir: str | os.PathLike, dataset_dir: str | os.PathLike) -> str:
    """Return the command that predicts with a trained model.

    Args:
        config_file: The bundle's `inference.json`.
        ckpt_dir: Folder of the run.
        dataset_dir: The data set of the run; without `imagesTs` the command names a folder to fill in.
    """
    has_images = (Path(dataset_dir) / "imagesTs").is_dir()
    source = f"--dataset_dir {shlex.quote(str(dataset_dir))}" if has_images else "--images_dir FOLDER_OF_IMAGES"
    return f"python -m monai.bundle run --config_file {config_file} --ckpt_dir {shlex.quote(str(ckpt_dir))} {source}"


def finetuning_command(
    config_file: str,
    ckpt_dir: str | os.PathLike,
    dataset_dir: str | os.PathLike,
    fold: int | str,
    architecture: str = "genesis",
    base_channels: int = 32,
    configuration: str = "3d_fullres",
    preprocessing: Preprocessing | None = None,
) -> str:
    """Return the command that trains from a pre-trained model: that of the bundle, or nnU-Net's for its own network.

    Args:
        config_file: The bundle's `train.json`.
        ckpt_dir: Folder of the pre-training.
        dataset_dir: Its data set.
        fold: Its fold.
        architecture: What was pre-trained; of a network that neither trains, only where it lies.
        base_channels: Channels of the bundle's network.
        configuration: nnU-Net's configuration of the planned network.
        preprocessing: That of its images, which the bundle's training is to have too.
    """
    weights, dataset = (shlex.quote(str(path)) for path in (Path(ckpt_dir) / BEST_FILE, dataset_dir))
    if architecture == "planned":
        name = folder_name(dataset_dir)
        return (
            f"python -m nnunet_ext configure -d {name} -c {configuration} --name {configuration}_pretrained "
            f"--set network=planned init=genesis:{weights}"
        )
    if architecture != "genesis":
        return f"{architecture} starts from {weights}"
    options = {name: getattr(preprocessing, name) for name in ("intensities", "slice_axis") if preprocessing}
    alike = "".join(f" --{name} {value}" for name, value in options.items())
    return (
        f"python -m monai.bundle run --config_file {config_file} --pretrained {weights} --dataset_dir {dataset} "
        f"--fold {fold} --base_channels {base_channels}"
        f"{alike}"
    )


def scoring_command(
    predictions_dir: str | os.PathLike, dataset_dir: str | os.PathLike, output_dir: str | os.PathLike
) -> str:
    """Return the command that scores predictions of training cases.

    Args:
        predictions_dir: Prediction folder.
        dataset_dir: The data set, whose `labelsTr` are the references.
        output_dir: Folder of the run; scores go to `scores` in it.
    """
    folders = (predictions_dir, Path(dataset_dir) / "labelsTr", Path(output_dir) / "scores")
    predictions, references, scores = (shlex.quote(str(folder)) for folder in folders)
    return (
        f"predictions in {predictions}; score them with medseg-plugins:\n  python -m evaluation.test3d "
        f"--predictions {predictions} --references {references} --output {scores}"
    )
