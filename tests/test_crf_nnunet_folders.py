"""`python -m nnunet_ext crf` on what nnU-Net leaves: predictions of data sets with an ignore label."""

import json

import numpy as np
import pytest
import torch
from prediction_folders import CLASSES, REGIONS, SHAPE, Folders

from nnunet_ext.crf_postprocessing import refine_folder
from nnunet_ext.data.image_io import read_label
from nnunet_ext.errors import DatasetError


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path)


@pytest.mark.parametrize("labels", [{**CLASSES, "ignore": 3}, {"background": 0, "ignore": 3, "right": 2, "left": 1}])
def test_ignore_label_has_no_channel_and_changes_nothing(folders, labels):
    assert folders.run() == 0
    expected = [read_label(folders.output / f"{name}.nii.gz")[0] for name in "ab"]
    folders.describe(labels)
    assert folders.run("--overwrite") == 0
    for name, label in zip("ab", expected, strict=True):
        assert np.array_equal(read_label(folders.output / f"{name}.nii.gz")[0], label)
    assert json.loads((folders.output / "dataset.json").read_text())["labels"] == labels


def test_channels_and_labels_beside_an_ignore_label_match_nnunet(folders):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    for number, (labels, order) in enumerate([({**CLASSES, "ignore": 3}, None), ({**REGIONS, "ignore": 3}, [1, 2])]):
        theirs = LabelManager(labels, order)
        folders.describe(labels, regions_class_order=order)
        logits = np.random.default_rng(0).normal(0, 2, (theirs.num_segmentation_heads, *SHAPE)).astype(np.float32)
        for name in "ab":
            folders.predict(name, logits, "probabilities", regions=theirs.has_regions)
        output = folders.output / str(number)
        off = {"smoothness_weight": 0.0}
        assert refine_folder(folders.predictions, folders.images, output, field_options=off).failures == {}
        expected = theirs.convert_logits_to_segmentation(torch.from_numpy(logits))
        assert np.array_equal(read_label(output / "a.nii.gz")[0], expected)


@pytest.mark.parametrize(
    ("labels", "entries", "message"),
    [
        ({"background": 0, "left": 1, "ignore": 2, "right": 3}, {}, "label values must be consecutive from 1 on"),
        ({**CLASSES, "ignore": 2}, {}, "the ignore label must be the highest, 3, got 2"),
        ({**CLASSES, "ignore": 4}, {}, "the ignore label must be the highest, 3, got 4"),
        ({**CLASSES, "ignore": [3]}, {}, r"the ignore label must be the highest, 3, got \[3\]"),
        ({**REGIONS, "ignore": 2}, {"regions_class_order": [1, 2]}, "the ignore label must be the highest, 3, got 2"),
    ],
)
def test_ignore_label_that_is_not_the_highest_is_an_error_as_in_nnunet(folders, labels, entries, message):
    folders.describe(labels, **entries)
    with pytest.raises(DatasetError, match=rf"dataset\.json: {message}"):
        refine_folder(folders.predictions, folders.images, folders.output)
    assert not folders.output.exists()
