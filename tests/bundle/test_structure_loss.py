"""The structure loss has its published values, for one class and for many, as labels and as nnU-Net's targets."""

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from nnunet_ext.bundle import SegmentationLoss, make_loss
from nnunet_ext.data import LabelMap
from nnunet_ext.errors import OptionError
from nnunet_ext.training.losses import LOSSES, LossSetting
from nnunet_ext.training.structure_loss import StructureLoss, window_mean

EXCLUSIVE = {"labels": {"background": 0, "low": 1, "high": 2}}
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}


def label_map(description) -> LabelMap:
    return LabelMap.from_dataset_json(description, Path("dataset.json"))


def one_pixel(size: int = 31) -> torch.Tensor:
    """Return a mask of one pixel in the middle."""
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 2, size // 2] = 1
    return mask


def published(logits: torch.Tensor, mask: torch.Tensor, keep_weight: bool = True) -> torch.Tensor:
    """Return the loss of one class as SAM2-UNet's paper has it; without `keep_weight` as its code computes it."""
    weight = 1 + 5 * (F.avg_pool2d(mask, kernel_size=31, stride=1, padding=15) - mask).abs()
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none" if keep_weight else "mean")
    entropy = (weight * entropy).sum((2, 3)) / weight.sum((2, 3))
    probability = logits.sigmoid()
    intersection = (probability * mask * weight).sum((2, 3))
    union = ((probability + mask) * weight).sum((2, 3))
    return (entropy + 1 - (intersection + 1) / (union - intersection + 1)).mean()


def blob(batch: int = 2, size: tuple[int, int] = (52, 70)) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    disc = ((rows - 20) ** 2 + (columns - 30) ** 2 < 200).float()
    return torch.stack([disc, disc.flip(-1)])[:batch, None]


def test_one_binary_class_matches_the_published_formula():
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 1, 52, 70), blob()
    ours = StructureLoss(background=False)(logits, mask)
    torch.testing.assert_close(ours, published(logits, mask))
    assert not torch.isclose(ours, published(logits, mask, keep_weight=False), rtol=1e-3), "the weight is lost"


def test_weight_is_one_far_from_edges_and_near_six_at_a_lone_pixel():
    mask = one_pixel(65)
    weight = StructureLoss(background=False)._weights(mask)[0, 0]
    assert weight[0, 0] == 1  # 32 pixels away: outside of the window
    assert weight[32, 32].item() == pytest.approx(1 + 5 * (1 - 1 / 961))  # 31 * 31 = 961 pixels in the window
    assert weight[32, 47].item() == pytest.approx(1 + 5 / 961)  # 15 pixels away: the window's last column
    assert weight[32, 48] == 1


@pytest.mark.parametrize("shape", [(2, 3, 40, 33), (1, 2, 35, 33, 40)])
def test_window_mean_is_that_of_a_square_window(shape):
    torch.manual_seed(0)
    masks = (torch.rand(shape) > 0.5).float()
    pool = {4: F.avg_pool2d, 5: F.avg_pool3d}[len(shape)]
    torch.testing.assert_close(window_mean(masks), pool(masks, 31, stride=1, padding=15))


def test_window_mean_takes_volumes_thinner_than_the_window():
    masks = torch.ones(1, 1, 5, 40, 40)
    # 5 of 31 slices, all else full
    assert window_mean(masks)[0, 0, 2, 20, 20].item() == pytest.approx(5 / 31)


def test_undecided_logits_have_the_value_of_the_arithmetic():
    loss = StructureLoss(background=False)(torch.zeros(1, 1, 31, 31), one_pixel())
    # each of the 961 pixels sees the middle: the middle weighs 1 + 5 * 960 / 961, the 960 others 1 + 5 / 961
    middle, others = 1 + 5 * 960 / 961, 960 * (1 + 5 / 961)
    # cross-entropy at probability 1/2 is ln 2 whatever the weights; intersection middle / 2;
    # union (middle + others) / 2 + middle - middle / 2
    iou = (middle / 2 + 1) / ((middle + others) / 2 + middle / 2 + 1)
    assert loss.item() == pytest.approx(math.log(2) + 1 - iou, rel=1e-5)


def test_absent_class_costs_its_probability():
    loss = StructureLoss(background=False)
    target = torch.zeros(1, 1, 8, 8)
    # all weights 1; IoU term 1 - 1 / (64 / 2 + 1)
    assert loss(torch.zeros(1, 1, 8, 8), target).item() == pytest.approx(math.log(2) + 1 - 1 / 33, rel=1e-5)
    assert loss(torch.full((1, 1, 8, 8), -30.0), target).item() == pytest.approx(0, abs=1e-5)


