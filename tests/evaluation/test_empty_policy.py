"""The whole policy for empty masks as a table: what is in the two files, times every metric, times every statistic."""

import math

import numpy as np
import pytest

NAN, INF = math.nan, math.inf
SHAPE, SPACING = (6, 8, 10), (2.0, 1.0, 0.5)
BOX = (slice(1, 5), slice(2, 6), slice(2, 8))  # 4 * 4 * 6 voxels
N_BOX, N_ALL = 4 * 4 * 6, 6 * 8 * 10
VOXEL_ML = 2.0 * 1.0 * 0.5 / 1000
DIAGONAL_MM = math.sqrt((6 * 2) ** 2 + (8 * 1) ** 2 + (10 * 0.5) ** 2)
BOX_ML, ALL_ML = N_BOX * VOXEL_ML, N_ALL * VOXEL_ML
REST = 1 - N_BOX / N_ALL

#                 missed   spurious both     neither  full     full     nothing
# reference       box      -        box      -        all      all      -
# prediction      -        box      box      -        all      -        all
TABLE = {
    "dice": (0, 0, 1, NAN, 1, 0, 0),
    "iou": (0, 0, 1, NAN, 1, 0, 0),
    "precision": (NAN, 0, 1, NAN, 1, NAN, 0),  # not applicable where nothing was predicted
    "sensitivity": (0, NAN, 1, NAN, 1, 0, NAN),  # nor where there is nothing to find
    "specificity": (1, REST, 1, NAN, NAN, NAN, 0),  # nor where there is nothing to leave alone
    "vs": (0, 0, 1, NAN, 1, 0, 0),
    "voe": (1, 1, 0, NAN, 0, 1, 1),
    "hd_mm": (INF, INF, 0, NAN, 0, INF, INF),
    "hd50_mm": (INF, INF, 0, NAN, 0, INF, INF),
    "hd95_mm": (INF, INF, 0, NAN, 0, INF, INF),
    "hd99.5_mm": (INF, INF, 0, NAN, 0, INF, INF),
    "assd_mm": (INF, INF, 0, NAN, 0, INF, INF),
    "masd_mm": (INF, INF, 0, NAN, 0, INF, INF),
    "nsd_0mm": (0, 0, 1, NAN, 1, 0, 0),
    "nsd_1.5mm": (0, 0, 1, NAN, 1, 0, 0),
    "nsd_1000mm": (0, 0, 1, NAN, 1, 0, 0),  # no tolerance makes up for a mask that isn't there
    "rvd": (-1, NAN, 0, NAN, 0, -1, NAN),
    "reference_ml": (BOX_ML, 0, BOX_ML, NAN, ALL_ML, ALL_ML, 0),
    "prediction_ml": (0, BOX_ML, BOX_ML, NAN, ALL_ML, 0, ALL_ML),
    "boundary_iou_1mm": (0, 0, 1, NAN, 1, 0, 0),
    "cldice": (0, 0, 1, NAN, 1, 0, 0),
    "lesion_tp": (0, 0, 1, NAN, 1, 0, 0),
    "lesion_fp": (0, 1, 0, NAN, 0, 0, 1),
    "lesion_fn": (1, 0, 0, NAN, 0, 1, 0),
    "lesion_f1": (0, 0, 1, NAN, 1, 0, 0),
    "pq": (0, 0, 1, NAN, 1, 0, 0),
    "sq": (NAN, NAN, 1, NAN, 1, NAN, NAN),  # the mean over matched lesions, of which there are none
    "rq": (0, 0, 1, NAN, 1, 0, 0),
}
MASKS = {  # reference and prediction: all of the image, the box, or nothing
    "missed": ("box", ""),
    "spurious": ("", "box"),
    "both": ("box", "box"),
    "neither": ("", ""),
    "full": ("all", "all"),
    "full_missed": ("all", ""),
    "full_spurious": ("", "all"),
}
CASES = list(MASKS)
N_MISSED = {case: int(case in ("missed", "full_missed")) for case in CASES}
N_SPURIOUS = {case: int(case in ("spurious", "full_spurious")) for case in CASES}
ALSO = ["--also", "boundary_iou", "cldice", "lesions", "--boundary-width-mm", "1"]
METRICS = ["--hd-percentiles", "50", "95", "99.5", "--nsd-tolerance-mm", "0", "1.5", "1000", *ALSO]
DEFINITIONS = [
    ["--boundary", boundary, "--nsd-boundary", nsd_boundary, "--hd-directions", directions]
    for boundary, nsd_boundary, directions in (
        ("voxel", "dual", "max"),
        ("voxel", "voxel", "union"),
        ("dual", "voxel", "max"),
        ("dual", "dual", "union"),
    )
]
in_every_definition = pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: "-".join(d[1::2]))


