"""The report: what is in the page, the figures and the tables, and what happens when files are missing."""

import base64
import csv
import gzip
import json
import os
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from evaluation import report
from evaluation.cases import evaluate_folder
from evaluation.metric_options import MetricOptions
from evaluation.reporting.case_tasks import case_tasks
from evaluation.reporting.inputs import read_method
from evaluation.reporting.tables import Table
from evaluation.reporting.worst_cases import choose_worst, load_worst

LABELS = {"background": 0, "left & <right>": 1, "cord_1": 2}
SHAPE = (20, 24, 28)
SPACING = (2.0, 1.0, 1.5)


class Page(HTMLParser):
    """Collects what a test asks of the page."""

    def __init__(self, path):
        super().__init__()
        self.addresses, self.ids, self.texts, self.scripts, self.headings = [], [], [], {}, []
        self._open = None
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[name] for name in ("src", "href", "action", "data") if attributes.get(name)]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self._open = (tag, attributes.get("id"))

    def handle_data(self, data):
        tag, name = self._open or ("", None)
        if tag == "script":
            self.scripts[name] = self.scripts.get(name, "") + data
        elif tag == "h2":
            self.headings += [data.strip()] if data.strip() else []
        elif tag != "style":
            self.texts.append(data)


def labelled(case, errors=0, miss=False):
    """Return a reference, or a prediction of it with a number of errors in each label."""
    volume = np.zeros(SHAPE, np.uint8)
    volume[4:12, 5 + case % 3 : 14, 4:12] = 1
    volume[6:16, 8:12, 18:22] = 2
    if errors:
        volume[4:12, 5 + case % 3, 4 : 4 + min(errors, 8)] = 0
        volume[3, 8:12, 18 : 18 + min(errors, 4)] = 2
    if miss:
        volume[volume == 2] = 0
    return volume


def write(folder, name, array, affine=None):
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*SPACING[::-1], 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(array.T, affine), folder / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Two methods' scores of six cases with images; the second is worse, and misses a label of case 4."""
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for case in range(6):
        write(root / "labelsTs", f"case_{case}", labelled(case))
        write(root / "imagesTs", f"case_{case}_0000", rng.normal(labelled(case) * 50.0, 10).astype(np.float32))
        write(root / "good", f"case_{case}", labelled(case, errors=1 + case % 2))
        write(root / "bad", f"case_{case}", labelled(case, errors=5, miss=case == 4))
    for folder in ("good", "bad"):
        (root / folder / "dataset.json").write_text(json.dumps({"labels": LABELS}))
        evaluate_folder(root / folder, root / "labelsTs", root / "scores" / folder)
    return SimpleNamespace(root=root, good=root / "scores" / "good", bad=root / "scores" / "bad")


def run(output, *options):
    return report.main([*map(str, options), "--output", str(output), "--resamples", "100", "--workers", "1"])


@pytest.fixture(scope="module")
def made(scored, tmp_path_factory):
    """A report of both methods."""
    output = tmp_path_factory.mktemp("made")
    assert run(output, "--scores", f"good={scored.good}", f"the <bad> one={scored.bad}", "--worst", "2") == 0
    return SimpleNamespace(output=output, page=Page(output / "report.html"))


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


def test_averages_are_those_of_the_summary(made, scored):
    summary = json.loads((scored.bad / "summary.json").read_text())
    statistics = summary["labels"]["2"]["metrics"]
    dice, hd95 = statistics["dice"], statistics["hd95_mm"]
    assert f"{dice['mean']:.3f} ± {dice['std']:.3f} (n 6, m 1)" in made.page.texts
    assert hd95["n"] == 5
    bracket = f"[{hd95['mean_inf_as_diagonal']:.2f}]" if hd95["mean_inf_as_diagonal"] >= 10 else ""
    assert f"{hd95['mean']:.3f} ± {hd95['std']:.3f} {bracket} (n 5, m 1)" in made.page.texts


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


