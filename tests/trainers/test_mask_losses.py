"""Losses on masks have their textbook values, equal MONAI's, and are the same in both runners."""

import pytest
import torch
from monai.losses import DiceCELoss, DiceFocalLoss, FocalLoss, GeneralizedDiceLoss, TverskyLoss
from torch.nn import functional as F

from nnunet_ext.bundle import make_loss
from nnunet_ext.data import LabelMap
from nnunet_ext.errors import OptionError
from nnunet_ext.trainers.CustomTrainer import CustomTrainer
from nnunet_ext.training.losses import LOSSES, LossSetting
from nnunet_ext.training.mask_losses import MASK_LOSSES, MaskSetting

LABELS = LabelMap(("low", "high"), ((1,), (2,)))
REGIONS = LabelMap(("whole", "core"), ((1, 2), (2,)), (1, 2))
BOTH = pytest.mark.parametrize("label_map", [LABELS, REGIONS], ids=["labels", "regions"])
EACH = pytest.mark.parametrize("name", sorted(MASK_LOSSES))


def sample(label_map: LabelMap) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, label_map.num_outputs, 20, 24), torch.randint(0, 3, (2, 1, 20, 24))


def mask_loss(name: str, label_map: LabelMap, **setting):
    return MASK_LOSSES[name].build(MaskSetting(label_map.has_regions, **setting))


ORACLES = {
    "generalized_dice": lambda **options: GeneralizedDiceLoss(batch=True, **options),
    "tversky": lambda **options: TverskyLoss(alpha=0.3, beta=0.7, batch=True, **options),
}


@BOTH
@pytest.mark.parametrize("name", sorted(ORACLES))
def test_overlap_matches_monai(label_map, name):
    logits, label = sample(label_map)
    masks, regions = label_map.encode(label), label_map.has_regions
    oracle = ORACLES[name](include_background=regions, sigmoid=regions, softmax=not regions)
    torch.testing.assert_close(mask_loss(name, label_map)(logits, masks), oracle(logits, masks))


def test_focal_of_regions_matches_monai():
    logits, label = sample(REGIONS)
    masks = REGIONS.encode(label)
    torch.testing.assert_close(mask_loss("focal", REGIONS)(logits, masks), FocalLoss(gamma=2.0)(logits, masks))


def test_focal_of_labels_is_monais_summed_over_the_classes():
    logits, label = sample(LABELS)
    masks = LABELS.encode(label)
    oracle = FocalLoss(gamma=2.0, use_softmax=True, reduction="none")(logits, masks).sum(1).mean()
    torch.testing.assert_close(mask_loss("focal", LABELS)(logits, masks), oracle)


def test_dice_focal_of_regions_matches_monai():
    logits, label = sample(REGIONS)
    masks = REGIONS.encode(label)
    oracle = DiceFocalLoss(sigmoid=True, batch=True, lambda_focal=3.0)
    torch.testing.assert_close(mask_loss("dice_focal", REGIONS, weight=3.0)(logits, masks), oracle(logits, masks))


def test_bce_dice_of_one_region_matches_monai():
    label_map = LabelMap(("whole",), ((1, 2),), (1,))
    logits, label = sample(label_map)
    masks = label_map.encode(label)
    oracle = DiceCELoss(sigmoid=True, batch=True, lambda_ce=3.0)  # one channel: binary cross-entropy
    torch.testing.assert_close(mask_loss("bce_dice", label_map, weight=3.0)(logits, masks), oracle(logits, masks))


def test_tversky_weighs_misses_more_than_false_alarms():
    """Half of 4 pixels found: 1 - 2 / (2 + 0.7 * 2) = 0.41; twice as many found: 1 - 4 / (4 + 0.3 * 4) = 0.23."""
    mask = torch.tensor([[[[1.0, 1, 1, 1, 0, 0, 0, 0]]]])
    half, twice = (torch.tensor([[[[60.0 if i < n else -60 for i in range(8)]]]]) for n in (2, 8))
    loss = mask_loss("tversky", LabelMap(("organ",), ((1,),), (1,)))
    assert loss(half, mask).item() == pytest.approx(1 - 2 / 3.4, abs=1e-4)
    assert loss(twice, mask).item() == pytest.approx(1 - 4 / 5.2, abs=1e-4)


@EACH
@BOTH
def test_both_runners_compute_the_same(label_map, name):
    logits, label = sample(label_map)
    target = label_map.encode(label).bool() if label_map.has_regions else label.float()
    setting = LossSetting(label_map.has_regions, ignore_label=None, batch_dice=True, ddp=False, weight=0.7)
    expected = make_loss(name, label_map, 0.7)(logits, label)
    torch.testing.assert_close(LOSSES[name].build(setting)(logits, target), expected)


