"""The commands that people type, as processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

TINY = {
    "max_epochs": 1,
    "iterations_per_epoch": 5,
    "batch_size": 2,
    "image_size": "[32,32]",
    "num_workers": 0,
    "cache_dir": "cache",
}


def command(bundle, *names: str, launcher=("-m",), **options) -> list[str]:
    files = "[" + ",".join(f"'bundles/{bundle.name}/{name}.json'" for name in names) + "]"
    given = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    return [sys.executable, *launcher, "monai.bundle", "run", "--config_file", files, *given]


def environment(repository: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}


def start(arguments: list[str], repository: Path, cwd: Path) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # what a shell starts in the background ignores Ctrl-C, and so would these
    listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(
        arguments, cwd=cwd, env=environment(repository), start_new_session=True, **pipes, **listening
    )


def run(arguments: list[str], repository: Path, cwd: Path, timeout_s: float = 400) -> subprocess.CompletedProcess:
    process = start(arguments, repository, cwd)
    out, err = finish(process, timeout_s)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def finish(process: subprocess.Popen, timeout_s: float) -> tuple[str, str]:
    """Wait for a process; return what it printed."""
    try:
        return process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
        out, err = process.communicate()
        pytest.fail(f"still running after {timeout_s} s:\n{out[-1500:]}\n{err[-1500:]}")


def wait_for(file: Path, timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not file.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.fixture
def place(tmp_path, repository) -> Path:
    """A working directory that looks like the repository's root."""
    (tmp_path / "bundles").symlink_to(repository / "bundles")
    return tmp_path


def test_demo_command_trains_validates_and_says_what_comes_next(bundle, place, repository, tiny_phantom):
    options = {**TINY, "dataset_dir": tiny_phantom, "output_dir": "demo"}
    finished = run(command(bundle, "train", "demo", **options), repository, cwd=place)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert {"model_best.pt", "checkpoint_last.pt"} <= {path.name for path in (place / "demo").iterdir()}
    assert "epoch 1: mean Dice" in finished.stdout
    assert f"bundles/{bundle.name}/inference.json --ckpt_dir demo" in finished.stdout
    assert "training" in finished.stderr, "no progress bar"
    assert {path.name for path in place.iterdir()} == {"bundles", "cache", "demo"}


def test_mistyped_option_is_refused_before_anything_is_done(bundle, place, repository):
    finished = run(command(bundle, "train", "demo", max_epohcs=1), repository, cwd=place)
    assert finished.returncode == 1
    assert "error: --max_epohcs: unknown option; did you mean --max_epochs?" in finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
    assert [path.name for path in place.iterdir()] == ["bundles"], "something was written"


@pytest.mark.slow
@pytest.mark.parametrize("option", ["settings", "fold", "dataset_dir"])
def test_wrong_value_is_refused_without_a_traceback(bundle, trained, place, repository, option):
    wrong = {
        "settings": ({"output_dir": trained.ckpt_dir, "image_size": "[64,64]"}, "other settings"),
        "fold": ({"fold": 7}, "fold: need 0 to 4 or all, got 7"),
        "dataset_dir": ({"dataset_dir": "nowhere"}, "nowhere, which does not exist"),
    }[option]
    options = {**TINY, **trained.options, "output_dir": "run", **wrong[0]}
    finished = run(command(bundle, "train", **options), repository, cwd=place)
    assert finished.returncode == 1
    assert wrong[1] in finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr


def state(folder: Path) -> dict:
    return torch.load(folder / "checkpoint_last.pt", weights_only=True)


@pytest.mark.slow
def test_killed_process_continues_to_the_same_weights(bundle, place, repository, tiny_phantom):
    options = {**TINY, **bundle.small, "max_epochs": 3, "iterations_per_epoch": 15, "dataset_dir": tiny_phantom}
    options["val_interval"] = 1
    whole = run(command(bundle, "train", **options, output_dir="whole"), repository, cwd=place)
    assert whole.returncode == 0, whole.stderr[-3000:]

    parts = command(bundle, "train", **options, output_dir="parts")
    process = start(parts, repository, place)
    wait_for(place / "parts" / "checkpoint_last.pt")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    assert state(place / "parts")["epoch"] < 3

    rest = run(parts, repository, cwd=place)
    assert rest.returncode == 0, rest.stderr[-3000:]
    assert "continuing from" in rest.stdout
    a, b = state(place / "whole"), state(place / "parts")
    assert a["epoch"] == b["epoch"] == 3
    assert all(torch.equal(value, b["network"][key]) for key, value in a["network"].items())
    assert (a["best_metric"], a["best_metric_epoch"]) == (b["best_metric"], b["best_metric_epoch"])


@pytest.mark.slow
def test_interrupted_process_says_so_without_a_traceback(bundle, place, repository, tiny_phantom):
    options = {**TINY, **bundle.small, "max_epochs": 50, "val_interval": 50, "dataset_dir": tiny_phantom}
    process = start(command(bundle, "train", **options, output_dir="run"), repository, place)
    wait_for(place / "run" / "checkpoint_last.pt")
    process.send_signal(signal.SIGINT)
    out, err = finish(process, timeout_s=120)
    assert process.returncode != 0
    assert "interrupted; the same command continues" in err
    assert "Traceback" not in out + err


@pytest.mark.slow
def test_two_processes_train_one_network(bundle, place, repository, tiny_phantom):
    """One validation case for two processes: the second has none."""
    options = {**TINY, **bundle.small, "max_epochs": 2, "val_interval": 1, "dataset_dir": tiny_phantom}
    options["output_dir"] = "run"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
    arguments = command(bundle, "train", "multi_gpu_train", launcher=launcher, **options)
    finished = run(arguments, repository, cwd=place)
    assert finished.returncode == 0, finished.stderr[-3000:]
    content = state(place / "run")
    assert content["epoch"] == 2
    assert not any(key.startswith("module.") for key in content["network"])
    assert finished.stdout.count("epoch 2: mean Dice") == 1, "every process reports"
    run(command(bundle, "train", "evaluate", **{**options, "max_epochs": 2}), repository, cwd=place)
    assert len(list((place / "run" / "validation").glob("*.nii.gz"))) == 1