def test_finished_cases_of_the_curve_are_removed_with_the_report(made):
    assert sorted(path.name for path in made.output.iterdir()) == [
        ".report_files.json",
        "figures",
        "report.html",
        "tables",
    ]


def inputs_of(scored, **methods):
    from evaluation.reporting.inputs import ReportInputs

    read = [read_method(name, folder) for name, folder in methods.items()]
    names = {"1": "one", "2": "two", "foreground": "mean over labels"}
    return ReportInputs(read, ["1", "2", "foreground"], names, ["dice"], [])


def test_worst_case_is_the_one_with_the_missed_label(scored):
    inputs = inputs_of(scored, good=scored.good, bad=scored.bad)
    (worst, second) = choose_worst(inputs, "dice", 1, 2)
    assert worst[0] == "case_4"
    assert worst[1] < second[1]
    assert worst[1] == pytest.approx(inputs.methods[1].stored.values["1", "dice"]["case_4"] / 2)  # (Dice + 0) / 2


def test_worst_by_a_distance_is_the_largest(scored):
    inputs = inputs_of(scored, bad=scored.bad)
    values = [value for _, value in choose_worst(inputs, "hd95_mm", -1, 6)]
    assert values == sorted(values, reverse=True)


def test_case_is_shown_alike_however_its_file_lies(tmp_path, scored):
    flipped = np.diag([-1.5, 1.0, 2.0, 1.0])
    flipped[0, 3] = 1.5 * (SHAPE[2] - 1)
    turned = np.zeros((4, 4))  # file axes (z, x, y)
    turned[0, 1], turned[1, 2], turned[2, 0], turned[3, 3] = 1.5, 1.0, 2.0, 1.0
    for name, affine, change in (
        ("as_is", np.diag([1.5, 1.0, 2.0, 1.0]), lambda a: a),
        ("flipped", flipped, lambda a: a[:, :, ::-1]),
        ("turned", turned, lambda a: a.transpose(1, 2, 0)),
    ):
        write(tmp_path / name / "labelsTr", "case", change(labelled(0)), affine)
        write(tmp_path / name / "predicted", "case", change(labelled(0, errors=3)), affine)
        evaluate_folder(tmp_path / name / "predicted", tmp_path / name / "labelsTr", tmp_path / name / "scores")
    shown = [load_worst(inputs_of(scored, m=tmp_path / n / "scores"), [("case", 0)], None)[0][0] for n in
             ("as_is", "flipped", "turned")]  # fmt: skip
    for other in shown[1:]:
        assert other.spacing_mm == pytest.approx(shown[0].spacing_mm)
        np.testing.assert_array_equal(other.reference, shown[0].reference)
        np.testing.assert_array_equal(other.predictions["m"], shown[0].predictions["m"])
    assert shown[0].spacing_mm == pytest.approx((2.0, 1.0, 1.5))
    # RAS file, x to the right: in the shown axes (S, P, L) the last two run the other way
    np.testing.assert_array_equal(np.argwhere(shown[0].reference == 1).min(0) >= 0, True)
    centre = [np.argwhere(shown[0].reference == label).mean(0) for label in (1, 2)]
    assert centre[1][2] < centre[0][2]  # label 2 has the larger x, so it lies further right: smaller towards the left


def test_volumes_in_the_page_are_the_label_maps(made, scored):
    cases = json.loads(made.page.scripts["volumes"])
    assert cases[0]["case"] == "case_4"
    assert set(cases[0]["predictions"]) == {"good", "the <bad> one"}
    image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(cases[0]["predictions"]["good"])))
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.header.get_zooms() == pytest.approx(SPACING[::-1])
    values, counts = np.unique(np.asarray(image.dataobj), return_counts=True)
    expected = np.bincount(labelled(4, errors=1).ravel(), minlength=3)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)).items() >= {1: expected[1], 2: expected[2]}.items()
    assert cases[0]["colormap"]["labels"] == ["", "left & <right>", "cord_1"]


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


