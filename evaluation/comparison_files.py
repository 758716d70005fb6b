"""What a comparison leaves on disk, and what it prints."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .comparison import MetricComparison
from .errors import EvaluationError
from .output import renamed_when_complete
from .paired_tests import CONFIDENCE, SIGNIFICANCE
from .score_files import FOREGROUND
from .summary import versions

_ENOUGH = 6
"""With fewer cases or patients no Wilcoxon test reaches 5 %."""

COMPARISON_FILE, DIFFERENCES_FILE, RANKINGS_FILE = "comparison.json", "differences.csv", "rankings.csv"

DEFINITIONS = {
    "cases": "those that every method has a value for; a value of inf counts as the length of the image's diagonal",
    "foreground": "mean over the labels other than 0 that every method has a value for, within each case",
    "difference": "mean over cases of the first method's value minus the second's",
    "interval": (
        f"{CONFIDENCE:.0%} confidence interval of the difference: BCa bootstrap over patients (over cases, where no "
        "table of patients was given), all cases of a patient drawn together"
    ),
    "p": "two-sided Wilcoxon signed-rank test of the patients' mean differences, differences of 0 left out",
    "p_holm": "p adjusted by Holm's method for all pairs of methods of the same label and metric",
    "n_greater, n_less": "cases in which the first method's value is greater, and less, than the second's",
    "correlation": "Pearson's correlation of the two methods' values over cases",
    "false_claim": (
        "probability that the method with the better mean isn't better in truth: Student's t with n - 1 degrees of "
        "freedom at -sqrt(n) |mean difference| / sqrt(sA^2 + sB^2 - 2 r sA sB), arXiv:2505.04720; it takes cases as "
        "independent"
    ),
    "aggregate_then_rank": "methods ordered by the mean of their values",
    "rank_then_aggregate": "methods ordered by the mean of their ranks within cases",
    "test_then_rank": (
        f"methods ordered by how many others are worse by a one-sided Wilcoxon test at {SIGNIFICANCE:g}, Holm over all "
        "ordered pairs"
    ),
    "rank_shares": "share of bootstrap samples (of patients) in which a method has rank 1, 2, ...; ties rounded down",
    "tau": "mean Kendall tau-b between the ranking and those of the bootstrap samples",
}


def write_comparison(
    folder: Path, methods: Sequence[str], comparisons: Sequence[MetricComparison], content: Mapping[str, Any]
) -> tuple[Path, Path, Path]:
    """Write comparison.json, differences.csv and rankings.csv, all complete or none.

    Args:
        folder: Folder; made if it doesn't exist.
        methods: Names of the methods.
        comparisons: What was found, by label and metric.
        content: Further entries of comparison.json, plain JSON values.

    Returns:
        Paths of the three files.

    Raises:
        EvaluationError: If they can't be written.
    """
    paths = tuple(folder / name for name in (COMPARISON_FILE, DIFFERENCES_FILE, RANKINGS_FILE))
    plain = {
        "format": "segmentation-comparison",
        "format_version": 1,
        "methods": list(methods),
        "comparisons": [_plain(comparison, methods) for comparison in comparisons],
        "definitions": DEFINITIONS,
        "versions": versions(),
        **content,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with renamed_when_complete(*paths) as (json_part, differences_part, rankings_part):
            json_part.write_text(json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
            _write_rows(differences_part, _difference_rows(comparisons))
            _write_rows(rankings_part, _ranking_rows(methods, comparisons))
    except OSError as error:
        raise EvaluationError(f"--output {folder}: can't be written: {error.strerror}; choose another") from error
    return paths[0], paths[1], paths[2]


def _plain(comparison: MetricComparison, methods: Sequence[str]) -> dict[str, Any]:
    means = comparison.values.mean(axis=0).tolist()
    return {
        "label": comparison.label,
        "label_name": comparison.label_name,
        "metric": comparison.metric,
        "better": {1: "more", -1: "less", 0: None}[comparison.better],
        "n_cases": len(comparison.cases),
        "n_patients": comparison.n_patients,
        "cases": list(comparison.cases),
        "methods": {
            name: {"mean": means[i], "n_infinite": comparison.n_infinite[i], "values": comparison.values[:, i].tolist()}
            for i, name in enumerate(methods)
        },
        "pairs": [
            {
                "first": first,
                "second": second,
                "difference": result.difference,
                "interval": [_number(result.low), _number(result.high)],
                "p": result.p,
                "p_holm": comparison.p_holm[first, second],
                "n_greater": result.n_greater,
                "n_less": result.n_less,
                "correlation": _number(result.correlation),
                "false_claim": _number(result.false_claim),
            }
            for (first, second), result in comparison.pairs.items()
        ],
        "rankings": {
            way: {
                "ranks": dict(zip(methods, ranking.ranks.tolist(), strict=True)),
                "rank_shares": dict(zip(methods, ranking.rank_shares.round(4).tolist(), strict=True)),
                "tau": _number(ranking.tau),
            }
            for way, ranking in comparison.rankings.items()
        },
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write_rows(path: Path, rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def _difference_rows(comparisons: Sequence[MetricComparison]) -> list[list[object]]:
    header = "label label_name metric first second n_cases n_patients difference low high p p_holm correlation"
    rows: list[list[object]] = [[*header.split(), "false_claim", "n_greater", "n_less"]]
    for comparison in comparisons:
        for (first, second), r in comparison.pairs.items():
            what = (comparison.label, comparison.label_name, comparison.metric, first, second, r.n_cases, r.n_clusters)
            p_holm = comparison.p_holm[first, second]
            rows.append(
                [*what, r.difference, r.low, r.high, r.p, p_holm, r.correlation, r.false_claim, r.n_greater, r.n_less]
            )
    return rows


def _ranking_rows(methods: Sequence[str], comparisons: Sequence[MetricComparison]) -> list[list[object]]:
    shares = [f"share_rank_{rank + 1}" for rank in range(len(methods))]
    rows: list[list[object]] = [["label", "label_name", "metric", "ranking", "method", "rank", *shares, "tau"]]
    for comparison in comparisons:
        what = (comparison.label, comparison.label_name, comparison.metric)
        for way, ranking in comparison.rankings.items():
            for name, rank, by_rank in zip(methods, ranking.ranks, ranking.rank_shares, strict=True):
                rows.append([*what, way, name, rank, *by_rank.round(4).tolist(), ranking.tau])
    return rows


def format_comparison(methods: Sequence[str], comparisons: Sequence[MetricComparison]) -> str:
    """Lay out the comparisons of the foreground, or of every label if there is no such mean.

    Args:
        methods: Names of the methods.
        comparisons: What was found, by label and metric.

    Returns:
        Text to print.
    """
    shown = [comparison for comparison in comparisons if comparison.label == FOREGROUND] or list(comparisons)
    width = max(len(name) for name in methods)
    parts = []
    for comparison in shown:
        people = f", {comparison.n_patients} patients" if comparison.n_patients != len(comparison.cases) else ""
        lines = [f"{comparison.label_name}, {comparison.metric}: {len(comparison.cases)} cases{people}"]
        ranks = [ranking.ranks for ranking in comparison.rankings.values()]
        lines.append(f"  {'':{width}}      mean" + ("   rank by mean, by ranks, by tests" if ranks else ""))
        for i, name in enumerate(methods):
            places = "   ".join(f"{by_way[i]:g}" for by_way in ranks)
            top = comparison.rankings["aggregate_then_rank"].rank_shares[i, 0] if ranks else math.nan
            first = f"   first in {top:.0%} of samples" if ranks else ""
            n_infinite = comparison.n_infinite[i]
            infinite = f"   ({n_infinite} inf)" if n_infinite else ""
            lines.append(
                f"  {name:{width}}  {comparison.values[:, i].mean():8.3f}   {places}{first}{infinite}".rstrip()
            )
        for (first_name, second_name), result in comparison.pairs.items():
            interval = "no interval" if math.isnan(result.low) else f"[{result.low:+.4f}, {result.high:+.4f}]"
            chance = f", the better mean is so by chance with {result.false_claim:.1%}" if comparison.better else ""
            lines.append(
                f"  {first_name} - {second_name}: {result.difference:+.4f} {interval}, "
                f"greater in {result.n_greater} and less in {result.n_less} cases, "
                f"p = {comparison.p_holm[first_name, second_name]:.3g} (Holm), correlation {result.correlation:.2f}"
                + (
                    chance
                    if result.n_clusters >= _ENOUGH
                    else f"; {result.n_clusters} are too few for Wilcoxon's test to reach 5 %"
                )
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