def mask(what, shape=SHAPE):
    array = np.full(shape, int(what == "all"), np.uint8)
    if what == "box":
        array[BOX[-len(shape) :]] = 1
    return array


def write(workspace, cases):
    for case in cases:
        workspace.pair(*map(mask, MASKS[case]), case=case, spacing=SPACING)


def assert_statistics(statistics, values, cases, is_distance):
    """Compare the statistics of some cases with those of the table's values."""
    finite = [value for value in values if math.isfinite(value)]
    expected = {
        "mean": pytest.approx(np.mean(finite)) if finite else None,
        "median": pytest.approx(np.median(finite)) if finite else None,
        "std": pytest.approx(np.std(finite, ddof=1)) if len(finite) > 1 else None,
        "n": len(finite),
        "n_na": sum(map(math.isnan, values)),
        "n_missed": sum(N_MISSED[case] for case in cases),
        "n_spurious": sum(N_SPURIOUS[case] for case in cases),
    }
    if is_distance:
        penalised = [min(value, DIAGONAL_MM) for value in values if not math.isnan(value)]
        expected["mean_inf_as_diagonal"] = pytest.approx(np.mean(penalised)) if penalised else None
    assert statistics == expected


@in_every_definition
@pytest.mark.parametrize("case", CASES)
def test_case_has_the_values_and_counts_of_the_table(workspace, case, definition):
    write(workspace, [case])
    run = workspace.run("--labels", "1", *METRICS, *definition)
    assert run.code == 0
    column = {metric: row[CASES.index(case)] for metric, row in TABLE.items()}
    found = {row["metric"]: float(row["value"]) for row in run.rows}
    assert list(found) == list(column)
    assert found == pytest.approx(column, nan_ok=True)
    assert {row["value"] for row in run.rows if math.isinf(float(row["value"]))} <= {"inf"}
    assert {row["value"] for row in run.rows if math.isnan(float(row["value"]))} <= {"nan"}
    for metric, value in column.items():
        for statistics in (run.statistics(metric), run.summary["foreground_mean"]["metrics"][metric]):
            assert_statistics(statistics, [value], [case], metric.endswith("_mm"))


@in_every_definition
def test_folder_of_all_cases_has_the_statistics_of_the_table(workspace, definition):
    write(workspace, CASES)
    run = workspace.run("--labels", "1", *METRICS, *definition)
    assert run.code == 0
    for metric, values in TABLE.items():
        assert_statistics(run.statistics(metric), values, CASES, metric.endswith("_mm"))
    statistics = run.statistics("hd95_mm")  # 2 of 7 perfect, 1 not applicable, 2 missed, 2 spurious
    assert [statistics[key] for key in ("n", "n_na", "n_missed", "n_spurious", "mean")] == [2, 1, 2, 2, 0]
    assert statistics["mean_inf_as_diagonal"] == pytest.approx(4 * DIAGONAL_MM / 6)


@pytest.mark.parametrize("case", CASES)
def test_2d_images_have_the_values_of_the_table_except_volumes(workspace, case):
    workspace.pair(*(mask(what, SHAPE[1:]) for what in MASKS[case]), case=case, spacing=SPACING[1:])
    run = workspace.run("--labels", "1", *METRICS)
    for metric, row in TABLE.items():
        expected = NAN if metric.endswith("_ml") else row[CASES.index(case)]
        if metric == "specificity" and case == "spurious":
            expected = 1 - (4 * 6) / (8 * 10)
        assert run.value(metric, case=case) == pytest.approx(expected, nan_ok=True), metric


