"""`python -m evaluation.compare`: from scores or predictions of several methods to differences and rankings."""

import csv
import json

import numpy as np
import pytest

from evaluation import compare


class Comparison:
    """Methods in folders, and what comparing them left behind."""

    def __init__(self, workspace, capsys):
        self.workspace, self.root, self._capsys = workspace, workspace.root, capsys
        self.output = workspace.root / "comparison"

    def scores(self, method, rows, diagonals=None):
        """Write metrics.csv of a method: rows (case, label, metric, value)."""
        folder = self.root / method
        folder.mkdir()
        lines = ["case,label,label_name,metric,value"]
        lines += [f"{case},{label},organ {label},{metric},{value}" for case, label, metric, value in rows]
        (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
        if diagonals:
            files = [{"case": case, "diagonal_mm": value} for case, value in diagonals.items()]
            (folder / "summary.json").write_text(json.dumps({"files": files}))
        return f"{method}={folder}"

    def run(self, *words):
        self.code = compare.main([*map(str, words), "--output", str(self.output), "--resamples", "200"])
        captured = self._capsys.readouterr()
        self.out, self.err = captured.out, captured.err
        if (self.output / "comparison.json").exists():
            text = (self.output / "comparison.json").read_text()
            self.content = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
        return self

    def entry(self, label, metric):
        """Return the one entry of comparison.json that fits."""
        (found,) = [e for e in self.content["comparisons"] if (e["label"], e["metric"]) == (label, metric)]
        return found


@pytest.fixture
def comparison(workspace, capsys):
    return Comparison(workspace, capsys)


def dices(values, label=1):
    return [(f"case_{number:02d}", label, "dice", value) for number, value in enumerate(values)]


def test_difference_interval_test_and_ranking_of_two_methods(comparison):
    values = np.random.default_rng(0).normal(0.8, 0.05, 12)
    a, b = comparison.scores("a", dices(values)), comparison.scores("b", dices(values - 0.02))
    run = comparison.run("--scores", a, b)
    assert run.code == 0
    entry = run.entry("1", "dice")
    (pair,) = entry["pairs"]
    assert pair["difference"] == pytest.approx(0.02)
    assert pair["interval"] == pytest.approx([0.02, 0.02])
    assert pair["p"] < 0.01
    assert pair["correlation"] == pytest.approx(1)
    assert {way: ranking["ranks"] for way, ranking in entry["rankings"].items()} == {
        way: {"a": 1, "b": 2} for way in ("aggregate_then_rank", "rank_then_aggregate", "test_then_rank")
    }
    assert "a - b: +0.0200" in run.out
    with (run.output / "differences.csv").open(newline="") as stream:
        assert float(next(csv.DictReader(stream))["p_holm"]) == pair["p"]
    with (run.output / "rankings.csv").open(newline="") as stream:
        assert {row["method"]: row["rank"] for row in csv.DictReader(stream)} == {"a": "1.0", "b": "2.0"}


def test_few_cases_are_called_too_few_and_nothing_is_called_unlikely(comparison):
    for number, said in ((2, "no interval, "), (5, "["), (6, None)):
        a = comparison.scores(f"a{number}", dices([0.9 + n / 100 for n in range(number)]))
        b = comparison.scores(f"b{number}", dices([0.8 - n / 50 for n in range(number)]))
        out = comparison.run("--scores", a, b).out
        assert ("too few for Wilcoxon" in out, "by chance" in out) == (said is not None, said is None)
        assert said is None or (f"{number} are too few" in out and said in out)
        assert "nan" not in out


def test_less_is_better_for_distances(comparison):
    rows = [(f"case_{n}", 1, "hd95_mm", 2 + n) for n in range(8)]
    worse = [(case, label, metric, value + 1) for case, label, metric, value in rows]
    entry = comparison.run("--scores", comparison.scores("a", rows), comparison.scores("b", worse)).entry(
        "1", "hd95_mm"
    )
    assert entry["better"] == "less"
    assert entry["rankings"]["aggregate_then_rank"]["ranks"] == {"a": 1, "b": 2}


def test_missed_label_counts_as_the_diagonal(comparison):
    rows = [(f"case_{n}", 1, "hd95_mm", 2) for n in range(4)]
    missed = [*rows[:3], ("case_3", 1, "hd95_mm", "inf")]
    diagonals = {f"case_{n}": 100.0 for n in range(4)}
    run = comparison.run("--scores", comparison.scores("a", rows, diagonals), comparison.scores("b", missed))
    entry = run.entry("1", "hd95_mm")
    assert entry["methods"]["b"] == {"mean": (2 * 3 + 100) / 4, "n_infinite": 1, "values": [2, 2, 2, 100]}
    assert "inf counts as" not in run.err


def test_without_a_diagonal_a_missed_label_counts_as_the_largest_distance_and_that_is_said(comparison):
    rows = [("case_0", 1, "hd95_mm", 7), ("case_1", 1, "hd95_mm", 3)]
    missed = [("case_0", 1, "hd95_mm", "inf"), ("case_1", 1, "hd95_mm", 5)]
    run = comparison.run("--scores", comparison.scores("a", rows), comparison.scores("b", missed))
    assert run.entry("1", "hd95_mm")["methods"]["b"]["values"] == [7, 5]
    assert "hd95_mm: inf counts as 7" in run.err


def test_foreground_is_the_mean_over_the_labels_that_all_methods_have_a_value_for(comparison):
    a = comparison.scores("a", [*dices([0.8, 0.6]), *dices([0.4, "nan"], label=2)])
    b = comparison.scores("b", [*dices([0.7, 0.5]), *dices([0.2, 0.9], label=2)])
    run = comparison.run("--scores", a, b)
    methods = run.entry("foreground", "dice")["methods"]
    assert methods["a"]["values"] == pytest.approx([(0.8 + 0.4) / 2, 0.6])
    assert methods["b"]["values"] == pytest.approx([(0.7 + 0.2) / 2, 0.5])
    assert run.entry("2", "dice")["cases"] == ["case_00"]
    assert run.out.startswith("foreground, dice: 2 cases")


def test_cases_that_one_method_lacks_are_left_out_and_named(comparison):
    a, b = comparison.scores("a", dices([0.8, 0.7, 0.6])), comparison.scores("b", dices([0.8, 0.7]))
    run = comparison.run("--scores", a, b)
    assert run.entry("1", "dice")["n_cases"] == 2
    assert "a: 1 cases that another method lacks are left out" in run.err


def test_patients_are_drawn_together(comparison):
    values = np.random.default_rng(0).normal(0.8, 0.05, 12)
    shifted = values - np.repeat([-0.01, 0.05, 0.02, 0.03], 3)
    table = comparison.root / "patients.csv"
    table.write_text("case,patient\n" + "\n".join(f"case_{n:02d},p{n // 3}" for n in range(12)))
    a, b = comparison.scores("a", dices(values)), comparison.scores("b", dices(shifted))
    entry = comparison.run("--scores", a, b, "--patients", table).entry("1", "dice")
    assert entry["n_patients"] == 4
    assert entry["pairs"][0]["p"] == 2 * 2 / 2**4  # four patients' differences, the smallest of them negative
    assert "12 cases, 4 patients" in comparison.out
    table.write_text("case,patient\ncase_00,p0\n")
    again = comparison.run("--scores", a, b, "--patients", table)
    assert again.code == 2 and "must name the patient of every case, got none for case_01" in again.err


def test_predictions_are_scored_first_and_finished_scores_used_again(comparison, cube):
    workspace = comparison.workspace
    for number in range(3):
        workspace.pair(cube(8).astype(np.uint8), cube(8, shift=1).astype(np.uint8), case=f"case_{number}")
        other = workspace.root / "other"
        other.mkdir(exist_ok=True)
        workspace.nifti(other / f"case_{number}.nii.gz", cube(8, shift=2).astype(np.uint8))
    words = ("--predictions", f"one={workspace.predictions}", f"two={other}", "--references", workspace.references)
    run = comparison.run(*words, "--workers", "1")
    assert run.code == 0
    assert run.entry("1", "dice")["pairs"][0]["difference"] == pytest.approx(1 / 8)
    assert run.entry("1", "hd95_mm")["pairs"][0]["difference"] == pytest.approx(-1)
    assert (run.output / "scores" / "two" / "metrics.csv").exists()
    (other / "case_1.nii.gz").write_bytes(b"no image")
    broken = comparison.run(*words, "--workers", "1")
    assert broken.code == 1
    assert "two, case case_1 not scored" in broken.err
    assert broken.entry("1", "dice")["n_cases"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give either --scores or --predictions"),
        (("--scores", "a"), "--scores: must be NAME=FOLDER, got 'a'"),
        (("--scores", "a=x", "a=y"), "got a twice"),
        (("--scores", "a=nowhere", "b=nowhere"), "--scores nowhere: must be readable"),
        (("--predictions", "a=x", "b=y"), "--predictions need --references"),
        (("--predictions", "a/b=x", "--references", "y"), "must have no /, got a/b"),
    ],
)
def test_wrong_words_are_named(comparison, words, message):
    run = comparison.run(*words)
    assert run.code == 2
    assert message in run.err


def test_wrong_content_is_named(comparison):
    a = comparison.scores("a", dices([0.5, 0.6]))
    assert "at least two methods, got a" in comparison.run("--scores", a).err
    b = comparison.scores("b", [("other", 1, "dice", 0.5)])
    assert "must have cases in common" in comparison.run("--scores", a, b).err
    c = comparison.scores("c", dices([0.5, 0.6]))
    assert (
        "--metrics: iou must be one that all methods have (dice)"
        in comparison.run("--scores", a, c, "--metrics", "iou").err
    )
    assert "--labels: liver must be one" in comparison.run("--scores", a, c, "--labels", "liver").err
    (comparison.root / "c" / "metrics.csv").write_text("case,metric\n")
    assert "must have the columns case, label" in comparison.run("--scores", a, c).err
    (comparison.root / "c" / "metrics.csv").write_text("case,label,label_name,metric,value\nx,1,a,dice,much\n")
    assert "every value must be a number" in comparison.run("--scores", a, c).err
    assert comparison.code == 2


def test_help_shows_examples(capsys):
    assert compare.main(["--help"]) == 0
    assert "python -m evaluation.compare --scores nnunet=scores/nnunet" in capsys.readouterr().out
