"""Scores of two methods, and a report of them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from report_cases import LABELS, Page, labelled, run, write

from evaluation.cases import evaluate_folder


@pytest.fixture(scope="session")
def scored(tmp_path_factory):
    """Two methods' scores of six cases with images; the second is worse, and misses a label of case 4."""
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for case in range(6):
        write(root / "labelsTs", f"case_{case}", labelled(case))
        write(root / "imagesTs", f"case_{case}_0000", rng.normal(labelled(case) * 50.0, 10).astype(np.float32))
        write(root / "good", f"case_{case}", labelled(case, errors=1 + case % 2))
        write(root / "bad", f"case_{case}", labelled(case, errors=5, miss=case == 4))
    for folder in ("good", "bad"):
        (root / folder / "dataset.json").write_text(json.dumps({"labels": LABELS}))
        evaluate_folder(root / folder, root / "labelsTs", root / "scores" / folder)
    return SimpleNamespace(root=root, good=root / "scores" / "good", bad=root / "scores" / "bad")


@pytest.fixture(scope="session")
def made(scored, tmp_path_factory):
    """A report of both methods."""
    output = tmp_path_factory.mktemp("made")
    assert run(output, "--scores", f"good={scored.good}", f"the <bad> one={scored.bad}", "--worst", "2") == 0
    return SimpleNamespace(output=output, page=Page(output / "report.html"))
