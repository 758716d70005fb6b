"""Metrics that are computed when asked for."""

import math

import numpy as np
import pytest
from scipy import ndimage

from evaluation import MetricOptions, score
from evaluation.boundary_iou import boundary_iou
from evaluation.centerline_dice import center_lines, centerline_dice
from evaluation.lesions import score_lesions

EVERYTHING = MetricOptions(also=("boundary_iou", "cldice", "lesions"))


def test_metrics_stand_behind_the_others_in_the_order_asked_for(cube):
    scored = score(cube(6), cube(6), (1, 1, 1), options=MetricOptions(also=("lesions", "boundary_iou")))[1]
    names = list(scored.metrics())
    assert names[-8:] == ["lesion_tp", "lesion_fp", "lesion_fn", "lesion_f1", "pq", "sq", "rq", "boundary_iou_2mm"]
    assert scored.lesion_tp == scored.pq == scored.boundary_iou_2mm == 1


def test_scores_of_the_box_equal_scores_of_the_whole_image(blobs):
    reference, prediction = blobs(3, (20, 22, 70))
    scored = score(reference, prediction, (2, 1, 1), options=EVERYTHING)[1]
    turned = [np.asfortranarray(mask) for mask in (reference, prediction)]
    assert score(*turned, (2, 1, 1), options=EVERYTHING)[1].metrics() == pytest.approx(scored.metrics())
    assert scored.boundary_iou_2mm == boundary_iou(reference, prediction, (2, 1, 1), 2.0)
    assert scored.cldice == pytest.approx(centerline_dice(reference, prediction))
    assert scored.pq == score_lesions(reference, prediction).panoptic_quality


def test_label_in_neither_map_has_none_of_them(cube):
    scored = score(cube(4), cube(4), (1, 1, 1), labels=[7], options=EVERYTHING)[7]
    assert len(scored.metrics()) == 15 + 9
    assert all(math.isnan(value) for value in scored.metrics().values())


def test_missed_label_scores_0(cube):
    scored = score(cube(4), np.zeros((40, 40, 40), bool), (1, 1, 1), options=EVERYTHING)[1]
    assert scored.boundary_iou_2mm == scored.cldice == scored.lesion_f1 == scored.pq == scored.rq == 0
    assert (scored.lesion_tp, scored.lesion_fp, scored.lesion_fn) == (0, 0, 1)
    assert math.isnan(scored.sq)  # no matched component has an IoU


def test_boundary_iou_of_a_shifted_square_is_that_of_its_rims():
    reference, prediction = np.zeros((2, 12, 20), bool)
    reference[1:11, 1:11] = prediction[1:11, 2:12] = True
    # at width 0 the bands are rims of 4 * 9 pixels; they share two sides of 9 pixels each
    assert boundary_iou(reference, prediction, (1, 1), 0) == pytest.approx(18 / (36 + 36 - 18))
    # a band as wide as the square is the square
    assert boundary_iou(reference, prediction, (1, 1), 5) == pytest.approx(90 / 110)


def test_boundary_iou_measures_its_width_in_mm():
    reference, prediction = np.zeros((2, 30, 30), bool)
    reference[5:25, 5:25] = prediction[5:25, 7:27] = True
    assert boundary_iou(reference, prediction, (0.5, 0.5), 1.0) == boundary_iou(reference, prediction, (1, 1), 2.0)


def test_boundary_iou_takes_the_spacing_of_each_axis():
    reference, prediction = np.zeros((2, 13, 12), bool)
    reference[1:11, 1:11] = prediction[2:12, 1:11] = True
    # at 2 mm a band is three rows of 1 mm deep and one column of 3 mm: 100 - 4 * 8 pixels; moved by one row they share
    # four whole rows and two pixels in each of five others
    shared = 4 * 10 + 5 * 2
    assert boundary_iou(reference, prediction, (1, 3), 2) == pytest.approx(shared / (68 + 68 - shared))


