"""The report's tables, also as CSV, LaTeX and Markdown."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

from ..definitions import is_distance
from .inputs import ReportInputs, Statistics
from .titles import metric_title

_LATEX = str.maketrans(
    {
        "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "−": "$-$", "–": "--", "τ": r"$\tau$",
        "<": "$<$", ">": "$>$",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        name: File name without ending.
        title: Heading.
        caption: What it shows.
        header: Names of the columns.
        rows: Cells, one list a row.
        n_text: How many columns at the left hold words rather than numbers.
        best: Cells to stress, as (row, column).
    """

    name: str
    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text: int = 1
    best: frozenset[tuple[int, int]] = frozenset()

    def csv(self) -> str:
        """Return the table as CSV."""
        stream = StringIO()
        csv.writer(stream, lineterminator="\n").writerows([self.header, *self.rows])
        return stream.getvalue()

    def markdown(self) -> str:
        """Return the table as Markdown, best values bold."""
        rule = ["---" if column < self.n_text else "---:" for column in range(len(self.header))]
        rows = [
            [f"**{cell}**" if (y, x) in self.best else cell for x, cell in enumerate(row)]
            for y, row in enumerate(self.rows)
        ]
        cells = [[_one_line(cell).replace("|", r"\|") for cell in row] for row in (self.header, rule, *rows)]
        return "\n".join(f"| {' | '.join(row)} |" for row in cells) + "\n"

    def latex(self) -> str:
        """Return the table as LaTeX, best values bold; it needs the package booktabs."""
        rows = [
            [_bold(_escaped(cell)) if (y, x) in self.best else _escaped(cell) for x, cell in enumerate(row)]
            for y, row in enumerate(self.rows)
        ]
        columns = "l" * self.n_text + "r" * (len(self.header) - self.n_text)
        body = [" & ".join(row) + r" \\" for row in rows]
        head = " & ".join(map(_escaped, self.header)) + r" \\"
        lines = [
            r"\begin{table}", r"\centering", rf"\caption{{{_escaped(self.title)}. {_escaped(self.caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule",
            r"\end{tabular}", r"\end{table}",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return _one_line(text).translate(_LATEX)


def _bold(text: str) -> str:
    return rf"\textbf{{{text}}}"


def metric_table(inputs: ReportInputs, metric: str, better: int) -> Table:
    """Return the averages of one metric, a row a label, a column a method.

    Args:
        inputs: The scores.
        metric: Name of the metric.
        better: 1 if more of it is better, -1 if less is, 0 if neither is.

    Returns:
        The table; the best mean of each row is stressed where there are several methods.
    """
    rows, best = [], set()
    for y, label in enumerate(inputs.rows):
        statistics = [method.statistics(label, metric) for method in inputs.methods]
        rows.append([inputs.label_names[label], *map(_averages, statistics)])
        means = [_comparable(one) for one in statistics]
        if better and len(means) > 1 and not all(map(math.isnan, means)):
            winner = max(better * mean for mean in means if not math.isnan(mean))
            best |= {(y, x + 1) for x, mean in enumerate(means) if better * mean == winner}
    penalty = " In brackets: the mean with each inf counted as the image's diagonal." if is_distance(metric) else ""
    caption = f"Mean ± standard deviation over cases; n: cases with a finite value; m: missed labels.{penalty}"
    header = ["label", *(method.name for method in inputs.methods)]
    return Table(f"mean_{metric}", metric_title(metric), caption, header, rows, 1, frozenset(best))


def _comparable(statistics: Statistics | None) -> float:
    mean = None if statistics is None else statistics.get("mean_inf_as_diagonal", statistics["mean"])
    return math.nan if mean is None else float(mean)


def _averages(statistics: Statistics | None) -> str:
    if statistics is None or not (statistics["n"] or statistics["n_missed"] or statistics["n_spurious"]):
        return "–"
    std = "" if statistics["std"] is None else f" ± {number(statistics['std'])}"
    missed = f", m {statistics['n_missed']}" if statistics["n_missed"] else ""
    penalised = statistics.get("mean_inf_as_diagonal")
    bracket = f" [{number(penalised)}]" if penalised is not None and penalised != statistics["mean"] else ""
    return f"{number(statistics['mean'])}{std}{bracket} (n {statistics['n']}{missed})"


def number(value: float | None) -> str:
    """Return a number as the tables show it.

    Args:
        value: Any number, or None.

    Returns:
        Three digits after the point below 10, else fewer; a dash for None and nan.
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "inf" if value > 0 else "−inf"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:.{digits}f}".replace("-", "−")


def differences_table(inputs: ReportInputs) -> Table:
    """Return what the cases say about each pair of methods."""
    rows = []
    for comparison in inputs.comparisons:
        for pair, result in comparison.pairs.items():
            rows.append(
                [
                    inputs.label_names[comparison.label],
                    metric_title(comparison.metric),
                    f"{pair[0]} − {pair[1]}",
                    number(result.difference),
                    f"[{number(result.low)}, {number(result.high)}]",
                    _probability(comparison.p_holm[pair]),
                    number(result.correlation),
                    _probability(result.false_claim),
                    str(len(comparison.cases)),
                ]
            )
    header = ["label", "metric", "methods", "difference", "95 % interval", "p (Holm)", "r", "false claim", "cases"]
    caption = (
        "Mean difference over cases with its BCa bootstrap interval, Wilcoxon test after Holm, correlation r of the "
        "two methods' values, and the probability that a claim of the better mean to be better is false."
    )
    return Table("differences", "Paired differences", caption, header, rows, 3)


def rankings_table(inputs: ReportInputs) -> Table:
    """Return the ranks of the methods by metric and way of ranking."""
    rows = []
    for comparison in inputs.comparisons:
        for way, ranking in comparison.rankings.items():
            what = [inputs.label_names[comparison.label], metric_title(comparison.metric), way.replace("_", " ")]
            rows.append([*what, *map(_rank, ranking.ranks), number(ranking.tau)])
    header = ["label", "metric", "way of ranking", *(method.name for method in inputs.methods), "τ"]
    caption = "Ranks, 1 the best, ties averaged; τ: mean Kendall correlation with rankings of bootstrap samples."
    return Table("rankings", "Rankings", caption, header, rows, 3)


def _rank(rank: float) -> str:
    return f"{rank:g}"


def _probability(p: float) -> str:
    return "–" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def cases_table(inputs: ReportInputs) -> Table:
    """Return the value of each case, mean over labels, by method and metric."""
    cases = sorted({case for method in inputs.methods for case in method.stored.cases})
    several = len(inputs.methods) > 1
    header = ["case"]
    for metric in inputs.metrics:
        header += [f"{metric_title(metric)}{f', {method.name}' if several else ''}" for method in inputs.methods]
    rows = [
        [
            case,
            *(number(m.case_value(case, inputs.overall, metric)) for metric in inputs.metrics for m in inputs.methods),
        ]
        for case in cases
    ]
    caption = (
        f"{inputs.label_names[inputs.overall]}: mean over the labels with a finite value. Click a heading to sort."
    )
    return Table("cases", "All cases", caption, header, rows)
