"""What lies beside the weights, so that they can be used without the data set that made them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..atomic import write_json
from ..data.image_io import NATURAL_IMAGE_ENDINGS
from ..data.label_map import LabelMap
from ..data.preprocessing import Preprocessing
from ..data.raw_dataset import RawDataset, read_dataset_json
from ..data.unannotated import ENTRY
from ..errors import UserError

PATCH_DEPTH = "patch_depth"
"""Among the options of a network of volumes, the slices of a patch; none of the networks takes it itself."""


@dataclass(frozen=True)
class ModelCard:
    """Description of a trained model: `dataset.json` and `plans.json` in the manner of nnU-Net.

    Args:
        dataset_json: Channels and labels.
        dataset_name: Name of the data set that trained the model.
        preprocessing: What images need.
        image_size: Canvas (H, W) of the network in pixels; of a network of volumes, rows and columns of a patch.
        network_options: Further options that the network must be built with, as JSON.
        restores: Whether the network restores corrupted images, instead of segmenting them.
    """

    dataset_json: dict[str, Any]
    dataset_name: str
    preprocessing: Preprocessing
    image_size: tuple[int, int]
    network_options: dict[str, Any] = field(default_factory=dict)
    restores: bool = False

    @classmethod
    def of(
        cls,
        dataset: RawDataset,
        preprocessing: Preprocessing,
        image_size: tuple[int, int],
        network_options: dict[str, Any] | None = None,
    ) -> "ModelCard":
        """Describe a model that is about to be trained.

        Args:
            dataset: Its data set.
            preprocessing: Its preprocessing.
            image_size: Canvas (H, W) in pixels.
            network_options: Further options of the network.
        """
        of_cases = ("dataset", ENTRY)
        description = {key: value for key, value in dataset.description.items() if key not in of_cases}
        size = int(image_size[0]), int(image_size[1])
        return cls(description, dataset.name, preprocessing, size, dict(network_options or {}))

    @property
    def label_map(self) -> LabelMap:
        """Labels and network outputs."""
        return LabelMap.from_dataset_json(self.dataset_json, Path("dataset.json"))

    @property
    def patch_depth(self) -> int | None:
        """Slices of a patch, for a network of volumes; none for one of slices."""
        return self.network_options.get(PATCH_DEPTH)

    @property
    def patch_size(self) -> tuple[int, ...]:
        """What the network sees: a canvas (H, W) in pixels or a patch (D, H, W) in voxels."""
        return self.image_size if self.patch_depth is None else (self.patch_depth, *self.image_size)

    @property
    def num_channels(self) -> int:
        """Number of input channels."""
        return len(self.dataset_json["channel_names"])

    @property
    def num_outputs(self) -> int:
        """Number of network outputs."""
        return self.label_map.num_outputs

    @property
    def file_ending(self) -> str:
        """Ending of image and label files."""
        return self.dataset_json["file_ending"]

    def write(self, folder: str | Path) -> None:
        """Write `dataset.json` and `plans.json`, also what nnU-Net's ensemble and evaluation read.

        Args:
            folder: Where the weights or the predictions lie.
        """
        natural = self.file_ending.lower() in NATURAL_IMAGE_ENDINGS
        section: dict[str, Any] = {
            "image_size": list(self.image_size),
            "preprocessing": self.preprocessing.to_json(),
            "network_options": self.network_options,
        }
        if self.restores:
            section["restores"] = True
        plans = {
            "dataset_name": self.dataset_name,
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "NaturalImage2DIO" if natural else "SimpleITKIO",
            "nnunet_ext": section,
        }
        write_json(Path(folder) / "dataset.json", self.dataset_json)
        write_json(Path(folder) / "plans.json", plans)


def read_model_card(checkpoint: str | Path, pretraining: bool = False) -> ModelCard:
    """Read the description beside a checkpoint.

    Args:
        checkpoint: Path of the weights, a file or a folder.
        pretraining: Take the description of a network that restores images, too.

    Raises:
        UserError: If it is missing or garbled, or the network makes no segmentation.
    """
    folder = Path(checkpoint).parent
    plans_file = folder / "plans.json"
    if not plans_file.is_file() or not (folder / "dataset.json").is_file():
        raise UserError(
            f"{folder}: plans.json and dataset.json must lie beside {Path(checkpoint).name} (training writes them); "
            "copy them from the run that made it"
        )
    dataset_json = read_dataset_json(folder / "dataset.json")
    try:
        plans = json.loads(plans_file.read_text(encoding="utf-8"))
        section = plans["nnunet_ext"]
        height, width = section["image_size"]
        preprocessing = Preprocessing.from_json(section["preprocessing"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{plans_file}: not written by a bundle's training ({error!r})") from error
    restores = section.get("restores", False)
    if restores and not pretraining:
        raise UserError(
            f"{checkpoint}: must be a network that segments, but this one was pre-trained to restore images; train it: "
            f"python -m monai.bundle run --config_file bundles/models_genesis/train.json --pretrained {checkpoint}"
        )
    options = section.get("network_options", {})
    return ModelCard(dataset_json, plans["dataset_name"], preprocessing, (height, width), options, restores)
