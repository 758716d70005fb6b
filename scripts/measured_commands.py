"""Run a command on few threads of the CPU, its output in a log, and measure the CPU seconds that it takes."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil


def run_measured(
    command: Sequence[str],
    log: Path,
    threads: int,
    *,
    first: str | None = None,
    last: str | None = None,
    stop: bool = False,
) -> float:
    """Run a command to its end; whatever interrupts this ends it too, with all that it has started.

    Args:
        command: Program and arguments.
        log: File that its output is appended to.
        threads: CPU threads of each of its processes.
        first: Pattern in its output from which on CPU seconds count; none: from its start.
        last: Pattern in its output up to which they count; none, or never seen: to its end.
        stop: Whether to end it at `last`, which then must be seen.

    Returns:
        CPU seconds of the command and of all that it has started.

    Raises:
        SystemExit: If it fails, or ends before both patterns were seen where `stop` needs them.
    """
    limits = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(threads), "nnUNet_n_proc_DA": "1"}
    limits["PYTHONUNBUFFERED"] = "1"  # or a pattern is in the log long after it was printed
    # threads that spin while they wait would count as work, and take the cores of other cells
    patient = {"OMP_WAIT_POLICY": "PASSIVE"}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream:
        start, before = stream.tell(), _cpu_of_ended_children()
        run = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**patient, **os.environ, **limits},
            start_new_session=True,
        )
        try:
            between = None if last is None else _cpu_between(run, log, start, first, last)
            if stop and between is not None:
                return between
            if run.wait() != 0 or stop:
                raise SystemExit(f"the command ended with exit code {run.returncode}; see {log}")
            return _cpu_of_ended_children() - before if between is None else between
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()


def _cpu_between(run: subprocess.Popen, log: Path, start: int, first: str | None, last: str) -> float | None:
    """Return the CPU seconds between two patterns in what a process writes; None if it ends before."""
    at_first = 0.0 if first is None else None
    while run.poll() is None:
        with log.open("rb") as stream:
            stream.seek(start)
            text = stream.read().decode("utf-8", errors="replace")
        now = _cpu_seconds(run.pid)
        if at_first is None and re.search(str(first), text):
            at_first = now
        if re.search(last, text):
            if at_first is None:
                raise SystemExit(f"{last!r} came before {first!r}; see {log}")
            return now - at_first
        time.sleep(0.2)
    return None


def _cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process and of all below it, those that have ended included."""
    process, seconds = psutil.Process(pid), 0.0
    for part in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile: its parent has counted it
            times = part.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _cpu_of_ended_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
