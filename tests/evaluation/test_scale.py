"""Many cases and large ones: all scored, the defective one named, memory bounded in every process."""

import csv
import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

psutil = pytest.importorskip("psutil")


def nifti_bytes(array):
    """Return a label map (z, y, x) as a compressed file, made in a hurry."""
    image = nib.Nifti1Image(array.T, np.diag([0.8, 0.8, 2.5, 1.0]))
    return gzip.compress(image.to_bytes(), compresslevel=1)


def write_cases(workspace, n_cases, reference, predictions):
    """Write a folder of cases, the predictions in turn; case 7 has half a file."""
    for number in range(n_cases):
        prediction = predictions[number % len(predictions)]
        half = prediction[: len(prediction) // 2]
        (workspace.references / f"case_{number:04d}.nii.gz").write_bytes(reference)
        (workspace.predictions / f"case_{number:04d}.nii.gz").write_bytes(half if number == 7 else prediction)


def peak_mb(pid):
    """Return the most memory that a process has held so far; where the system doesn't keep it, what it holds now."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return psutil.Process(pid).memory_info().rss / 2**20
    line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def run_watched(workspace, *options):
    """Run the command in a process of its own and watch its memory and that of the processes that it starts.

    Returns:
        Exit code, stderr, the peak of the process itself in MB, and those of its workers by their number.
    """
    command = [sys.executable, "-m", "evaluation.test3d", "--workers", "2", *options]
    for name in ("predictions", "references"):
        command += [f"--{name}", str(getattr(workspace, name))]
    errors = workspace.root / "stderr.txt"
    with errors.open("w") as stream, subprocess.Popen(
        [*command, "--output", str(workspace.scores)], stdout=subprocess.DEVNULL, stderr=stream
    ) as running:  # fmt: skip
        own, of_workers = 0.0, {}
        process = psutil.Process(running.pid)
        while running.poll() is None:
            try:
                own = max(own, peak_mb(running.pid))
                for child in process.children(recursive=True):
                    if "spawn_main" in " ".join(child.cmdline()):
                        of_workers[child.pid] = max(of_workers.get(child.pid, 0.0), peak_mb(child.pid))
            except (psutil.Error, OSError, StopIteration):
                pass  # it ended between two looks
            time.sleep(0.02)
    return running.returncode, errors.read_text(), own, of_workers


def rows_of(workspace):
    with (workspace.scores / "metrics.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def assert_all_but_case_7(workspace, n_cases, code, errors):
    summary = json.loads((workspace.scores / "summary.json").read_text())
    assert code == 1
    assert f"error: case case_0007 not scored: {workspace.predictions / 'case_0007.nii.gz'}: can't be read" in errors
    assert [failure["case"] for failure in summary["failures"]] == ["case_0007"]
    assert summary["n_cases"] == n_cases - 1
    return summary


@pytest.fixture
def small():
    """Return a reference and three predictions of 24 x 24 x 12 voxels: perfect, moved by a voxel, label 2 missed."""
    reference = np.zeros((12, 24, 24), np.uint8)
    reference[3:8, 4:14, 4:14], reference[3:8, 16:21, 16:21] = 1, 2
    predictions = [reference, np.roll(reference, 1, axis=2), np.where(reference == 2, 0, reference)]
    return nifti_bytes(reference), [nifti_bytes(prediction) for prediction in predictions]


def test_thousand_cases_are_scored_by_two_processes_in_bounded_memory(workspace, small):
    peaks = []
    for n_cases in (100, 1000):
        for folder in (workspace.predictions, workspace.references):
            for path in folder.iterdir():
                path.unlink()
        write_cases(workspace, n_cases, *small)
        code, errors, own, of_workers = run_watched(workspace)
        summary = assert_all_but_case_7(workspace, n_cases, code, errors)
        peaks.append(own)
    # a third each: perfect (334 cases), moved by a voxel (333, case 7 among them), label 2 missed (333)
    statistics = summary["labels"]["2"]["metrics"]["hd_mm"]
    assert (statistics["n"], statistics["n_missed"], statistics["n_na"]) == (666, 333, 0)
    assert statistics["mean"] == pytest.approx(0.8 * 332 / 666)
    dice = {row["case"]: float(row["value"]) for row in rows_of(workspace) if row["metric"] == "dice"}
    assert len(dice) == 999
    assert len(rows_of(workspace)) == 999 * 2 * 15
    assert peaks[1] - peaks[0] < 30  # MB for 900 cases more
    assert max(of_workers.values()) < 300


@pytest.mark.slow
def test_large_volumes_are_scored_in_bounded_memory_of_every_process(workspace):
    z, y, x = np.ogrid[:100, :512, :512]
    reference = np.zeros((100, 512, 512), np.uint8)
    for label, (at, radius) in enumerate([((50, 200, 200), 40), ((40, 350, 300), 30), ((70, 120, 380), 20)], start=1):
        reference[(z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 <= radius**2] = label
    predictions = [nifti_bytes(np.roll(reference, step, axis=2)) for step in (0, 2)]
    write_cases(workspace, 30, nifti_bytes(reference), predictions)
    code, errors, own, of_workers = run_watched(workspace)
    summary = assert_all_but_case_7(workspace, 30, code, errors)
    # 15 perfect cases, 14 moved by 2 voxels of 0.8 mm
    for label in "123":
        statistics = summary["labels"][label]["metrics"]["hd_mm"]
        assert statistics["n"] == 29
        assert statistics["mean"] == pytest.approx(2 * 0.8 * 14 / 29)
    volume_mb = reference.nbytes / 2**20
    assert max(of_workers.values()) < 225 + 4 * volume_mb  # two volumes, what they are read from, masks
    assert own < 300