@EACH
@BOTH
def test_ignored_pixels_change_nothing(label_map, name):
    """What is predicted where nobody annotated, or annotated there, has no effect and no gradient."""
    logits, label = sample(label_map)
    ignored = torch.rand(label.shape) < 0.3
    setting = LossSetting(label_map.has_regions, ignore_label=3, batch_dice=True, ddp=False)
    loss = LOSSES[name].build(setting)

    def at(logits):
        masks = torch.cat([label_map.encode(label).bool(), ignored], dim=1)
        return loss(logits, masks if label_map.has_regions else label.masked_fill(ignored, 3))

    logits.requires_grad_()
    at(logits).backward()
    assert not logits.grad[ignored.expand_as(logits)].any()
    assert logits.grad[(~ignored).expand_as(logits)].any()
    torch.testing.assert_close(at(logits + 5 * torch.randn_like(logits) * ignored), at(logits))


@EACH
@BOTH
def test_a_batch_without_annotation_has_no_gradient(label_map, name):
    logits, label = sample(label_map)
    nothing = torch.zeros(2, 1, 20, 24)
    logits.requires_grad_()
    loss = mask_loss(name, label_map)(logits, label_map.encode(label), nothing)
    loss.backward()
    assert loss.isfinite()
    assert not logits.grad.any()


@pytest.mark.parametrize("name", sorted(LOSSES))
@BOTH
def test_the_trainer_learns_nothing_from_a_batch_without_annotation(label_map, name):
    logits, label = sample(label_map)
    logits.requires_grad_()
    masks = torch.cat([label_map.encode(label).bool(), torch.ones(label.shape, dtype=torch.bool)], dim=1)
    setting = LossSetting(label_map.has_regions, ignore_label=3, batch_dice=True, ddp=False)
    LOSSES[name].build(setting)(logits, masks if label_map.has_regions else torch.full_like(label, 3)).backward()
    assert not logits.grad.any()


@EACH
@BOTH
def test_gradient_descends_to_the_reference(label_map, name):
    label = torch.tensor([0, 1, 2]).repeat_interleave(8).expand(2, 1, 24, 24).clone()
    logits = torch.zeros_like(label_map.encode(label), requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        make_loss(name, label_map)(logits, label).backward()
        optimizer.step()
    assert torch.equal(torch.stack([label_map.decode(item) for item in logits.detach()]).long(), label[:, 0])


@EACH
def test_half_precision_logits_do_not_overflow(name):
    logits = torch.zeros(1, 3, 512, 512, dtype=torch.float16, requires_grad=True)
    loss = make_loss(name, LABELS)(logits, torch.randint(0, 3, (1, 1, 512, 512)))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_cross_entropy_alone_and_dice_alone_are_the_terms_of_the_compound():
    logits, label = sample(LABELS)
    ce, dice, both, samed = (make_loss(n, LABELS)(logits, label) for n in ("ce", "dice", "dice_ce", "samed"))
    torch.testing.assert_close(ce, F.cross_entropy(logits, label[:, 0]))
    torch.testing.assert_close(ce + dice, both)
    torch.testing.assert_close(0.2 * ce + 0.8 * dice, samed)
    torch.testing.assert_close(make_loss("dice_ce", LABELS, 3.0)(logits, label), dice + 3 * ce)


def test_a_negative_lambda_is_refused():
    with pytest.raises(OptionError, match="loss_lambda must be a number >= 0, got -1"):
        make_loss("dice_ce", LABELS, -1)


def test_no_two_losses_are_the_same():
    logits, label = sample(LABELS)
    values = {name: round(make_loss(name, LABELS)(logits, label).item(), 5) for name in LOSSES}
    assert len(set(values.values())) == len(LOSSES), values


def test_bundles_have_every_loss_of_the_trainer():
    from nnunet_ext.bundle.losses import LOSSES as OF_BUNDLES

    assert set(OF_BUNDLES) == set(LOSSES)


def test_the_trainer_takes_loss_and_lambda(folders):
    logits, label = sample(LABELS)
    for name in ("dice_ce", *sorted(MASK_LOSSES)):
        for weight in (0.5, 2.0):
            plans = folders.plans()
            plans["configurations"]["2d"]["nnunet_ext"] = {"loss": name, "loss_lambda": weight}
            trainer = folders.trainer(CustomTrainer, plans=plans)
            trainer.is_ddp = False
            setting = LossSetting(False, None, trainer.configuration_manager.batch_dice, ddp=False, weight=weight)
            expected = LOSSES[name].build(setting)(logits, label)
            torch.testing.assert_close(trainer._build_loss()(logits, label), expected)