def test_cldice_of_tubes_counts_the_missing_part_of_the_line():
    reference, prediction = np.zeros((2, 9, 9, 60), bool)
    reference[3:6, 3:6, 5:55] = prediction[3:6, 3:6, 5:30] = True
    # all of the prediction's line lies in the reference, half of the reference's in the prediction
    assert centerline_dice(reference, prediction) == pytest.approx(2 * 1 * 0.5 / 1.5, abs=0.02)
    assert centerline_dice(reference, reference) == 1


@pytest.mark.parametrize("width", [1, 2, 3, 4, 6])
def test_tube_of_any_width_has_a_line_where_scikit_image_leaves_nothing_of_even_ones(width):
    tube = np.zeros((12, 12, 60), bool)
    tube[2 : 2 + width, 2 : 2 + width, 10:50] = True
    line = center_lines(tube)
    assert not (line & ~tube).any()
    assert 40 - 2 * width <= line.sum() <= 40
    half = tube & (np.arange(60) < 30)
    # half as long: its line lies in the whole's, and so does about half of the whole's in it
    assert centerline_dice(tube, half) == pytest.approx(2 * 1 * 0.5 / 1.5, abs=0.03)


def test_every_component_has_a_centre_line_and_a_mask_is_its_own_equal(blobs):
    for seed in range(5):
        mask, _ = blobs(seed, (16, 18, 20))
        mask[:, :2] = False
        mask[2:4, 0:2, 2:4] = True  # a box that thinning erases
        components, n_components = ndimage.label(mask, np.ones((3, 3, 3)))
        assert set(components[center_lines(mask)]) == set(range(1, n_components + 1))
        assert centerline_dice(mask, mask) == 1


def test_lesions_are_counted_and_matched():
    reference, prediction = np.zeros((2, 10, 40), bool)
    reference[2:6, 2:6] = reference[2:6, 20:24] = reference[8, 30] = True  # three lesions
    prediction[2:6, 2:5] = True  # IoU 12 / 16 with the first
    prediction[5, 23:26] = True  # touches the second: IoU 1 / 18
    prediction[0, 10] = True  # invented
    found = score_lesions(reference, prediction)
    assert (found.true_positives, found.false_positives, found.false_negatives) == (2, 1, 1)
    assert found.f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert found.matched_iou == (0.75,)
    assert found.recognition_quality == pytest.approx(2 * 1 / (3 + 3))
    assert found.segmentation_quality == 0.75
    assert found.panoptic_quality == pytest.approx(0.75 / (1 + (2 + 2) / 2))


def test_lesions_that_touch_at_a_corner_are_one():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert score_lesions(mask, mask).n_reference == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"also": ("dice",)}, "also must name some of boundary_iou, cldice, lesions, calibration, got 'dice'"),
        ({"boundary_width_mm": -1}, "boundary_width_mm must be a number >= 0, got -1"),
    ],
)
def test_bad_options_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        MetricOptions(**wrong)


def test_label_maps_have_no_calibration(cube):
    with pytest.raises(ValueError, match=r"calibration needs probabilities, .* use score_probabilities"):
        score(cube(4), cube(4), (1, 1, 1), options=MetricOptions(also=("calibration",)))


def test_command_writes_and_defines_them(workspace, cube):
    workspace.pair(cube(6).astype(np.uint8), cube(6, shift=1).astype(np.uint8))
    run = workspace.run("--also", "lesions", "boundary_iou", "--boundary-width-mm", "1.5")
    assert run.code == 0
    assert run.value("lesion_f1") == 1
    assert 0 < run.value("boundary_iou_1.5mm") < 1
    assert "panoptic" in run.summary["definitions"]["pq"]
    assert run.summary["options"]["also"] == ["lesions", "boundary_iou"]
    refused = workspace.run("--also", "hausdorff")
    assert refused.code == 2 and "invalid choice: 'hausdorff'" in refused.err
