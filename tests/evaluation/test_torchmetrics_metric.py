"""The scores as a torchmetrics metric: same numbers, its way to add up, to be collected, and to run in processes."""

import math
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchmetrics = pytest.importorskip("torchmetrics")

from evaluation import MetricOptions, score  # noqa: E402
from evaluation.torchmetrics_metric import LabelMetric  # noqa: E402

SPACING = (2.0, 1.0, 0.5)


@pytest.fixture
def batch(blobs):
    """Return predictions and references (2, 16, 18, 20) of labels 1 and 2."""
    pairs = []
    for seed in (0, 1):
        reference, prediction = blobs(seed, (16, 18, 20))
        halves = np.where(np.arange(20) < 10, 1, 2)
        pairs.append((prediction * halves, reference * halves))
    return tuple(torch.tensor(np.stack(side)) for side in zip(*pairs, strict=True))


def expected(batch, name, image, label, spacing=SPACING):
    prediction, reference = (side[image].numpy() for side in batch)
    return score(reference, prediction, spacing, [1, 2])[label].metrics()[name]


@pytest.mark.parametrize("name", ["dice", "hd95_mm", "nsd_2mm", "rvd"])
def test_values_are_those_of_score(batch, name):
    metric = LabelMetric(3, name, per_label=True)
    metric.update(*batch, spacing=SPACING)
    wanted = [np.mean([expected(batch, name, image, label) for image in (0, 1)]) for label in (1, 2)]
    assert metric.compute().tolist() == pytest.approx(wanted)
    assert LabelMetric(3, name)(*batch, spacing=SPACING).item() == pytest.approx(np.mean(wanted))


def test_logits_count_by_their_largest(batch):
    logits = torch.nn.functional.one_hot(batch[0], 3).movedim(-1, 1).half() * 5 - 3
    for name in ("dice", "hd_mm"):
        assert LabelMetric(3, name)(logits, batch[1]) == LabelMetric(3, name)(*batch)


def test_slices_in_2d_are_images(batch):
    prediction, reference = (side[0, 7:9] for side in batch)
    value = LabelMetric(3, "hd_mm", per_label=True)(prediction, reference, spacing=(1.0, 0.5))
    wanted = [score(reference[i].numpy(), prediction[i].numpy(), (1.0, 0.5), [1, 2])[1].hd_mm for i in (0, 1)]
    assert value[0].item() == pytest.approx(np.mean(wanted))


def test_batches_add_up_and_forward_returns_the_batch(batch):
    metric = LabelMetric(3)
    first = metric(batch[0][:1], batch[1][:1], spacing=[SPACING])
    second = metric(batch[0][1:], batch[1][1:], spacing=[SPACING])
    assert first != second
    assert metric.compute() == pytest.approx((first + second).item() / 2)
    assert metric.compute() == LabelMetric(3)(*batch, spacing=[SPACING, SPACING])
    metric.reset()
    assert metric(batch[0][:1], batch[1][:1]) == first


def test_clone_and_pickle_keep_what_was_scored(batch):
    metric = LabelMetric(3, "nsd_1mm", nsd_tolerance_mm=(1, 2), options=MetricOptions(nsd_boundary="voxel"))
    metric.update(*batch)
    for copy in (metric.clone(), pickle.loads(pickle.dumps(metric))):
        assert copy.compute() == metric.compute()
        copy.update(*batch)
        copy.reset()
    assert LabelMetric(3, "nsd_1mm", nsd_tolerance_mm=1)(*batch) != metric.compute()


def test_absent_label_is_left_out_and_missed_one_is_infinitely_far(batch):
    prediction, reference = batch
    only_1 = [torch.where(side == 1, 1, 0) for side in batch]
    assert LabelMetric(3)(*only_1) == LabelMetric(2)(*only_1)
    by_label = LabelMetric(3, per_label=True)(*only_1)
    assert math.isnan(by_label[1]) and by_label[0] > 0
    assert math.isinf(LabelMetric(3, "hd95_mm")(torch.zeros_like(prediction), reference))
    assert math.isnan(LabelMetric(3)(torch.zeros_like(prediction), torch.zeros_like(reference)))


def test_ignored_voxels_and_background_as_asked(batch):
    prediction, reference = batch
    ignoring = torch.where(prediction == reference, reference, 255)
    assert LabelMetric(3, ignore_index=255)(prediction, ignoring) == 1
    assert LabelMetric(3, include_background=True, per_label=True)(prediction, reference).shape == (3,)


@pytest.mark.parametrize(("name", "better"), [("dice", True), ("hd95_mm", False), ("voe", False), ("rvd", None)])
def test_higher_is_better_follows_the_definition(name, better):
    assert LabelMetric(2, name).higher_is_better is better


