"""The report's numbers: averages, tables, differences and curves are those of the scores."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from report_cases import SHAPE, SPACING, labelled, run, write

from evaluation.cases import evaluate_folder
from evaluation.reporting.case_tasks import case_tasks
from evaluation.reporting.inputs import read_method
from evaluation.reporting.tables import Table


def test_averages_are_those_of_the_summary(made, scored):
    summary = json.loads((scored.bad / "summary.json").read_text())
    statistics = summary["labels"]["2"]["metrics"]
    dice, hd95 = statistics["dice"], statistics["hd95_mm"]
    assert f"{dice['mean']:.3f} ± {dice['std']:.3f} (n 6, m 1)" in made.page.texts
    assert hd95["n"] == 5
    bracket = f"[{hd95['mean_inf_as_diagonal']:.2f}]" if hd95["mean_inf_as_diagonal"] >= 10 else ""
    assert f"{hd95['mean']:.3f} ± {hd95['std']:.3f} {bracket} (n 5, m 1)" in made.page.texts


def test_tables_hold_the_same_cells_in_markdown_and_latex(made):
    folder = made.output / "tables"
    names = {path.stem for path in folder.glob("*.csv")}
    assert names == {"mean_dice", "mean_hd95_mm", "mean_nsd_2mm", "differences", "rankings", "cases"}
    for name in names:
        markdown = (folder / f"{name}.md").read_text().splitlines()
        rows = [row for row in (folder / f"{name}.tex").read_text().splitlines() if row.endswith(r" \\")]
        assert len(rows) == len(markdown) - 1  # no rule below the head
        assert {row.count(" & ") for row in rows} == {markdown[0].count(" | ")}


def test_csv_tables_are_numbers_for_programs(made, scored):
    import pandas as pd

    folder = made.output / "tables"
    summary = json.loads((scored.bad / "summary.json").read_text())
    means = pd.read_csv(folder / "mean_hd95_mm.csv", dtype={"label": str}).set_index(["label", "method"])
    statistics = summary["labels"]["2"]["metrics"]["hd95_mm"]
    assert means.loc[("2", "the <bad> one"), "mean"] == statistics["mean"]
    assert means.loc[("2", "the <bad> one"), "mean_inf_as_diagonal"] == statistics["mean_inf_as_diagonal"]
    differences = pd.read_csv(folder / "differences.csv")
    assert (
        differences[["difference", "low", "high", "p_holm", "n_cases"]].dtypes.map(pd.api.types.is_numeric_dtype).all()
    )
    assert (differences["low"] <= differences["difference"]).all()
    cases = pd.read_csv(folder / "cases.csv").set_index(["case", "method"])
    diagonal_mm = np.linalg.norm(np.multiply(SHAPE, SPACING))
    first = read_method("bad", scored.bad).stored.values["1", "hd95_mm"]["case_4"]
    assert cases.loc[("case_4", "the <bad> one"), "hd95_mm"] == pytest.approx((first + diagonal_mm) / 2)


def test_latex_and_markdown_escape_what_has_a_meaning_there():
    table = Table("t", "Title", "100 % of a_b", ["label", "x|y"], [["a_b & c", "1 ± 2"]], best=frozenset({(0, 1)}))
    assert r"a\_b \& c & \textbf{1 $\pm$ 2} \\" in table.latex()
    assert r"100 \% of a\_b" in table.latex()
    assert r"| label | x\|y |" in table.markdown()
    assert "| a_b & c | **1 ± 2** |" in table.markdown()


def test_best_method_of_each_row_is_stressed(made):
    rows = (made.output / "tables" / "mean_hd95_mm.md").read_text().splitlines()[2:]
    assert all(row.split(" | ")[1].startswith("**") and "**" not in row.split(" | ")[2] for row in rows)


def test_nsd_curve_passes_through_the_scored_tolerance(scored):
    from evaluation.reporting.nsd_curves import compute_nsd_curves

    method = read_method("bad", scored.bad)
    curves = compute_nsd_curves([method], 10.0, scored.root / "log", workers=1, progress=False)
    at_2_mm = list(curves.tolerances_mm).index(2.0)
    assert curves.mean("bad", "1")[at_2_mm] == pytest.approx(method.statistics("1", "nsd_2mm")["mean"], abs=1e-12)
    assert curves.mean("bad", "foreground")[at_2_mm] == pytest.approx(
        method.statistics("foreground", "nsd_2mm")["mean"], abs=1e-12
    )
    assert (np.diff(curves.mean("bad", "2")) >= 0).all()
    assert curves.mean("bad", "2")[-1] == pytest.approx(5 / 6)  # case 4 misses the label: 0 at every tolerance


def test_label_that_no_case_holds_in_the_prediction_keeps_its_penalty(tmp_path):
    write(tmp_path / "labelsTs", "case", labelled(0))
    write(tmp_path / "predicted", "case", labelled(0, miss=True))
    evaluate_folder(tmp_path / "predicted", tmp_path / "labelsTs", tmp_path / "scores")
    diagonal_mm = np.linalg.norm(np.multiply(SHAPE, SPACING))
    assert run(tmp_path / "out", "--scores", f"m={tmp_path / 'scores'}", "--worst", "0", "--nsd-curve-mm", "0") == 0
    rows = (tmp_path / "out" / "tables" / "mean_hd95_mm.md").read_text().splitlines()
    assert rows[3] == f"| 2 | – [{diagonal_mm:.2f}] (n 0, m 1) |"


def test_missed_slices_count_in_the_comparison_of_slices(scored, tmp_path, capsys):
    for folder in ("good", "bad"):
        evaluate_folder(scored.root / folder, scored.root / "labelsTs", tmp_path / folder, axis=0)
    named = ("--scores", f"good={tmp_path / 'good'}", f"bad={tmp_path / 'bad'}", "--labels", "2")
    assert run(tmp_path / "out", *named, "--metrics", "hd95_mm", "--worst", "0", "--nsd-curve-mm", "0") == 0
    row = next(csv.DictReader((tmp_path / "out" / "tables" / "differences.csv").open(newline="")))
    case_4 = [read_method(n, tmp_path / n).stored.penalised["2", "hd95_mm"]["case_4"] for n in ("good", "bad")]
    diagonal_mm = np.hypot(SHAPE[1] * SPACING[1], SHAPE[2] * SPACING[2])
    assert case_4[1] == pytest.approx(diagonal_mm)  # missed in each slice that holds it
    assert float(row["difference"]) < -(diagonal_mm - case_4[0]) / 6 + 1


def test_case_tasks_score_as_the_evaluation_did(scored):
    from evaluation.metric_choice import MetricChoice
    from evaluation.score_case import score_case

    method = read_method("bad", scored.bad)
    for task in case_tasks(method, MetricChoice()):
        again = score_case(task)
        names = MetricChoice().names(again.labels[0])
        for label in ("1", "2"):
            value = again.values[label][0][names.index("dice")]
            assert value == method.stored.values[label, "dice"][task.case]


def test_test_and_mean_that_disagree_decide_nothing(tmp_path):
    from evaluation.comparison import compare_methods
    from evaluation.reporting.figures.significance import draw_significance
    from evaluation.reporting.inputs import ReportInputs
    from evaluation.score_files import StoredScores

    key = ("1", "hd95_mm")
    a = {f"case_{n}": 1.0 for n in range(12)} | {"case_0": 100.0}  # better in 11 of 12 cases, worse by the mean
    b = {f"case_{n}": 1.5 + n / 100 for n in range(12)}
    stored = {
        name: StoredScores(tmp_path, {key: v}, {"1": "one"}, {}, {key: v}, {key: {}})
        for name, v in (("a", a), ("b", b))
    }
    comparisons, _ = compare_methods(stored, resamples=100)
    result = comparisons[0].pairs["a", "b"]
    assert result.difference > 0
    assert (result.favoured, result.n_greater, result.n_less) == (-1, 1, 11)
    assert comparisons[0].p_holm["a", "b"] < 0.05
    assert not result.is_sure(comparisons[0].p_holm["a", "b"])
    methods = [SimpleNamespace(name="a"), SimpleNamespace(name="b")]
    picture = draw_significance(ReportInputs(methods, ["1"], {"1": "one"}, ["hd95_mm"], comparisons))
    assert "≠ test" in picture.svg.decode()


def test_mean_over_labels_needs_the_metric_of_all_labels(scored, tmp_path):
    evaluate_folder(
        scored.root / "good", scored.root / "labelsTs", tmp_path / "scores", nsd_tolerance_mm={None: 2.0, "cord_1": 5.0}
    )
    assert "nsd_2mm" not in json.loads((tmp_path / "scores" / "summary.json").read_text())["foreground_mean"]["metrics"]
    assert run(tmp_path / "out", "--scores", f"m={tmp_path / 'scores'}", "--worst", "0") == 0
    rows = (tmp_path / "out" / "tables" / "mean_nsd_2mm.md").read_text().splitlines()
    assert rows[-1] == "| mean over labels | – |"
