"""Pictures for TensorBoard."""

import torch
from monai.engines import SupervisedEvaluator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nnunet_ext.bundle import PredictionPanels
from nnunet_ext.bundle.panels import overlay, panel


def test_labels_are_coloured_and_the_rest_is_grey():
    label = torch.zeros(8, 8)
    label[:4] = 3
    picture = overlay(torch.rand(8, 8), label)
    grey = (picture == picture[:1]).all(dim=0)
    assert grey[4:].all()
    assert not grey[:4].any()
    assert 0 <= picture.min() <= picture.max() <= 1


def test_constant_slice_gives_no_nan():
    assert overlay(torch.full((4, 4), 7.0), None).isfinite().all()


def test_panel_has_a_row_a_slice_and_three_columns():
    label = torch.zeros(5, 8, 6)
    label[2] = 1
    assert panel(torch.rand(5, 8, 6), label, label, rows=3).shape == (3, 3 * 8, 3 * 6)


def test_panel_shows_slices_with_foreground():
    reference = torch.zeros(9, 8, 6)
    reference[6] = 1
    picture = panel(torch.zeros(9, 8, 6), reference, torch.zeros(9, 8, 6), rows=1)
    assert not picture[:, :, :6].any()
    assert (picture[:, :, 6:12].sum(0) > 0).all()


def test_panel_of_a_case_without_foreground_is_drawn_too():
    assert panel(torch.rand(2, 8, 6), torch.zeros(2, 8, 6), torch.zeros(2, 8, 6)).isfinite().all()


def test_pictures_of_the_first_cases_reach_tensorboard(tmp_path):
    batches = [
        {"image": torch.rand(1, 1, 3, 8, 6), "label": torch.ones(1, channels, 3, 8, 6), "case": [name]}
        for name, channels in (("a", 1), ("b", 3), ("c", 1))  # "b" as regions
    ]
    SupervisedEvaluator(
        device="cpu",
        val_data_loader=batches,
        network=torch.nn.Identity(),
        postprocessing=lambda item: {**item, "pred": item["label"]},
        val_handlers=[PredictionPanels(str(tmp_path), num_cases=2)],
    ).run(global_epoch=4)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["validation/a", "validation/b"]
    assert [event.step for event in events.Images("validation/a")] == [4]
