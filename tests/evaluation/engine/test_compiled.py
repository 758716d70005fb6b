"""Compiled functions are found again on disk, but not after a source of the engine changed, nor without a disk."""

import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import evaluation
from evaluation.engine import compiled

CODE = """
import numpy as np
from evaluation import score
from evaluation.engine.distances import _count_apart
scored = score(np.array([[1, 1, 0]]), np.array([[1, 0, 0]]), (1, 1))
print(scored.sensitivity, sum(_count_apart.stats.cache_hits.values()))
"""


@pytest.fixture
def copy(tmp_path):
    """Return what runs the code above with a copy of the package, whose sources can be changed."""
    package = Path(evaluation.__file__).parent
    shutil.copytree(package, tmp_path / "evaluation", ignore=shutil.ignore_patterns("__pycache__"))

    def run():
        done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    run.engine = tmp_path / "evaluation" / "engine"
    return run


@pytest.mark.slow
def test_change_of_an_inlined_function_is_not_overlooked(copy):
    assert copy() == ["0.5", "0"]
    assert copy() == ["0.5", "1"]
    source = copy.engine / "label_index.py"
    broken = source.read_text().replace("return table[value]", "return table[value] * 0")
    assert broken != source.read_text()
    source.write_text(broken)
    assert copy() != ["0.5", "1"]
    assert len(list((copy.engine / "__pycache__").glob("engine-*"))) == 1  # the old one is gone


def test_without_a_folder_to_write_functions_are_compiled_all_the_same(monkeypatch):
    monkeypatch.setattr(compiled, "cache_folder", lambda: None)
    assert compiled.compiled(lambda x: x + 1)(1) == 2
    with compiled.one_process_at_a_time():
        pass


def test_numbas_own_setting_is_left_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "cache_folder", lambda: tmp_path)
    before = numba.config.CACHE_DIR
    compiled.compiled(_increment)(1)
    assert before == numba.config.CACHE_DIR
    assert list(tmp_path.rglob("*.nbi"))


def _increment(x):
    return x + 1
