"""One share and one permutation mix the images, the maps and the losses of a batch."""

import numpy as np
import pytest
import torch
from monai.transforms import MixUp
from torch import nn
from torch.nn import functional as F

from nnunet_ext.bundle import MixupInferer, MixupLoss, make_loss
from nnunet_ext.bundle.losses import LOSSES
from nnunet_ext.data import LabelMap
from nnunet_ext.errors import OptionError
from nnunet_ext.training.mixup import Mixup

LABELS = LabelMap(("low", "high"), ((1,), (2,)))
REGIONS = LabelMap(("whole", "core"), ((1, 2), (2,)), (1, 2))
BOTH = pytest.mark.parametrize("label_map", [LABELS, REGIONS], ids=["labels", "regions"])


class Layers(nn.Module):
    """Three layers, and a point after each of the first two."""

    mixing_points = {"first": ("first",), "second": ("second",)}  # noqa: RUF012

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.first(x).tanh()).tanh())


def batch(count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(count, 1, 12, 10), torch.randint(0, 3, (count, 1, 12, 10))


def monais(mixup: Mixup) -> MixUp:
    """Return MONAI's transform with the draw of a batch; its own draws a share for each image, none for a batch."""
    transform = MixUp(batch_size=len(mixup.mix.order))
    weights = torch.full((len(mixup.mix.order),), mixup.mix.weight)
    transform._params = (weights, mixup.mix.order, [])
    return transform


def test_input_mixup_matches_monai():
    images, _ = batch()
    mixup = Mixup(Layers(), "input", alpha=1.0)
    mixed = mixup.begin(images)
    assert 0.02 < mixup.mix.weight < 0.98
    torch.testing.assert_close(mixed, monais(mixup)(images, randomize=False))
    assert not torch.allclose(mixed, images)


def test_maps_are_mixed_as_monai_mixes_tensors():
    images, _ = batch()
    network = Layers()
    mixup = Mixup(network, "manifold", alpha=1.0)
    seen = set()
    for _ in range(30):
        assert mixup.begin(images) is images or mixup.mix.point == "input"
        point, mix = mixup.mix.point, monais(mixup)
        seen.add(point)
        x = mix(images, randomize=False) if point == "input" else images
        x = network.first._conv_forward(x, network.first.weight, network.first.bias)
        x = mix(x, randomize=False) if point == "first" else x
        x = network.second._conv_forward(x.tanh(), network.second.weight, network.second.bias)
        x = mix(x, randomize=False) if point == "second" else x
        expected = network.last(x.tanh())
        got = network(monais(mixup)(images, randomize=False) if point == "input" else images)
        torch.testing.assert_close(got, expected)
    assert seen == {"input", "first", "second"}


def test_the_cross_entropy_is_that_of_labels_mixed_alike():
    images, label = batch()
    network = Layers()
    mixup = Mixup(network, "manifold", alpha=1.0)
    loss = MixupLoss(make_loss("ce", LABELS), mixup)
    logits = MixupInferer(mixup)(images, network)
    mixed = monais(mixup)(LABELS.encode(label), randomize=False)
    expected = -(mixed * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss(logits, label), expected)


@BOTH
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_taken_against_both_labels_with_the_shares(label_map, name):
    images, label = batch()
    mixup = Mixup(Layers(label_map.num_outputs), "input", alpha=1.0)
    logits = MixupInferer(mixup)(images, mixup.network)
    inner, weight, order = make_loss(name, label_map), mixup.mix.weight, mixup.mix.order
    own, other = inner(logits, label), inner(logits, label[order])
    torch.testing.assert_close(MixupLoss(inner, mixup)(logits, label), weight * own + (1 - weight) * other)
    outputs = [logits, logits[..., ::2, ::2]]
    of_all = mixup.loss(lambda o, t: sum(map(inner, o, t)), outputs, [label, label[..., ::2, ::2]])
    coarse = [inner(outputs[1], one[..., ::2, ::2]) for one in (label, label[order])]
    torch.testing.assert_close(of_all, weight * (own + coarse[0]) + (1 - weight) * (other + coarse[1]))


def test_nothing_is_mixed_when_it_is_off():
    images, label = batch()
    network = Layers()
    mixup = Mixup(network)
    inner = make_loss("dice_ce", LABELS)
    assert mixup.begin(images) is images
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    logits = network(images)
    assert torch.equal(MixupLoss(inner, mixup)(logits, label), inner(logits, label))


def test_evaluation_mode_is_left_alone_between_steps():
    images, _ = batch()
    network = Layers()
    plain = network.eval()(images)
    mixup = Mixup(network, "manifold", alpha=1.0)
    network.train()
    for _ in range(10):
        mixup.begin(images)
        assert torch.equal(network.eval()(images), plain)
        assert torch.equal(network.train()(images), plain) == (mixup.mix.point == "input")


def draws(count: int = 20, epoch: int = 1, **options) -> list:
    images, _ = batch()
    mixup = Mixup(Layers(), "manifold", **options)
    mixup.set_epoch(epoch)
    found = []
    for _ in range(count):
        mixup.begin(images)
        found.append((mixup.mix.weight, mixup.mix.point, mixup.mix.order.tolist()))
    return found


def test_an_epoch_draws_the_same_whatever_came_before():
    torch.manual_seed(1)
    first = draws(seed=3)
    torch.manual_seed(2)
    np.random.seed(2)
    assert draws(seed=3) == first
    assert draws(seed=4) != first
    assert draws(seed=3, epoch=2) != first


def test_processes_share_weights_and_points_but_not_partners():
    """A Dice of all processes' batches is one loss: two weights would belong to none of its halves."""
    one, other = draws(rank=0), draws(rank=1)
    assert [draw[:2] for draw in one] == [draw[:2] for draw in other]
    assert [draw[2] for draw in one] != [draw[2] for draw in other]


def test_weights_are_beta_distributed():
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)); four standard errors of 2000 draws."""
    for alpha in (0.4, 2.0):
        weights = np.array([weight for weight, *_ in draws(2000, alpha=alpha)])
        variance = 1 / (4 * (2 * alpha + 1))
        assert weights.mean() == pytest.approx(0.5, abs=4 * (variance / 2000) ** 0.5)
        assert weights.var() == pytest.approx(variance, rel=0.15)


def test_mixed_precision_stays_in_its_precision():
    images, label = batch()
    network = Layers()
    mixup = Mixup(network, "manifold", alpha=1.0)
    kinds = []
    network.second.register_forward_pre_hook(lambda _, inputs: kinds.append(inputs[0].dtype))
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16):
            loss = mixup.loss(make_loss("dice_ce", LABELS), network(mixup.begin(images)), label)
        loss.backward()
        assert loss.isfinite()
    assert set(kinds) == {torch.bfloat16}


def test_frozen_layers_before_the_point_get_no_gradient_and_the_others_do():
    images, label = batch()
    network = Layers()
    network.first.requires_grad_(False)
    mixup = Mixup(network, "manifold", alpha=1.0)
    mixup.begin(images)
    mixup.mix = type(mixup.mix)(mixup.mix.weight, mixup.mix.order, "first")
    mixup.loss(lambda o, t: F.cross_entropy(o, t[:, 0]), network(images), label).backward()
    assert network.first.weight.grad is None
    assert network.second.weight.grad.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "inputs"}, "mixup must be one of none, input, manifold, got 'inputs'"),
        ({"alpha": 0}, "mixup_alpha must be a number > 0, got 0"),
    ],
)
def test_other_values_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        Mixup(Layers(), **options)