def test_pictures_in_2d_with_colour_images(tmp_path, capsys):
    import SimpleITK as sitk  # noqa: N813

    rng = np.random.default_rng(0)
    for folder in ("labelsTr", "imagesTr", "predicted"):
        (tmp_path / folder).mkdir()
    for case in range(3):
        reference = np.zeros((40, 50), np.uint8)
        reference[10:30, 10:30] = 1
        colours = rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(reference), tmp_path / "labelsTr" / f"c{case}.png")
        sitk.WriteImage(sitk.GetImageFromArray(np.roll(reference, case, 1)), tmp_path / "predicted" / f"c{case}.png")
        sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), tmp_path / "imagesTr" / f"c{case}.png")
    evaluate_folder(tmp_path / "predicted", tmp_path / "labelsTr", tmp_path / "scores")
    assert run(tmp_path / "out", "--scores", f"m={tmp_path / 'scores'}", "--worst", "1") == 0
    assert "shown without its image" not in capsys.readouterr().err
    page = Page(tmp_path / "out" / "report.html")
    assert "volumes" not in page.scripts
    assert (tmp_path / "out" / "figures" / "worst_1_c2_slices.png").is_file()
    assert not (tmp_path / "out" / "figures" / "volumes.png").exists()  # a pixel has no volume


def test_missing_files_are_named_and_the_rest_is_reported(scored, tmp_path, capsys):
    predictions = tmp_path / "predictions"
    for case in range(4):
        write(predictions, f"case_{case}", labelled(case, errors=3))
    evaluate_folder(predictions, scored.root / "labelsTs", tmp_path / "scores")
    (predictions / "case_1.nii.gz").unlink()
    images = tmp_path / "no_images"
    images.mkdir()
    assert run(tmp_path / "out", "--scores", f"m={tmp_path / 'scores'}", "--worst", "4", "--images", images) == 0
    err = capsys.readouterr().err
    assert "case_1.nii.gz" in err
    assert "case_0 is shown without its image, none was found; name the folder with --images" in err
    shown = {path.name[len("worst_1_") :] for path in (tmp_path / "out" / "figures").glob("worst_*_slices.png")}
    assert shown == {f"case_{case}_slices.png" for case in (0, 2, 3)}


def test_label_that_no_case_holds_in_the_prediction_keeps_its_penalty(tmp_path):
    write(tmp_path / "labelsTs", "case", labelled(0))
    write(tmp_path / "predicted", "case", labelled(0, miss=True))
    evaluate_folder(tmp_path / "predicted", tmp_path / "labelsTs", tmp_path / "scores")
    diagonal_mm = np.linalg.norm(np.multiply(SHAPE, SPACING))
    assert run(tmp_path / "out", "--scores", f"m={tmp_path / 'scores'}", "--worst", "0", "--nsd-curve-mm", "0") == 0
    rows = (tmp_path / "out" / "tables" / "mean_hd95_mm.md").read_text().splitlines()
    assert rows[3] == f"| 2 | – [{diagonal_mm:.2f}] (n 0, m 1) |"


