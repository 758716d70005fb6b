"""The loss of labels and of regions, and what validation makes of logits."""

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import MeanDice, from_engine

from nnunet_ext.bundle import DecodePredictiond, SegmentationLoss, is_low
from nnunet_ext.data import LabelMap
from nnunet_ext.errors import OptionError

EXCLUSIVE = {"labels": {"background": 0, "low": 1, "high": 2}}
BRATS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
    "regions_class_order": [1, 2, 3],
}
ONE_REGION = {"labels": {"background": 0, "whole": [1, 2]}, "regions_class_order": [1]}
ONE_LABEL = {"labels": {"background": 0, "organ": 1}}
ALL = pytest.mark.parametrize("description", [EXCLUSIVE, BRATS, ONE_REGION, ONE_LABEL], ids=str)


def label_map(description) -> LabelMap:
    return LabelMap.from_dataset_json(description, Path("dataset.json"))


def blocks(labels: LabelMap, shape=(2, 1, 8, 12)) -> torch.Tensor:
    """Return labels in which each allowed value fills some columns, as far as one output tells them apart."""
    values = sorted(labels.allowed_values)
    if labels.has_regions:
        values = sorted({0, *labels.regions_class_order})
    return torch.tensor(values).repeat_interleave(-(-shape[-1] // len(values)))[: shape[-1]].expand(shape).clone()


def confident(labels: LabelMap, label: torch.Tensor) -> torch.Tensor:
    return labels.encode(label) * 60 - 30


@ALL
def test_perfect_prediction_has_no_loss(description):
    labels = label_map(description)
    label = blocks(labels)
    assert SegmentationLoss(labels)(confident(labels, label), label).item() == pytest.approx(0, abs=1e-4)


@ALL
def test_wrong_prediction_has_more_loss_than_none(description):
    labels = label_map(description)
    label = blocks(labels)
    loss = SegmentationLoss(labels)
    assert loss(confident(labels, label.flip(-1)), label) > loss(torch.zeros_like(labels.encode(label)), label) > 0.5


@ALL
def test_gradient_descends_to_the_reference(description):
    labels = label_map(description)
    label = blocks(labels)
    logits = torch.zeros_like(labels.encode(label), requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        SegmentationLoss(labels)(logits, label).backward()
        optimizer.step()
    assert torch.equal(torch.stack([labels.decode(item) for item in logits.detach()]).long(), label[:, 0])


def test_batch_dice_and_cross_entropy_have_their_textbook_values():
    labels = label_map(ONE_LABEL)
    label = torch.tensor([[[[1, 1, 0, 0]]], [[[0, 0, 0, 0]]]])
    logits = torch.zeros(2, 2, 1, 4)  # probability 1/2 everywhere
    # intersection 2 * 1/2 = 1 over the batch; Dice = 2 * 1 / (8 * 1/2 + 2) = 1/3
    assert SegmentationLoss(labels, lambda_ce=0)(logits, label).item() == pytest.approx(2 / 3, abs=1e-4)
    assert SegmentationLoss(labels, lambda_dice=0)(logits, label).item() == pytest.approx(0.6931, abs=1e-4)


def test_half_precision_logits_do_not_overflow():
    labels = label_map(EXCLUSIVE)
    label = blocks(labels, (1, 1, 512, 512))
    assert SegmentationLoss(labels)(torch.zeros(1, 3, 512, 512).half(), label).isfinite()


def mean_dice(labels: LabelMap, logits: torch.Tensor, label: torch.Tensor) -> float:
    """Validate one item as the bundles do."""
    item = DecodePredictiond(labels)({"pred": logits, "label": label})
    engine = Engine(lambda engine, batch: [item])
    metric = MeanDice(
        include_background=labels.has_regions,
        num_classes=labels.num_outputs,
        output_transform=from_engine(["pred", "label"]),
    )
    metric.attach(engine, "dice")
    return engine.run([0]).metrics["dice"]


@ALL
def test_perfect_prediction_has_dice_1(description):
    labels = label_map(description)
    label = blocks(labels)[0]
    assert mean_dice(labels, confident(labels, label[None])[0], label) == pytest.approx(1)


def test_dice_of_exclusive_labels_is_the_mean_over_foreground():
    labels = label_map(EXCLUSIVE)
    label = torch.tensor([[[1, 1, 2, 2, 0, 0]]])
    predicted = torch.tensor([[[1, 0, 2, 2, 2, 2]]])
    # low: 2 * 1 / (2 + 1) = 2/3; high: 2 * 2 / (2 + 4) = 2/3
    assert mean_dice(labels, confident(labels, predicted[None])[0], label) == pytest.approx(2 / 3)


def test_dice_of_regions_is_the_mean_over_regions():
    labels = label_map(BRATS)
    label = torch.tensor([[[3, 2, 1, 0]]])
    predicted = torch.tensor([[[3, 1, 1, 1]]])
    # whole: 2 * 3 / (3 + 4) = 6/7; core: 2 * 1 / (2 + 1) = 2/3; enhancing: 1
    expected = (6 / 7 + 2 / 3 + 1) / 3
    assert mean_dice(labels, confident(labels, predicted[None])[0], label) == pytest.approx(expected)


def test_decoding_keeps_other_entries():
    labels = label_map(EXCLUSIVE)
    data = {"pred": torch.zeros(3, 2, 2), "label": torch.zeros(1, 2, 2), "image": 5, "case": "a"}
    decoded = DecodePredictiond(labels)(data)
    assert decoded["image"] == 5
    assert decoded["case"] == "a"
    assert data["pred"].shape == (3, 2, 2), "the input was changed"


def test_mistyped_resolution_of_the_loss_is_refused():
    assert is_low("low")
    assert not is_low("full")
    with pytest.raises(OptionError, match="must be full or low, got 'Low'"):
        is_low("Low")
