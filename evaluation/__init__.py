"""Metrics for segmentations: exact, in mm, with a declared policy for empty masks.

`score` works on arrays; `python -m evaluation.test3d` and `python -m evaluation.test2d` work on folders.
"""

from .label_score import LabelScore, Scores
from .metric_options import MetricOptions
from .scoring import score

__all__ = ["LabelScore", "MetricOptions", "Scores", "score"]