def test_many_labels_are_all_drawn(tmp_path):
    volume = np.zeros((8, 32, 32), np.uint8)
    for label in range(1, 31):
        volume[2:6, label % 6 * 5 + 1 : label % 6 * 5 + 4, label // 6 * 5 + 1 : label // 6 * 5 + 4] = label
    for case in ("a", "b"):
        write(tmp_path / "labelsTs", case, volume)
        write(tmp_path / "predicted", case, np.roll(volume, 1, axis=0))
    evaluate_folder(tmp_path / "predicted", tmp_path / "labelsTs", tmp_path / "scores")
    from evaluation.reporting.figures.boxes import draw_boxes
    from evaluation.reporting.figures.heat_map import draw_heat_map
    from evaluation.reporting.inputs import ReportInputs

    keys = [str(label) for label in range(1, 31)]
    names = {key: f"organ {key}" for key in keys}
    inputs = ReportInputs([read_method("m", tmp_path / "scores")], keys, names, ["dice"], [])
    for picture in (draw_boxes(inputs, "dice"), draw_heat_map(inputs, "dice")):
        drawn = picture.svg.decode()
        assert [key for key in keys if f"<!-- organ {key} -->" not in drawn] == []


def test_missed_label_makes_a_case_the_worst_by_distance(scored):
    inputs = inputs_of(scored, good=scored.good, bad=scored.bad)
    assert choose_worst(inputs, "hd95_mm", -1, 1)[0][0] == "case_4"


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


def test_labels_of_swapped_names_are_refused(scored, tmp_path, capsys):
    other = tmp_path / "other"
    write(other, "case_0", labelled(0))
    (other / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "cord_1": 1, "left & <right>": 2}}))
    evaluate_folder(other, scored.root / "labelsTs", tmp_path / "scores")
    assert run(tmp_path / "out", "--scores", f"a={scored.good}", f"b={tmp_path / 'scores'}") == 2
    assert (
        "label 1 must be the same for all methods, got left & <right> by a and cord_1 by b" in capsys.readouterr().err
    )


def test_other_references_and_newer_predictions_are_said(scored, tmp_path, capsys):
    for case in range(6):
        write(tmp_path / "labelsTs", f"case_{case}", labelled(case))
        write(tmp_path / "predicted", f"case_{case}", labelled(case, errors=2))
    (tmp_path / "predicted" / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    evaluate_folder(tmp_path / "predicted", tmp_path / "labelsTs", tmp_path / "scores")
    write(tmp_path / "predicted", "case_0", labelled(0, errors=5))
    later = (tmp_path / "scores" / "metrics.csv").stat().st_mtime + 10
    os.utime(tmp_path / "predicted" / "case_0.nii.gz", (later, later))
    named = ("--scores", f"a={scored.good}", f"b={tmp_path / 'scores'}")
    assert run(tmp_path / "out", *named, "--worst", "0") == 0
    err = capsys.readouterr().err
    assert "a and b: 6 cases, case_0 first, were scored against different reference files" in err
    assert "b: 1 predictions" in err and "are newer than their scores" in err
    assert "NSD by tolerance: b is left out, its files aren't those that were scored" in err


def test_ignored_voxels_are_no_errors_in_pictures(tmp_path):
    reference, prediction = labelled(0), labelled(0)
    reference[0:3, 0:4, 0:4] = 3
    prediction[0:3, 0:4, 0:4] = 1
    write(tmp_path / "labelsTs", "case", reference)
    write(tmp_path / "predicted", "case", prediction)
    labels = {**LABELS, "ignore": 3}
    (tmp_path / "predicted" / "dataset.json").write_text(json.dumps({"labels": labels}))
    evaluate_folder(tmp_path / "predicted", tmp_path / "labelsTs", tmp_path / "scores")
    (worst,), _ = load_worst(inputs_of(scored=None, m=tmp_path / "scores"), [("case", 1.0)], None)
    assert np.count_nonzero(worst.predictions["m"] == 1) == np.count_nonzero(labelled(0) == 1)


@pytest.mark.parametrize("labels", ["foreground", "0", "2"])
def test_any_choice_of_labels_makes_a_page(scored, tmp_path, labels):
    evaluate_folder(scored.root / "bad", scored.root / "labelsTs", tmp_path / "scores", include_background=True)
    assert run(tmp_path / "out", "--scores", f"m={tmp_path / 'scores'}", "--labels", labels, "--worst", "1") == 0


def test_names_with_the_signs_of_formulas_are_drawn(scored, tmp_path):
    (tmp_path / "predicted").mkdir()
    for case in range(2):
        write(tmp_path / "predicted", f"case_{case}", labelled(case, errors=2))
    labels = {"background": 0, "_T1 $_$ x": 1, "a^b": 2}
    (tmp_path / "predicted" / "dataset.json").write_text(json.dumps({"labels": labels}))
    evaluate_folder(tmp_path / "predicted", scored.root / "labelsTs", tmp_path / "scores")
    named = ("--scores", f"a$_$b={tmp_path / 'scores'}", f"c={tmp_path / 'scores'}")
    assert run(tmp_path / "out", *named, "--worst", "1") == 0
    assert "<!-- a$_$b -->" in (tmp_path / "out" / "figures" / "boxes_dice.svg").read_text()


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


def test_differing_definitions_are_said(scored, tmp_path, capsys):
    options = MetricOptions(hd_directions="union")
    evaluate_folder(scored.root / "bad", scored.root / "labelsTs", tmp_path / "scores", metric_options=options)
    named = ("--scores", f"a={scored.good}", f"b={tmp_path / 'scores'}")
    assert run(tmp_path / "out", *named, "--worst", "0", "--nsd-curve-mm", "0") == 0
    assert "a and b were scored by different definitions of hd95_mm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--scores", "m=nowhere"], "--scores nowhere"),
        (["--scores", "nowhere"], "--scores: must be NAME=FOLDER, got 'nowhere'"),
        (["--scores", "m={good}", "--worst", "-1"], "--worst: must be >= 0, got -1"),
        (["--scores", "m={good}", "--images", "nowhere"], "--images nowhere: must be a folder"),
        (["--scores", "m={good}", "--metrics", "dize"], "--metrics: dize must be one that all methods have"),
        (["--scores", "m={good}", "--labels", "7"], "--labels: 7 must be one that all methods have"),
        (["--scores", "m={good}", "--nsd-curve-mm", "nan"], "--nsd-curve-mm: must be 0 for none or >= 0.1, got nan"),
        (["--scores", "m={good}", "--seed", "-1"], "--seed: must be >= 0, got -1"),
        (["--scores", "m={good}", "--references", "x"], "are for --predictions; scores know theirs"),
        (["--scores", "_m={good}"], "a method's name must begin with a letter or a number, got _m"),
        ([], "give either --scores or --predictions"),
    ],
)
def test_wrong_options_exit_with_2(scored, tmp_path, capsys, options, text):
    named = [option.format(good=scored.good) for option in options]
    assert run(tmp_path / "out", *named) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out" / "report.html").exists()


