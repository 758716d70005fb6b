"""The report as a whole: the sections of its page, the files beside it, the choice of metrics and labels."""

import json
import re

import numpy as np
import pytest
from report_cases import LABELS, SPACING, Page, inputs_of, labelled, run, write

from evaluation.cases import evaluate_folder
from evaluation.reporting.worst_cases import choose_worst


def test_page_refers_to_nothing_outside_of_itself(made):
    assert made.page.addresses
    assert all(address.startswith(("#", "data:")) for address in made.page.addresses)
    assert all(address[1:] in made.page.ids for address in made.page.addresses if address.startswith("#"))
    styles = re.findall(r"<style>(.*?)</style>", made.page.html, re.DOTALL)
    assert styles
    assert not any("url(" in style or "@import" in style for style in styles)
    assert "default-src 'none'" in made.page.html


def test_page_has_every_section(made):
    assert made.page.headings == [
        "Averages",
        "Cases",
        "Comparison of methods",
        "Surface agreement by tolerance",
        "Worst cases",
        "All cases",
        "Definitions",
    ]


def test_names_are_shown_as_they_are_and_run_no_code(made):
    assert "the <bad> one" in made.page.texts
    assert "left & <right>" in made.page.texts
    assert "<bad>" not in made.page.html
    assert "<right>" not in made.page.html


def test_every_figure_is_a_file_too(made, scored):
    pictures = {path.stem for path in (made.output / "figures").glob("*.png")}
    drawings = {path.stem for path in (made.output / "figures").glob("*.svg")}
    images = {name for name in pictures if name.startswith("worst_")}
    assert pictures - images == drawings
    metrics = ("dice", "hd95_mm", "nsd_2mm")
    assert drawings == {
        *(f"{kind}_{metric}" for kind in ("boxes", "heat_map") for metric in metrics),
        "volumes",
        "differences",
        "significance",
        "rank_stability",
        "nsd_by_tolerance",
    }
    chosen = [case for case, _ in choose_worst(inputs_of(scored, good=scored.good, bad=scored.bad), "dice", 1, 2)]
    assert images == {
        f"worst_{n + 1}_{case}_{kind}" for n, case in enumerate(chosen) for kind in ("slices", "surfaces")
    }


def test_finished_cases_of_the_curve_are_removed_with_the_report(made):
    assert sorted(path.name for path in made.output.iterdir()) == [
        ".report_files.json",
        "figures",
        "report.html",
        "tables",
    ]


def test_one_method_is_reported_without_a_comparison(scored, tmp_path):
    assert run(tmp_path, "--scores", f"only={scored.good}", "--worst", "0", "--nsd-curve-mm", "0") == 0
    assert Page(tmp_path / "report.html").headings == ["Averages", "Cases", "All cases", "Definitions"]
    assert not (tmp_path / "tables" / "differences.csv").exists()


def test_chosen_metrics_and_labels_only(scored, tmp_path):
    options = ("--metrics", "iou", "--labels", "cord_1", "--worst", "0", "--nsd-curve-mm", "0")
    assert run(tmp_path, "--scores", f"a={scored.good}", f"b={scored.bad}", *options) == 0
    rows = (tmp_path / "tables" / "mean_iou.md").read_text().splitlines()
    assert [row.split(" | ")[0] for row in rows] == ["| label", "| ---", "| cord_1"]
    assert not list((tmp_path / "tables").glob("mean_dice*"))


@pytest.mark.parametrize("labels", ["foreground", "0", "2"])
def test_any_choice_of_labels_makes_a_page(scored, tmp_path, labels):
    evaluate_folder(scored.root / "bad", scored.root / "labelsTs", tmp_path / "scores", include_background=True)
    assert run(tmp_path / "out", "--scores", f"m={tmp_path / 'scores'}", "--labels", labels, "--worst", "1") == 0


def test_predictions_can_be_scored_on_the_way(scored, tmp_path):
    named = ("--predictions", f"good={scored.root / 'good'}", "--references", scored.root / "labelsTs")
    assert run(tmp_path, *named, "--worst", "0", "--nsd-curve-mm", "0") == 0
    assert (tmp_path / "scores" / "good" / "metrics.csv").is_file()


def test_slices_are_reported_by_case(scored, tmp_path):
    evaluate_folder(scored.root / "bad", scored.root / "labelsTs", tmp_path / "scores", axis=0)
    assert run(tmp_path / "out", "--scores", f"bad={tmp_path / 'scores'}", "--worst", "1") == 0
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    mean = summary["labels"]["1"]["mean_of_cases"]["dice"]["mean"]
    assert f"{mean:.3f}" in (tmp_path / "out" / "tables" / "mean_dice.csv").read_text()


def test_scored_probabilities_get_a_section_for_the_methods_that_have_them(workspace, tmp_path):
    for case in range(3):
        workspace.pair(labelled(case), labelled(case, errors=2), f"case_{case}", spacing=SPACING)
        sure = np.stack([labelled(case, errors=2) == label for label in range(3)])
        probabilities = (sure * 0.7 + 0.1).astype(np.float32)
        workspace.npz(workspace.predictions, f"case_{case}", SPACING, probabilities=probabilities)
    workspace.dataset_json(LABELS)
    assert workspace.run("--also", "calibration").code == 0
    assert workspace.run(output=tmp_path / "plain").code == 0
    named = ("--scores", f"sure={workspace.scores}", f"plain={tmp_path / 'plain'}")
    assert run(tmp_path / "out", *named, "--worst", "0", "--nsd-curve-mm", "0") == 0
    assert "Probabilities" in Page(tmp_path / "out" / "report.html").headings
    for name in ("reliability", "thresholds"):
        drawn = (tmp_path / "out" / "figures" / f"{name}.svg").read_text()
        assert "<!-- sure -->" in drawn
        assert "<!-- plain -->" not in drawn


def test_methods_without_a_common_case_are_reported_without_a_comparison(scored, tmp_path, capsys):
    write(tmp_path / "predicted", "case_9", labelled(0))
    write(tmp_path / "labels", "case_9", labelled(0))
    (tmp_path / "predicted" / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    evaluate_folder(tmp_path / "predicted", tmp_path / "labels", tmp_path / "scores")
    named = ("--scores", f"a={scored.good}", f"b={tmp_path / 'scores'}", "--worst", "0", "--nsd-curve-mm", "0")
    assert run(tmp_path / "out", *named) == 0
    assert "the methods aren't compared: the methods must have cases in common" in capsys.readouterr().err


def test_section_that_fails_costs_no_page(scored, tmp_path, capsys, monkeypatch):
    from evaluation.reporting import sections

    monkeypatch.setattr(sections, "draw_volumes", lambda inputs: 1 / 0)
    assert run(tmp_path, "--scores", f"m={scored.good}", "--worst", "0", "--nsd-curve-mm", "0") == 1
    assert "a section is missing: ZeroDivisionError" in capsys.readouterr().err
    assert Page(tmp_path / "report.html").headings == ["Averages", "All cases", "Definitions"]


def test_next_report_removes_what_it_does_not_replace(scored, tmp_path):
    two = ("--scores", f"a={scored.good}", f"b={scored.bad}", "--worst", "0", "--nsd-curve-mm", "0")
    assert run(tmp_path, *two) == 0
    (tmp_path / "figures" / "mine.png").write_text("not the report's")
    assert (tmp_path / "tables" / "differences.csv").exists()
    assert run(tmp_path, "--scores", f"a={scored.good}", *two[3:]) == 0
    assert not (tmp_path / "tables" / "differences.csv").exists()
    assert (tmp_path / "figures" / "mine.png").exists()
