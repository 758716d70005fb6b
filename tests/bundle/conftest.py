"""Models of a few numbers, and their descriptions."""

from pathlib import Path

import monai
import pytest
import torch

from nnunet_ext.bundle import ModelCard
from nnunet_ext.data import Preprocessing
from nnunet_ext.data.normalization import ChannelScheme

EXCLUSIVE = {"labels": {"background": 0, "low": 1, "high": 2}}
REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
    "regions_class_order": [1, 2, 3],
}


@pytest.fixture(autouse=True)
def plain_tensors():
    """Run without MONAI's metadata, as the bundles do, and restore what was set."""
    before = monai.data.get_track_meta()
    monai.data.set_track_meta(False)
    yield
    monai.data.set_track_meta(before)


@pytest.fixture
def make_card():
    """Make the description of a model that takes intensities as they are."""

    def make(labels=None, *, num_channels=1, slice_axis=0, file_ending=".nii.gz", image_size=(32, 32)) -> ModelCard:
        description = {
            "channel_names": {str(channel): "noNorm" for channel in range(num_channels)},
            "file_ending": file_ending,
            "numTraining": 1,
            **(labels or EXCLUSIVE),
        }
        schemes = (ChannelScheme("NoNormalization"),) * num_channels
        return ModelCard(description, "Dataset950_Test", Preprocessing(schemes, slice_axis), image_size)

    return make


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A file of weights."""
    path = tmp_path / "weights" / "model_best.pt"
    path.parent.mkdir()
    torch.save({"weight": torch.ones(1)}, path)
    return path