def test_scores_without_their_summary_exit_with_2(scored, tmp_path, capsys):
    (tmp_path / "metrics.csv").write_bytes((scored.good / "metrics.csv").read_bytes())
    assert run(tmp_path / "out", "--scores", f"m={tmp_path}") == 2
    assert "must be the summary.json that belongs to metrics.csv" in capsys.readouterr().err


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


def test_masks_of_another_numbering_are_pointed_out(tmp_path):
    for case in ("a", "b"):
        write(tmp_path / "labelsTs", case, (labelled(0) > 0).astype(np.uint8))
        write(tmp_path / "predicted", case, (labelled(0) > 0).astype(np.uint8) * 255)
    evaluation = evaluate_folder(tmp_path / "predicted", tmp_path / "labelsTs", tmp_path / "scores")
    (warning,) = evaluation.summary["warnings"]
    assert warning.startswith("label 255 is in predictions only and label 1 in references only")


def test_pictures_of_many_labels_show_those_with_most_errors():
    from evaluation.reporting.worst_cases import WorstCase, most_wrong_labels

    reference = np.arange(1, 31).repeat(20).reshape(30, 20, 1)
    prediction = reference.copy()
    for label in range(10, 22):
        prediction[label - 1, : label - 5] = 0
    case = WorstCase("c", 0.5, None, reference, {"m": prediction}, (1, 1, 1), True, (0, 0, 0))
    assert most_wrong_labels(case, [str(n) for n in range(1, 31)]) == [str(n) for n in range(10, 22)]


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
