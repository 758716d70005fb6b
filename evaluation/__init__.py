"""Metrics for segmentations: exact, in mm, with a declared policy for empty masks.

`score` works on arrays; `python -m evaluation.test3d` and `python -m evaluation.test2d` work on folders.
"""

from .scoring import LabelScore, Scores, score

__all__ = ["LabelScore", "Scores", "score"]
