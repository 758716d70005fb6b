"""Labels that nobody has annotated in a case: losses against a naive loop, in both runners."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_ext.bundle import make_loss
from nnunet_ext.bundle.losses import LOSSES
from nnunet_ext.data import LabelMap
from nnunet_ext.data.unannotated import UnannotatedLabels
from nnunet_ext.errors import DatasetError
from nnunet_ext.trainers.CustomTrainer import CustomTrainer
from nnunet_ext.training.losses import LOSSES as OF_TRAINER
from nnunet_ext.training.losses import LossSetting
from nnunet_ext.training.mixup import Mix, Mixup
from nnunet_ext.training.partial_labels import PartialLabelLoss

LABELS = LabelMap(("low", "high", "far"), ((1,), (2,), (3,)))
REGIONS = LabelMap(("whole", "core", "edge"), ((1, 2, 3), (2, 3), (3,)), (1, 2, 3))
OF_LABELS = UnannotatedLabels(4, False, {"a": (2,), "b": (1, 3)})
OF_REGIONS = UnannotatedLabels(3, True, {"a": (0,), "b": (1, 2)})
CODES = (0, 2, 1)  # the sets are (), (1, 3), (2,) and (), (0,), (1, 2)
BOTH = pytest.mark.parametrize(("label_map", "missing"), [(LABELS, OF_LABELS), (REGIONS, OF_REGIONS)])


def batch(label_map: LabelMap, missing: UnannotatedLabels, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and label values of three cases, followed by their codes."""
    torch.manual_seed(seed)
    label = torch.randint(0, 4, (3, 1, 6, 5))
    if not label_map.has_regions:
        for case, code in enumerate(CODES):
            for value in missing.sets[code]:
                label[case][label[case] == value] = 0
    codes = torch.tensor(CODES).view(3, 1, 1, 1).expand_as(label)
    return torch.randn(3, label_map.num_outputs, 6, 5), torch.cat([label, codes], dim=1)


def naive_cross_entropy(logits, label, missing, label_map) -> float:
    """Go through all pixels: an unannotated label may hide in the background; an unannotated region says nothing."""
    total, count = 0.0, 0
    for case, code in enumerate(CODES):
        absent = missing.sets[code]
        for row in range(6):
            for column in range(5):
                value = int(label[case, 0, row, column])
                scores = logits[case, :, row, column].tolist()
                if label_map.has_regions:
                    for region, score in enumerate(scores):
                        count += 1
                        if region not in absent:
                            probability = 1 / (1 + math.exp(-score))
                            inside = value in label_map.values[region]
                            total -= math.log(probability if inside else 1 - probability)
                else:
                    count += 1
                    possible = [0, *absent] if value == 0 else [value]
                    total -= math.log(
                        sum(math.exp(scores[k]) for k in possible) / sum(math.exp(score) for score in scores)
                    )
    return total / count


def naive_dice(logits, label, missing, label_map) -> float:
    """Sum each output over the cases where it is annotated, as 1 - 2 |A B| / (|A| + |B|), then average the outputs."""
    values = []
    for output in range(0 if label_map.has_regions else 1, label_map.num_outputs):
        both, either = 0.0, 0.0
        for case, code in enumerate(CODES):
            if output in missing.sets[code]:
                continue
            score = logits[case].sigmoid() if label_map.has_regions else logits[case].softmax(0)
            inside = label_map.encode(label[case : case + 1, :1])[0, output]
            both += float((score[output] * inside).sum())
            either += float(score[output].sum() + inside.sum())
        values.append(1 - (2 * both + 1e-5) / (either + 1e-5))
    return sum(values) / len(values)


@BOTH
def test_cross_entropy_and_dice_match_a_naive_loop(label_map, missing):
    logits, label = batch(label_map, missing)
    entropy, dice, compound = (
        make_loss(name, label_map, unannotated=missing)(logits, label).item() for name in ("ce", "dice", "dice_ce")
    )
    assert entropy == pytest.approx(naive_cross_entropy(logits, label, missing, label_map), rel=1e-5)
    assert dice == pytest.approx(naive_dice(logits, label, missing, label_map), rel=1e-4)
    assert compound == pytest.approx(entropy + dice, rel=1e-5)


@BOTH
@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_asks_for_what_nobody_annotated(label_map, missing, name):
    """Descend: where `high` is not annotated it may stand in the background; whatever is annotated is learnt."""
    logits, label = batch(label_map, missing)
    logits.requires_grad_()
    loss = make_loss(name, label_map, unannotated=missing)
    value = loss(logits, label)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.any()
    for case, code in enumerate(CODES):
        for output in missing.sets[code]:
            gradient = logits.grad[case, output]
            if label_map.has_regions:
                assert not gradient.any()  # nothing is known of the region
            else:  # in the background it is as welcome as the background, in the others it is wrong
                background = logits.grad[case, 0]
                share = (
                    logits[case, output] - torch.stack([logits[case, k] for k in (0, *missing.sets[code])]).logsumexp(0)
                ).exp()
                own = (
                    logits[case, 0] - torch.stack([logits[case, k] for k in (0, *missing.sets[code])]).logsumexp(0)
                ).exp()
                torch.testing.assert_close(gradient / share, background / own, atol=1e-5, rtol=1e-3)


