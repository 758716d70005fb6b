"""How often each method has each rank when other cases are drawn."""

import numpy as np

from ...rankings import RANKINGS
from ..inputs import ReportInputs
from ..style import Picture, as_picture, method_color, new_figure
from ..titles import metric_title

_LARGEST_AREA = 900.0
_WAYS = {
    "aggregate_then_rank": "aggregate, then rank",
    "rank_then_aggregate": "rank, then aggregate",
    "test_then_rank": "test, then rank",
}


def draw_rank_stability(inputs: ReportInputs) -> Picture:
    """Draw blobs: area by the share of bootstrap samples, for three ways of ranking and each metric.

    Args:
        inputs: The scores of at least two methods, compared.

    Returns:
        The picture.

    Source:
        Wiesenfarth et al. 2021, Scientific Reports 11:2369 (challengeR).
    """
    shown = [c for c in inputs.comparisons if c.label == inputs.overall and c.rankings]
    names = [method.name for method in inputs.methods]
    n_methods = len(names)
    width, height = 3 * max(2.7, 0.8 * n_methods + 0.9), len(shown) * max(2.1, 0.55 * n_methods + 0.9)
    figure, axes = new_figure(width, height + 0.3, len(shown), len(RANKINGS), sharey=True)
    for row, comparison in enumerate(shown):
        for column, way in enumerate(RANKINGS):
            one, ranking = axes[row * len(RANKINGS) + column], comparison.rankings[way]
            order = np.argsort(ranking.ranks, kind="stable")
            for x, number in enumerate(order):
                shares = ranking.rank_shares[number]
                color = method_color(int(number))
                one.scatter(
                    np.full(n_methods, x), np.arange(n_methods) + 1, s=_LARGEST_AREA * shares, c=color, alpha=0.6
                )
                one.plot([x], [ranking.ranks[number]], "x", color="black", ms=6)
            one.set_xticks(range(n_methods), [names[number] for number in order], rotation=25, ha="right")
            one.set_xlim(-0.6, n_methods - 0.4)
            one.set_ylim(n_methods + 0.6, 0.4)
            one.set_yticks(range(1, n_methods + 1))
            if not np.isnan(ranking.tau):
                one.set_xlabel(f"τ = {ranking.tau:.2f}", fontsize=8)
            if row == 0:
                one.set_title(_WAYS[way])
            if column == 0:
                one.set_ylabel(f"{metric_title(comparison.metric)}\nrank")
    caption = (
        f"{inputs.label_names[inputs.overall]}. Area: share of bootstrap samples in which a method has that rank; "
        "cross: rank on all cases; τ: mean Kendall correlation with the rankings of the samples."
    )
    return as_picture(figure, "rank_stability", "Rankings and their stability", caption)
