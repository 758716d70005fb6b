"""The report's tables, also as CSV, LaTeX and Markdown."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

from ..definitions import is_distance
from ..score_files import FOREGROUND
from .inputs import ReportInputs, Statistics
from .titles import metric_title

_LATEX = str.maketrans(
    {
        "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "−": "$-$", "–": "--", "τ": r"$\tau$",
        "<": "$<$", ">": "$>$",
    }
)  # fmt: skip


_MOST_ROWS_OF_A_FLOAT = 40


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
        data: The same as plain values for CSV, its header first; one row can say more than a cell has room for.
    """

    name: str
    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text: int = 1
    best: frozenset[tuple[int, int]] = frozenset()
    data: Sequence[Sequence[object]] = ()

    def csv(self) -> str:
        """Return the table as CSV: numbers as they are, nothing where there is none."""
        stream = StringIO()
        csv.writer(stream, lineterminator="\n").writerows(self.data or [self.header, *self.rows])
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
        """Return the table as LaTeX, best values bold; it needs the packages booktabs and longtable."""
        rows = [
            [_bold(_escaped(cell)) if (y, x) in self.best else _escaped(cell) for x, cell in enumerate(row)]
            for y, row in enumerate(self.rows)
        ]
        columns = "l" * self.n_text + "r" * (len(self.header) - self.n_text)
        body = ["{}" + " & ".join(row) + r" \\" for row in rows]  # a row that begins with [ is no option of the last
        head = " & ".join(map(_escaped, self.header)) + r" \\"
        needs = r"% needs \usepackage{booktabs,longtable}"
        caption = rf"\caption{{{_escaped(self.title)}. {_escaped(self.caption)}}}"
        if len(rows) > _MOST_ROWS_OF_A_FLOAT:
            begin = [rf"\begin{{longtable}}{{{columns}}}", caption + r" \\"]
            end = [r"\end{longtable}"]
        else:
            begin = [r"\begin{table}", r"\centering", caption, rf"\begin{{tabular}}{{{columns}}}"]
            end = [r"\end{tabular}", r"\end{table}"]
        return "\n".join([needs, *begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule", *end]) + "\n"


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
        The table; the best mean of each row is stressed where several methods were scored on the same.
    """
    rows, best = [], set()
    data: list[list[object]] = [["label", "label_name", "method", *_STATISTICS]]
    same_cases = len({frozenset(method.stored.cases) for method in inputs.methods}) == 1
    same_labels = len({frozenset(label.key for label in method.labels) for method in inputs.methods}) == 1
    for y, label in enumerate(inputs.rows):
        statistics = [method.statistics(label, metric) for method in inputs.methods]
        rows.append([inputs.label_names[label], *map(_averages, statistics)])
        for method, one in zip(inputs.methods, statistics, strict=True):
            data.append([label, inputs.label_names[label], method.name, *((one or {}).get(key) for key in _STATISTICS)])
        means = [_comparable(one) for one in statistics]
        comparable = same_cases and (same_labels or label != FOREGROUND)
        if better and comparable and len(means) > 1 and not all(map(math.isnan, means)):
            winner = max(better * mean for mean in means if not math.isnan(mean))
            best |= {(y, x + 1) for x, mean in enumerate(means) if better * mean == winner}
    penalty = " In brackets: the mean with each inf counted as the image's diagonal." if is_distance(metric) else ""
    caption = (
        f"Mean ± standard deviation over cases; n: cases with a finite value; m: {inputs.missed_of} in which the label "
        f"was missed, in the mean over labels their sum.{penalty}"
        f"{' Bold: the best mean, with inf counted.' if best else ''}"
    )
    header = ["label", *(method.name for method in inputs.methods)]
    return Table(f"mean_{metric}", metric_title(metric), caption, header, rows, 1, frozenset(best), data)


_STATISTICS = ("mean", "std", "median", "n", "n_na", "n_missed", "n_spurious", "mean_inf_as_diagonal")


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
    columns = "label label_name metric first second difference low high p_holm correlation false_claim n_cases"
    data: list[list[object]] = [[*columns.split(), "n_greater", "n_less"]]
    for comparison in inputs.comparisons:
        name, n_cases = inputs.label_names[comparison.label], len(comparison.cases)
        for pair, r in comparison.pairs.items():
            p = comparison.p_holm[pair]
            interval = f"[{number(r.low)}, {number(r.high)}]"
            what = [name, metric_title(comparison.metric), f"{pair[0]} − {pair[1]}"]
            shown = [
                number(r.difference),
                interval,
                f"{r.n_greater} / {r.n_less}",
                _probability(p),
                number(r.correlation),
            ]
            rows.append([*what, *shown, _probability(r.false_claim), str(n_cases)])
            data.append([comparison.label, name, comparison.metric, *pair, r.difference, r.low, r.high, p])
            data[-1] += [r.correlation, r.false_claim, n_cases, r.n_greater, r.n_less]
    header = [
        "label",
        "metric",
        "methods",
        "difference",
        "95 % interval",
        "> / <",
        "p (Holm)",
        "r",
        "false claim",
        "cases",
    ]
    caption = (
        "Mean difference over cases with its BCa bootstrap interval, the numbers of cases in which the first is "
        "greater and less, Wilcoxon test after Holm, Pearson's correlation r of the "
        "two methods' values, and the probability that a claim of the better mean to be better is false. A value of "
        "inf counts as the image's diagonal."
    )
    return Table("differences", "Paired differences", caption, header, rows, 3, data=data)


def rankings_table(inputs: ReportInputs) -> Table:
    """Return the ranks of the methods by metric and way of ranking."""
    names = [method.name for method in inputs.methods]
    rows = []
    data: list[list[object]] = [["label", "label_name", "metric", "ranking", *names, "tau"]]
    for comparison in inputs.comparisons:
        name = inputs.label_names[comparison.label]
        for way, ranking in comparison.rankings.items():
            what = [name, metric_title(comparison.metric), way.replace("_", " ")]
            rows.append([*what, *map(_rank, ranking.ranks), number(ranking.tau)])
            data.append([comparison.label, name, comparison.metric, way, *ranking.ranks.tolist(), ranking.tau])
    header = ["label", "metric", "way of ranking", *names, "τ"]
    caption = "Ranks, 1 the best, ties averaged; τ: mean Kendall correlation with rankings of bootstrap samples."
    return Table("rankings", "Rankings", caption, header, rows, 3, data=data)


def _rank(rank: float) -> str:
    return f"{rank:g}"


def _probability(p: float) -> str:
    return "–" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def cases_table(inputs: ReportInputs) -> Table:
    """Return the value of each case, mean over labels, by method and metric."""
    cases = sorted({case for method in inputs.methods for case in method.stored.cases})
    several = len(inputs.methods) > 1
    header = ["case"]
    data: list[list[object]] = [["case", "method", *inputs.metrics]]
    for metric in inputs.metrics:
        header += [f"{metric_title(metric)}{f', {method.name}' if several else ''}" for method in inputs.methods]
    rows = []
    for case in cases:
        row = [case]
        for metric in inputs.metrics:
            for method in inputs.methods:
                value, n_infinite = method.case_value(case, inputs.overall, metric)
                row.append(f"{number(value)}{f' ({n_infinite} inf)' if n_infinite else ''}")
        rows.append(row)
        for method in inputs.methods:
            values = [method.case_value(case, inputs.overall, metric)[0] for metric in inputs.metrics]
            data.append([case, method.name, *values])
    caption = f"{inputs.label_names[inputs.overall]}; each inf counts as the image's diagonal."
    return Table("cases", "All cases", caption, header, rows, data=data)
