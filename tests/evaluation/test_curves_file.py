"""`curves.json` that is missing, another file or damaged."""

import pytest

from evaluation.curves_file import read_curves
from evaluation.errors import EvaluationError


def test_other_files_are_not_read_as_curves(tmp_path):
    with pytest.raises(EvaluationError, match="score with --also calibration"):
        read_curves(tmp_path)
    (tmp_path / "curves.json").write_text('{"format": "plot"}')
    with pytest.raises(EvaluationError, match="must be of format segmentation-curves 1, got"):
        read_curves(tmp_path)
    (tmp_path / "curves.json").write_text('{"format": "segmentation-curves", "format_version": 1}')
    with pytest.raises(EvaluationError, match="is damaged"):
        read_curves(tmp_path / "curves.json")
