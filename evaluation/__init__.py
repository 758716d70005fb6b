"""Metrics for segmentations: exact, in mm, with a declared policy for empty masks.

`score` and `score_probabilities` work on arrays; `python -m evaluation.test3d` and `python -m evaluation.test2d` work
on folders.
"""

from .calibration import score_probabilities
from .label_score import LabelScore, Scores
from .metric_options import MetricOptions
from .probability_scores import ProbabilityScores
from .scoring import score

__all__ = ["LabelScore", "MetricOptions", "ProbabilityScores", "Scores", "score", "score_probabilities"]