@BOTH
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_with_all_annotated_has_the_plain_loss(label_map, missing, name):
    logits, label = batch(label_map, missing)
    label[:, 1] = 0
    plain = make_loss(name, label_map)(logits, label[:, :1])
    loss = make_loss(name, label_map, unannotated=missing)
    torch.testing.assert_close(loss(logits, label), plain)
    torch.testing.assert_close(loss(logits, label[:, :1]), plain)


@BOTH
@pytest.mark.parametrize("name", LOSSES)
def test_both_runners_take_the_same_loss(label_map, missing, name):
    """nnU-Net's loader hands over masks of regions, and its own losses smooth Dice otherwise."""
    logits, label = batch(label_map, missing)
    regions = label_map.has_regions
    setting = LossSetting(regions, None, batch_dice=True, ddp=False)
    loss = PartialLabelLoss(
        OF_TRAINER[name].build(setting), missing.sets, label_map.num_outputs, regions, 3 if regions else 1
    )
    target = torch.cat([label_map.encode(label[:, :1]).to(label.dtype), label[:, 1:]], dim=1) if regions else label
    mine = make_loss(name, label_map, unannotated=missing)(logits, label)
    offset = 1.0 if name in ("dice_ce", "dice") else 0.8 if name == "samed" else 0.0  # nnU-Net's Dice is negative
    torch.testing.assert_close(loss(logits, target) + offset, mine, atol=1e-4, rtol=1e-4)


def test_what_a_partner_lacks_goes_with_its_labels():
    logits, label = batch(LABELS, OF_LABELS)
    loss = make_loss("ce", LABELS, unannotated=OF_LABELS)
    mixup = Mixup(torch.nn.Identity(), "input")
    order = torch.tensor([1, 2, 0])
    mixup.mix = Mix(0.3, order, "input")
    expected = 0.3 * loss(logits, label) + 0.7 * loss(logits, label[order])
    torch.testing.assert_close(mixup.loss(loss, logits, label), expected)


@pytest.mark.parametrize("sampler", ["nnunet", "adaptive"])
@pytest.mark.parametrize("network", ["enet", "planned"])
def test_the_trainer_hands_each_case_its_code(partial_folders, network, sampler):
    short = ("epochs=1", "iterations_per_epoch=1", "val_iterations_per_epoch=1", "batch_size=4", f"sampler={sampler}")
    partial_folders.configure("2d_part", f"network={network}", "augmentation=none", *short)
    trainer = partial_folders.trainer(CustomTrainer, "2d_part", fold="all")
    trainer.initialize()
    training, validation = trainer.get_dataloaders()
    for loader in (training, validation):
        for _ in range(4):
            drawn = next(loader)
            target = drawn["target"][0] if network == "planned" else drawn["target"]
            assert target.shape[1] == 2
            codes = [set(part.unique().tolist()) for part in target[:, 1]]
            if sampler == "nnunet" or loader is validation:
                lacking = [int(key[-2:]) % 2 == 0 for key in drawn["keys"]]
                assert codes == [{int(lacks)} for lacks in lacking]
            assert all(len(code) == 1 for code in codes)
    drawn = next(training)
    assert np.isfinite(trainer.train_step(drawn)["loss"])
    log = next(Path(trainer.output_folder).glob("training_log*.txt")).read_text()
    assert "cases have labels that nobody annotated; the loss leaves them out" in log


def test_online_validation_counts_no_false_alarm_for_what_nobody_annotated(partial_folders):
    """A network that says `right` everywhere: wrong in the case with all annotated, unknown in the other."""
    partial_folders.configure("2d_part", "network=enet", "batch_size=2")
    trainer = partial_folders.trainer(CustomTrainer, "2d_part")
    trainer.initialize()

    class Right(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([0.0, 0.0, 9.0]).view(1, 3, 1, 1).expand(len(x), 3, *x.shape[2:]).clone()

    trainer.network = Right()
    target = torch.zeros(2, 2, 8, 8)
    target[1, 1] = 1  # the second case lacks it
    step = trainer.validation_step({"data": torch.zeros(2, 2, 8, 8), "target": target})
    assert step["fp_hard"].tolist() == [0, 64]
    assert not trainer.network._forward_hooks


def test_an_entry_that_came_after_planning_is_refused(folders):
    file = next(folders.raw.glob("*/dataset.json"))
    file.write_text(json.dumps({**json.loads(file.read_text()), "unannotated_labels": {"cube_00": ["left"]}}))
    trainer = folders.trainer(CustomTrainer)
    trainer.initialize()
    with pytest.raises(DatasetError, match="unannotated_labels is not that of the preprocessed data set"):
        trainer.get_dataloaders()
