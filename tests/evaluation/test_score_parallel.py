"""Several processes: same result, light, and robust against one that dies."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from evaluation.parallel import run_tasks


def square_or_die(task):
    if task == 3:
        os._exit(9)
    return task * task


def say_and_sleep(task):
    print(os.getpid(), flush=True)
    time.sleep(300)


def lost(task):
    return f"lost {task}"


def test_parallel_equals_serial(workspace, blobs):
    for seed in range(5):
        reference, prediction = blobs(seed, (12, 14, 16))
        workspace.pair(reference.astype(np.uint8) * (seed % 2 + 1), prediction, case=f"case_{seed}")
    workspace.nifti(workspace.predictions / "orphan.nii.gz", prediction)
    serial = workspace.run("--workers", "1", output=workspace.root / "serial")
    parallel = workspace.run("--workers", "2", output=workspace.root / "parallel")
    assert serial.code == parallel.code == 1
    files = ("metrics.csv", "summary.json")
    for name in files:
        assert (workspace.root / "serial" / name).read_bytes() == (workspace.root / "parallel" / name).read_bytes()


def test_task_whose_process_dies_takes_no_other_with_it():
    results = dict(run_tasks(square_or_die, range(5), workers=2, when_worker_dies=lost))
    assert results == {i: "lost 3" if i == 3 else i * i for i in range(5)}


def test_workers_end_with_a_parent_that_is_killed():
    code = "from test_score_parallel import *; list(run_tasks(say_and_sleep, [0, 1], 2, lost))"
    folders = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": folders}
    ) as parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        assert len({parent.pid, *workers}) == 3
        parent.kill()
        try:
            left, _ = parent.communicate(timeout=20)  # ends when no process holds the pipe any more
            assert left == b""
        finally:
            for worker in workers:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)


def test_serial_tasks_stay_in_this_process():
    assert list(run_tasks(lambda task: task + 1, [1, 2], workers=1, when_worker_dies=lost)) == [(0, 2), (1, 3)]


@pytest.mark.parametrize("module", ["evaluation.test3d"])
def test_evaluation_imports_nothing_heavy(module):
    heavy = ("torch", "monai", "nnunetv2", "SimpleITK", "scipy.ndimage", "skimage", "submitit", "highdicom")
    code = f"import sys, {module}; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
