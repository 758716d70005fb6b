"""The report's pictures: which cases are the worst, how they lie, and what is drawn of them."""

import base64
import gzip
import json

import nibabel as nib
import numpy as np
import pytest
from report_cases import LABELS, SHAPE, SPACING, Page, inputs_of, labelled, run, write

from evaluation.cases import evaluate_folder
from evaluation.reporting.inputs import read_method
from evaluation.reporting.worst_cases import choose_worst, load_worst


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


def test_missed_label_makes_a_case_the_worst_by_distance(scored):
    inputs = inputs_of(scored, good=scored.good, bad=scored.bad)
    assert choose_worst(inputs, "hd95_mm", -1, 1)[0][0] == "case_4"


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


def test_pictures_of_many_labels_show_those_with_most_errors():
    from evaluation.reporting.worst_cases import WorstCase, most_wrong_labels

    reference = np.arange(1, 31).repeat(20).reshape(30, 20, 1)
    prediction = reference.copy()
    for label in range(10, 22):
        prediction[label - 1, : label - 5] = 0
    case = WorstCase("c", 0.5, None, reference, {"m": prediction}, (1, 1, 1), True, (0, 0, 0))
    assert most_wrong_labels(case, [str(n) for n in range(1, 31)]) == [str(n) for n in range(10, 22)]


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