def test_slices_have_the_values_of_the_table(workspace):
    maps = np.zeros((2, len(CASES), 8, 10), np.uint8)
    for index, case in enumerate(CASES):
        for side, what in enumerate(MASKS[case]):
            maps[side, index] = mask(what, SHAPE[1:])
    workspace.pair(*maps, spacing=SPACING)
    run = workspace.run2d("--labels", "1", *METRICS)
    diagonal = math.hypot(8 * 1, 10 * 0.5)
    for metric, row in TABLE.items():
        if metric.endswith("_ml") or metric == "specificity":
            continue
        found = [run.value(metric, slice=str(index)) for index in range(len(CASES))]
        assert found == pytest.approx(row, nan_ok=True), metric
        entry = run.summary["labels"]["1"]
        pooled = entry["pooled_over_slices"][metric]
        n_na = sum(map(math.isnan, row))
        n_finite = sum(map(math.isfinite, row))
        assert [pooled[k] for k in ("n", "n_na", "n_missed", "n_spurious")] == [n_finite, n_na, 2, 2]
        if metric.endswith("_mm"):
            assert pooled["mean_inf_as_diagonal"] == pytest.approx(4 * diagonal / 6)
            assert entry["mean_of_cases"][metric]["mean_inf_as_diagonal"] == pytest.approx(4 * diagonal / 6)


@pytest.mark.parametrize("declared", ["--labels", "dataset.json"])
def test_label_that_no_case_holds_is_not_applicable_throughout_and_in_no_mean(workspace, declared):
    write(workspace, ["both", "missed"])
    if declared == "dataset.json":
        workspace.dataset_json({"background": 0, "organ": 1, "nowhere": 2})
    options = [] if declared == "dataset.json" else ["--labels", "1", "2"]
    run = workspace.run(*options, *METRICS)
    assert run.code == 0
    rows = [row for row in run.rows if row["label"] == "2"]
    assert len(rows) == 2 * len(TABLE) and {row["value"] for row in rows} == {"nan"}
    for metric in TABLE:
        statistics = run.statistics(metric, label="2")
        assert [statistics[k] for k in ("n", "n_na", "n_missed", "n_spurious")] == [0, 2, 0, 0]
        assert {statistics[k] for k in ("mean", "std", "median")} == {None}
        assert statistics.get("mean_inf_as_diagonal") is None
        assert run.summary["foreground_mean"]["metrics"][metric] == run.statistics(metric, label="1")


def test_label_of_one_case_is_not_applicable_in_the_others(workspace):
    write(workspace, ["both", "neither"])
    workspace.pair(mask("box") * 2, mask("box") * 2, case="second", spacing=SPACING)
    run = workspace.run(*METRICS)
    for label, n in (("1", 1), ("2", 1)):
        for metric in TABLE:
            statistics = run.statistics(metric, label=label)
            holds = math.isfinite(TABLE[metric][CASES.index("both")])
            assert (statistics["n"], statistics["n_na"]) == (n if holds else 0, 2 if holds else 3)


@pytest.mark.parametrize("case", CASES)
def test_background_of_a_mask_follows_the_table_of_what_the_mask_leaves(workspace, case):
    """Background is empty where the mask is full, full where it is empty; neither is missed."""
    write(workspace, [case])
    run = workspace.run("--labels", "0", *METRICS)
    swapped = {"full": "neither", "neither": "full", "full_missed": "full_spurious", "full_spurious": "full_missed"}
    if case in swapped:
        column = CASES.index(swapped[case])
        for metric, row in TABLE.items():
            assert run.value(metric, case=case, label="0") == pytest.approx(row[column], nan_ok=True), metric
    dice = run.statistics("dice", label="0")
    assert (dice["n_missed"], dice["n_spurious"]) == (int(case == "full_spurious"), int(case == "full_missed"))
    assert run.summary["foreground_mean"]["metrics"] == {}


def test_mask_wholly_under_the_ignore_label_is_as_if_in_neither_file(workspace):
    workspace.dataset_json({"background": 0, "organ": 1, "ignore": 2})
    reference, prediction = mask("box") * 2, mask("box")
    workspace.pair(reference, prediction, spacing=SPACING)
    run = workspace.run(*METRICS)
    assert {row["value"] for row in run.rows} == {"nan"}
    assert run.statistics("dice")["n_na"] == 1 and run.statistics("dice")["n_spurious"] == 0
