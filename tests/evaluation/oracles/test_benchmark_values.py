"""What the benchmark compares: every package's values under the names of ours that mean the same, and no silence."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
import benchmark_evaluation as benchmark
from benchmark_peers import PEERS


@pytest.fixture
def label_maps(blobs):
    """Return two label maps with labels 1 and 3, clear of the image's edge."""
    maps = np.zeros((2, 30, 32, 34), np.uint8)
    for label, seed, corner in ((1, 0, 1), (3, 4, 15)):
        place = tuple(slice(corner, corner + 13) for _ in range(3))
        for label_map, mask in zip(maps, blobs(seed, (13, 13, 13)), strict=True):
            label_map[place][mask] = label
    return maps


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", [peer for peer in PEERS if not peer.startswith("ours")])
def test_values_of_each_package_agree_with_ours(peer, label_maps):
    module, function = PEERS[peer]
    pytest.importorskip(module, reason=f"needs {module} (pip install -e '.[benchmark]')")
    known = {}
    for name in ("ours", "ours, dual", "ours, union"):
        known |= PEERS[name][1](*label_maps, [1, 3])
    values = function(*label_maps, [1, 3])
    assert {key.split()[0] for key in values} == {"1", "3"}
    assert set(values) <= set(known)
    apart = benchmark.differences(values, known)
    assert len(apart) == len(values) > 0
    assert max(apart) < 1e-5


def test_differences_count_a_nan_or_an_infinity_on_one_side_only():
    same = {"a": 1.0, "b": math.nan, "c": math.inf}
    assert benchmark.differences(same, {**same, "d": 5.0}) == [0, 0, 0]
    assert benchmark.differences({"a": 1.0}, {"a": math.nan}) == [math.inf]
    assert benchmark.differences({"a": math.inf}, {"a": 1.0}) == [math.inf]
    assert benchmark.differences({"a": math.inf}, {"a": -math.inf}) == [math.inf]
    assert benchmark.differences({"a": 1.0}, {"b": 1.0}) == []


@pytest.fixture
def compared(monkeypatch, capsys):
    """Return what compares made-up measurements and gives the verdict and what was printed."""

    def run(**values):
        results = {
            peer: {"cpu_s": 1, "wall_s": 1, "added_mb": 1, "values": found} if isinstance(found, dict) else found
            for peer, found in values.items()
        }
        monkeypatch.setattr(benchmark, "_best_of", lambda peer, *_: results[peer])
        monkeypatch.setattr(benchmark, "make_pair", lambda volume: np.zeros((2, 2, 2, 2), np.uint8))
        verdict = benchmark.compare(["abdomen"], list(results), 1, 1)
        return verdict, capsys.readouterr()

    return run


def test_equal_values_are_agreement_and_different_ones_are_not(compared):
    assert compared(ours={"1 dice": 0.5}, medpy={"1 dice": 0.5})[0]
    assert not compared(ours={"1 dice": 0.5}, medpy={"1 dice": 0.6})[0]
    assert not compared(ours={"1 dice": 0.5}, medpy={"1 dice": math.nan})[0]


@pytest.mark.parametrize("peer", [{}, {"1 other": 0.5}, "not installed", "failed: no memory"])
def test_nothing_compared_is_no_agreement(compared, peer):
    verdict, printed = compared(ours={"1 dice": 0.5}, medpy=peer)
    assert not verdict
    assert "error: needs values of ours and of another package to compare, got none" in printed.err
    if isinstance(peer, dict):
        assert "nan: none compared" in printed.out


def test_packages_are_compared_with_ours_and_not_with_each_other(compared):
    assert not compared(medpy={"1 dice": 0.5}, monai={"1 dice": 0.5})[0]
