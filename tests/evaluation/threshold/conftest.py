"""The command on the folders of a workspace, and what it is run on."""

import numpy as np
import pytest
from threshold_cases import SHAPE, write

from evaluation import threshold


@pytest.fixture
def run(workspace, capsys):
    """Run the command on the workspace's folders; return exit code, stdout, stderr."""

    def start(*options, output="chosen", predictions=None, references=True):
        arguments = ["--predictions", predictions or workspace.predictions, "--output", workspace.root / output]
        arguments += ["--references", workspace.references] if references else []
        arguments += [] if "--workers" in options else ["--workers", "1"]
        code = threshold.main([str(argument) for argument in (*arguments, *options)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return start


@pytest.fixture
def timid(workspace):
    """Three cases whose label has probabilities from 0.3 up and whose background has less than 0.25."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        reference = rng.random(SHAPE) < 0.3
        write(workspace, f"case_{seed}", reference, np.where(reference, rng.uniform(0.3, 1, SHAPE), 0.2499))
    return workspace


@pytest.fixture
def two_labels(workspace):
    """One case in which label 1, label 2, or none has a probability of 0.6."""
    p = np.zeros((3, 1, 1, 3), np.float32)
    p[1, 0, 0], p[2, 0, 0] = [0.6, 0.4, 0.0], [0.0, 0.6, 0.0]
    p[0] = 1 - p[1] - p[2]
    write(workspace, "case", np.array([[[1, 2, 0]]]), None, probabilities=p)
    return workspace