@pytest.mark.parametrize("images", ["3d", "2d", "label 2 absent", "nothing"])
def test_collection_scores_an_image_once_for_all_its_metrics(batch, monkeypatch, images):
    if images == "2d":  # without a volume in ml: nan
        batch = tuple(side[:, 8] for side in batch)
    elif images != "3d":
        batch = tuple(torch.where(side == 1, 1, 0) * (images != "nothing") for side in batch)
    spacing = SPACING[-(batch[0].ndim - 1) :]
    from evaluation import torchmetrics_metric

    calls = []
    monkeypatch.setattr(
        torchmetrics_metric, "score", lambda *args, **options: calls.append(1) or score(*args, **options)
    )
    collection = torchmetrics.MetricCollection({name: LabelMetric(3, name) for name in ("dice", "hd95_mm", "assd_mm")})
    for _ in range(3):
        collection.update(*batch, spacing=spacing)
    assert len(calls) == 2 * (3 + 1 + 1)  # images times batches; after the first the metrics share
    values = collection.compute()
    for name in ("dice", "hd95_mm", "assd_mm"):
        own = LabelMetric(3, name)(*batch, spacing=spacing).item()
        assert values[name].item() == pytest.approx(own, nan_ok=True)


def test_spacing_is_one_for_all_images_or_one_for_each(batch):
    three = [torch.cat([side, side[:1]]) for side in batch]
    wanted = LabelMetric(3, "hd_mm")(*three, spacing=SPACING)
    each = [SPACING] * 3
    for spacing in (torch.tensor(SPACING), np.array(SPACING), torch.tensor(each), np.array(each), each):
        assert LabelMetric(3, "hd_mm")(*three, spacing=spacing) == wanted
    for kind in (torch.tensor, np.array):
        assert LabelMetric(3, "hd_mm")(*three, spacing=[kind(SPACING)] * 3) == wanted
    with pytest.raises(ValueError, match=r"those of each of 3 images, got shape \(2, 3\)"):
        LabelMetric(3, "hd_mm")(*three, spacing=[SPACING] * 2)


def test_boolean_one_hot_predictions_are_label_maps(batch):
    hot = torch.nn.functional.one_hot(batch[0], 3).movedim(-1, 1)
    assert LabelMetric(3)(hot.bool(), batch[1]) == LabelMetric(3)(*batch) == LabelMetric(3)(hot, batch[1])


def test_values_survive_another_type_and_device(batch):
    metric = LabelMetric(3, "hd_mm")
    metric.update(*batch)
    wanted = metric.compute()
    for changed in (metric.set_dtype(torch.float32), metric.half(), metric.to("cpu")):
        changed.update(*batch)
        assert changed.compute() == wanted


def test_collection_never_merges_metrics_that_are_equal_by_chance(batch):
    others = {"voxel": MetricOptions(), "dual": MetricOptions(boundary="dual")}
    collection = torchmetrics.MetricCollection({name: LabelMetric(3, "hd_mm", options=o) for name, o in others.items()})
    collection.update(batch[1], batch[1])  # a perfect prediction: all distances 0
    collection.update(*batch)
    assert collection.compute()["voxel"] != collection.compute()["dual"]


def _score_share(rank, folder, batch):
    torch.set_num_threads(1)  # a forked process has lost the threads that others would wait for
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=3)
    metric = LabelMetric(3, "hd95_mm", per_label=True)
    if rank < 2:  # the third has no image
        metric.update(batch[0][rank : rank + 1], batch[1][rank : rank + 1])
    torch.save(metric.compute(), f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def test_processes_share_what_each_has_scored(batch, tmp_path):
    torch.multiprocessing.start_processes(_score_share, (str(tmp_path), batch), nprocs=3, start_method="fork")
    wanted = LabelMetric(3, "hd95_mm", per_label=True)(*batch)
    for rank in range(3):
        assert torch.equal(torch.load(tmp_path / str(rank)), wanted)


def test_wrong_use_is_named(batch):
    with pytest.raises(ValueError, match=r"metric must be one of dice, iou, .*, got 'hd95'"):
        LabelMetric(2, "hd95")
    with pytest.raises(ValueError, match="num_classes must be >= 2, the background among them, got 1"):
        LabelMetric(1)
    with pytest.raises(ValueError, match=r"preds the same or \(B, 3, ...\), got .* and \(2, 2, 16, 18, 20\)"):
        LabelMetric(3)(torch.zeros(2, 2, 16, 18, 20), batch[1])
    with pytest.raises(ValueError, match=r"prediction: label values must be integers, got 0\.4"):
        LabelMetric(3)(torch.full(batch[1].shape, 0.4), batch[1])
