"""The scores as a MONAI metric: same numbers, MONAI's way of averaging, inside an ignite handler."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("monai")

from evaluation import score  # noqa: E402
from evaluation.monai_metric import LabelMetric  # noqa: E402


@pytest.fixture
def batch(blobs):
    """Return predictions and references (2, 3, 16, 18, 20): background, a label, an empty label."""
    pairs = [blobs(seed, (16, 18, 20)) for seed in (0, 1)]
    stacks = []
    for side in (1, 0):
        masks = [torch.tensor(pair[side]) for pair in pairs]
        stacks.append(torch.stack([torch.stack([~mask, mask, torch.zeros_like(mask)]) for mask in masks]).float())
    return stacks[0], stacks[1]


def test_values_are_those_of_score(batch):
    predicted, reference = batch
    spacing = (2.0, 1.0, 0.5)
    for name in ("dice", "hd95_mm", "nsd_2mm"):
        values = LabelMetric(name, include_background=True)(predicted, reference, spacing=spacing)
        assert values.shape == (2, 3)
        for image in range(2):
            masks = [x[image, 1].bool().numpy() for x in (reference, predicted)]
            assert values[image, 1].item() == pytest.approx(score(*masks, spacing)[1].metrics()[name])
        assert torch.isnan(values[:, 2]).all()


def test_background_is_left_out_and_nan_not_averaged(batch):
    metric = LabelMetric("dice", get_not_nans=True)
    values = metric(*batch)
    assert values.shape == (2, 2)
    average, count = metric.aggregate()
    assert average.item() == pytest.approx(values[:, 0].mean().item())
    assert count.item() == 2
    by_label, _ = metric.aggregate("mean_batch")
    assert by_label[0].item() == pytest.approx(values[:, 0].mean().item())
    metric.reset()
    with pytest.raises(ValueError, match="nothing was scored"):
        metric.aggregate()


def test_batches_add_up_and_each_image_may_have_its_own_spacing(batch):
    metric = LabelMetric("hd_mm", reduction="none")
    metric(*batch, spacing=[(1, 1, 1), (3, 3, 3)])
    metric(batch[0][1:], batch[1][1:], spacing=[(1, 1, 1)])
    values = metric.aggregate()
    assert values.shape == (3, 2)
    assert values[1, 0] == pytest.approx(3 * values[2, 0])


def test_missed_label_is_infinitely_far_and_not_dropped(batch):
    predicted, reference = batch
    values = LabelMetric("hd95_mm")(torch.zeros_like(predicted), reference)
    assert math.isinf(values[0, 0])


def test_ignite_handler_computes_it(batch):
    ignite = pytest.importorskip("ignite.engine")
    from monai.handlers import IgniteMetricHandler

    engine = ignite.Engine(lambda engine, data: data)
    handler = IgniteMetricHandler(metric_fn=LabelMetric("dice"), output_transform=lambda output: output)
    handler.attach(engine, "val_dice")
    engine.run([batch], max_epochs=1)
    expected = np.mean(
        [score(batch[1][i, 1].bool().numpy(), batch[0][i, 1].bool().numpy(), (1, 1, 1)).dice for i in (0, 1)]
    )
    assert engine.state.metrics["val_dice"] == pytest.approx(expected)


def test_wrong_use_is_named(batch):
    with pytest.raises(ValueError, match=r"metric must be one of dice, iou, .*, got 'hd95'"):
        LabelMetric("hd95")
    with pytest.raises(ValueError, match=r"must have one shape \(B, C, ...\), got"):
        LabelMetric()(batch[0], batch[1][:, :2])
