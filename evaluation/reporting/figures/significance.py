"""Which method is significantly better than which."""

import numpy as np
from matplotlib.colors import ListedColormap

from ...paired_tests import SIGNIFICANCE
from ..inputs import ReportInputs
from ..style import Picture, as_picture, facets
from ..titles import metric_title

_COLORS = ListedColormap(["#e8a598", "#eeeeee", "#a6d5b5"])


def draw_significance(inputs: ReportInputs) -> Picture:
    """Draw a map of methods by methods for each metric of the whole segmentation.

    Args:
        inputs: The scores of at least two methods, compared.

    Returns:
        The picture.
    """
    shown = [c for c in inputs.comparisons if c.label == inputs.overall and c.better]
    names = [method.name for method in inputs.methods]
    size = 1.4 + 0.75 * len(names)
    figure, axes = facets(
        [metric_title(comparison.metric) for comparison in shown], max(size, 2.8), max(size - 0.4, 2.2)
    )
    for one, comparison in zip(axes, shown, strict=True):
        verdicts = np.zeros((len(names), len(names)))
        texts = np.full((len(names), len(names)), "", dtype=object)
        for (first, second), result in comparison.pairs.items():
            a, b = names.index(first), names.index(second)
            p = comparison.p_holm[first, second]
            sure = result.is_sure(p)
            verdict = comparison.better * np.sign(result.difference) if sure else 0
            verdicts[a, b], verdicts[b, a] = verdict, -verdict
            digits = 3 if abs(result.difference) < 10 else 1
            mark = "\n≠ test" if p < SIGNIFICANCE and not sure else ""
            texts[a, b], texts[b, a] = (f"{sign * result.difference:+.{digits}f}{mark}" for sign in (1, -1))
        one.imshow(verdicts, cmap=_COLORS, vmin=-1, vmax=1)
        for y, x in np.ndindex(texts.shape):
            one.text(x, y, str(texts[y, x]), ha="center", va="center", fontsize=8)
        one.set_xticks(range(len(names)), names, rotation=30, ha="right")
        one.set_yticks(range(len(names)), names)
        one.grid(visible=False)
    what = inputs.label_names[inputs.overall]
    caption = (
        f"{what}: mean difference, row minus column. Green: the row is better, red: worse, by a Wilcoxon test below "
        f"{SIGNIFICANCE:g} after Holm's adjustment; grey: not decided by these cases. ≠ test: most cases say the "
        "opposite of the mean, which a few large differences have turned."
    )
    return as_picture(figure, "significance", "Who is better than whom", caption)