def test_classes_and_images_are_averaged():
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 2, 52, 70), torch.cat([blob(), blob().flip(0)], dim=1)
    parts = [published(logits[b : b + 1, k : k + 1], mask[b : b + 1, k : k + 1]) for b in range(2) for k in range(2)]
    torch.testing.assert_close(StructureLoss(background=False)(logits, mask), torch.stack(parts).mean())


def test_background_has_the_edges_of_the_foreground_and_none_at_the_border():
    mask = blob()
    weight = StructureLoss(background=True)._weights(torch.cat([1 - mask, mask], dim=1))
    torch.testing.assert_close(weight[:, 0], weight[:, 1])
    assert weight[:, 0, -1, :].max() == 1  # 15 pixels and more below the discs: the border is no edge


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_gradients_of_half_precision_logits_are_finite(dtype, scale):
    torch.manual_seed(0)
    logits = (scale * torch.randn(1, 3, 512, 512)).to(dtype).requires_grad_()
    label = torch.randint(0, 3, (1, 1, 512, 512))
    loss = make_loss("structure", label_map(EXCLUSIVE))(logits, label)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.any()


def test_autocast_changes_nothing():
    torch.manual_seed(0)
    logits, mask = torch.randn(2, 1, 52, 70), blob()
    loss = StructureLoss(background=False)
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(logits, mask)
    assert torch.equal(half, loss(logits, mask))


@pytest.mark.parametrize("description", [EXCLUSIVE, REGIONS], ids=["labels", "regions"])
def test_gradient_descends_to_the_reference(description):
    labels = label_map(description)
    label = torch.tensor([0, 1, 2]).repeat_interleave(8).expand(2, 1, 24, 24).clone()
    logits = torch.zeros_like(labels.encode(label), requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        make_loss("structure", labels)(logits, label).backward()
        optimizer.step()
    assert torch.equal(torch.stack([labels.decode(item) for item in logits.detach()]).long(), label[:, 0])


def test_labels_are_resized_to_the_logits():
    labels = label_map(EXCLUSIVE)
    label = torch.randint(0, 3, (1, 1, 8, 8))
    large = label.repeat_interleave(4, -1).repeat_interleave(4, -2)
    logits = torch.randn(1, 3, 8, 8)
    loss = make_loss("structure", labels)
    assert torch.equal(loss(logits, large), loss(logits, label))


@pytest.mark.parametrize("description", [EXCLUSIVE, REGIONS], ids=["labels", "regions"])
def test_nnunets_targets_give_the_loss_of_label_maps(description):
    torch.manual_seed(0)
    labels = label_map(description)
    label = torch.randint(0, 3, (2, 1, 20, 24))
    logits = torch.randn(2, labels.num_outputs, 20, 24)
    target = labels.encode(label).bool() if labels.has_regions else label.float()
    setting = LossSetting(has_regions=labels.has_regions, ignore_label=None, batch_dice=True, ddp=False)
    expected = make_loss("structure", labels)(logits, label)
    torch.testing.assert_close(LOSSES["structure"].build(setting)(logits, target), expected)


@pytest.mark.parametrize("description", [EXCLUSIVE, REGIONS], ids=["labels", "regions"])
def test_ignored_pixels_have_no_gradient(description):
    torch.manual_seed(0)
    labels = label_map(description)
    label = torch.randint(0, 3, (2, 1, 20, 24))
    ignored = torch.rand(label.shape) < 0.3
    ignored[1] = True  # nothing of the second image is annotated
    logits = torch.randn(2, labels.num_outputs, 20, 24, requires_grad=True)
    setting = LossSetting(has_regions=labels.has_regions, ignore_label=3, batch_dice=True, ddp=False)
    masks = torch.cat([labels.encode(label).bool(), ignored], dim=1)
    target = masks if labels.has_regions else label.masked_fill(ignored, 3)
    LOSSES["structure"].build(setting)(logits, target).backward()
    assert not logits.grad[ignored.expand_as(logits)].any()
    assert logits.grad[0, :, ~ignored[0, 0]].all()


def test_bundles_choose_a_loss_by_name():
    assert isinstance(make_loss("dice_ce", label_map(EXCLUSIVE)), SegmentationLoss)
    with pytest.raises(OptionError, match=r"loss_name must be one of dice_ce, .*structure, got 'dise'"):
        make_loss("dise", label_map(EXCLUSIVE))
