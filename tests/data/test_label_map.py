"""Label values to network outputs and back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_ext.data import LabelMap

EXCLUSIVE = {"labels": {"background": 0, "b": 2, "a": 1}}
BRATS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
    "regions_class_order": [1, 2, 3],
}


def label_map(description) -> LabelMap:
    return LabelMap.from_dataset_json(description, Path("dataset.json"))


def test_names_follow_the_values_not_the_order_in_the_file():
    assert label_map(EXCLUSIVE).names == ("a", "b")


def test_exclusive_labels_have_an_output_for_background_and_regions_do_not():
    assert label_map(EXCLUSIVE).num_outputs == 3
    assert label_map(BRATS).num_outputs == 3
    assert label_map(BRATS).names == ("whole", "core", "enhancing")


def test_allowed_values_are_all_values_with_background():
    assert label_map(EXCLUSIVE).allowed_values == {0, 1, 2}
    assert label_map(BRATS).allowed_values == {0, 1, 2, 3}


@pytest.mark.parametrize("description", [EXCLUSIVE, BRATS])
def test_decoding_confident_targets_gives_the_labels_back(description):
    labels = label_map(description)
    label = torch.from_numpy(np.random.default_rng(0).integers(0, len(labels.allowed_values), (2, 1, 5, 6)))
    logits = labels.encode(label) * 20 - 10
    for item in range(2):
        assert torch.equal(labels.decode(logits[item]).long(), label[item, 0])


@pytest.mark.parametrize("description", [EXCLUSIVE, BRATS])
def test_decoding_matches_nnunet(description):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    theirs = LabelManager(description["labels"], description.get("regions_class_order"))
    logits = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (3, 4, 5, 6)).astype(np.float32))
    ours = label_map(description)
    expected = theirs.convert_logits_to_segmentation(logits)
    assert np.array_equal(ours.decode(logits).numpy(), np.asarray(expected))
    assert torch.allclose(ours.probabilities(logits), theirs.apply_inference_nonlin(logits))


def test_labels_agree_with_saved_region_probabilities_at_the_threshold():
    labels = label_map(BRATS)
    logits = torch.tensor([[1e-9], [-1.0], [-1.0]])
    assert not (labels.probabilities(logits) > 0.5).any()
    assert labels.decode(logits).tolist() == [0]


def test_exclusive_probabilities_sum_to_one():
    logits = torch.randn(3, 4, 5)
    assert torch.allclose(label_map(EXCLUSIVE).probabilities(logits).sum(0), torch.ones(4, 5))


def test_values_above_255_survive_decoding():
    labels = label_map({"labels": {"background": 0, **{f"l{value}": value for value in range(1, 301)}}})
    logits = torch.zeros(301, 1)
    logits[300] = 1
    assert labels.decode(logits).tolist() == [300]
