"""Score cases in jobs of a cluster, submitted through submitit, each job a share of the cases."""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .case_log import CaseLog
from .case_scores import CaseFailure, CaseScores
from .case_task import CaseTask
from .errors import EvaluationError
from .parallel import default_workers
from .score_case import warm_up_for

CLUSTERS = ("slurm", "local", "debug")
FOLDER = ".jobs"
MOST_DEFAULT_SHARDS = 64
_CASES_A_SHARD = 20
_POLL_S = 1.0

ScoreCase = Callable[[CaseTask], CaseScores | CaseFailure]


@dataclass(frozen=True)
class JobOptions:
    """How to submit jobs.

    Attributes:
        cluster: `slurm`; `local` for processes on this machine, `debug` for this process.
        shards: Number of jobs, >= 1; None for one for each 20 cases, at most 64, or one a processor if `local`.
        parameters: What submitit is told about each job, such as `slurm_partition` and `timeout_min`.
    """

    cluster: str = CLUSTERS[0]
    shards: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check that jobs can be submitted from here.

        Raises:
            EvaluationError: If an option is out of range, or a program or package is missing.
        """
        if self.cluster not in CLUSTERS:
            raise EvaluationError(f"--slurm-cluster: must be one of {', '.join(CLUSTERS)}, got {self.cluster!r}")
        if self.shards is not None and self.shards < 1:
            raise EvaluationError(f"--slurm-shards: must be >= 1, got {self.shards}")
        try:
            import submitit  # noqa: F401 - imported late because it is optional
        except ImportError:
            raise EvaluationError(
                "--slurm: needs the package submitit, which isn't installed; pip install submitit"
            ) from None
        missing = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
        if self.cluster == "slurm" and missing:
            raise EvaluationError(
                f"--slurm: needs the program {missing[0]}, which isn't found; start this on a login node of the "
                "cluster, or use this machine: --slurm-cluster local"
            )

    def split(self, n_tasks: int) -> list[range]:
        """Return which tasks each job does, evenly."""
        default = (
            default_workers() if self.cluster == "local" else min(-(-n_tasks // _CASES_A_SHARD), MOST_DEFAULT_SHARDS)
        )
        n_jobs = min(self.shards or default, n_tasks)
        return [range(first, n_tasks, n_jobs) for first in range(n_jobs)]


@dataclass(frozen=True)
class _Shard:
    """What one job does: it writes each case to the log, and skips those that are there if it is started again.

    Attributes:
        function: Scores a case.
        tasks: The cases.
        log_folder: Folder of the log.
        working_folder: Folder that relative paths start from.
    """

    function: ScoreCase
    tasks: tuple[CaseTask, ...]
    log_folder: Path
    working_folder: Path

    def __call__(self) -> list[CaseScores | CaseFailure]:
        os.chdir(self.working_folder)
        warm_up_for(self.tasks[0])
        log = CaseLog(self.log_folder)
        finished = log.finished(self.tasks)
        return [finished.get(task.case) or self._score(task, log) for task in self.tasks]

    def _score(self, task: CaseTask, log: CaseLog) -> CaseScores | CaseFailure:
        result = self.function(task)
        if isinstance(result, CaseScores):
            log.append(task, result)
        return result

    def checkpoint(self) -> Any:
        """Return what to submit when the cluster takes the job's place or its time is up: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def run_jobs(
    function: ScoreCase,
    tasks: Sequence[CaseTask],
    options: JobOptions,
    folder: Path,
    log: CaseLog,
    show: Callable[[str], None],
) -> Generator[tuple[int, CaseScores | CaseFailure], None, None]:
    """Apply a function to each task, in jobs that write finished cases to the log.

    Args:
        function: Importable function that scores a case.
        tasks: Cases, at least one.
        options: How to submit the jobs.
        folder: Folder for what the jobs say; must be visible to the jobs, like all files of the tasks.
        log: Where finished cases are written down.
        show: Is told how many jobs are left, again and again.

    Yields:
        Index of the task and its result, as jobs finish. If the generator is closed before, the jobs are cancelled.

    Raises:
        EvaluationError: If the jobs can't be submitted.
    """
    shards = options.split(len(tasks))
    calls = [_Shard(function, tuple(tasks[index] for index in shard), log.folder, Path.cwd()) for shard in shards]
    waiting: dict[int, Any] = {}
    try:
        with _interrupts_held():
            waiting.update(enumerate(_submit(calls, options, folder)))
        while waiting:
            for number in [number for number, job in waiting.items() if job.done()]:
                yield from zip(shards[number], _results(waiting[number], calls[number].tasks, log), strict=True)
                del waiting[number]
            show(f"{len(waiting)} of {len(shards)} jobs left")
            if waiting:
                time.sleep(_POLL_S)
    finally:
        for job in waiting.values():
            job.cancel(check=False)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: jobs must be known before they can be cancelled.

    The signal isn't blocked, since jobs on this machine would inherit that and it is what cancels them.
    """
    if threading.current_thread() is not threading.main_thread():  # Ctrl-C interrupts the main thread only
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


def _submit(calls: Sequence[_Shard], options: JobOptions, folder: Path) -> list[Any]:
    """Submit jobs as one array; a folder of their own keeps them apart from those of an earlier run."""
    from submitit import AutoExecutor

    folder.mkdir(parents=True, exist_ok=True)
    executor = AutoExecutor(tempfile.mkdtemp(dir=folder), cluster=options.cluster)
    try:
        executor.update_parameters(**{"name": "medseg-evaluate", "timeout_min": 60, **options.parameters})
    except (NameError, TypeError, ValueError, AssertionError) as error:
        raise EvaluationError(f"--slurm-options: {str(error).splitlines()[0]}") from None
    try:
        with executor.batch():
            return [executor.submit(call) for call in calls]
    except Exception as error:  # sbatch's own words, passed on by submitit in errors of several types
        raise EvaluationError(f"--slurm: the jobs can't be submitted: {str(error).strip()}") from error


def _results(job: Any, tasks: Sequence[CaseTask], log: CaseLog) -> Sequence[CaseScores | CaseFailure]:
    """Return what a job that has ended brought; if it died, what it wrote down before."""
    try:
        return job.result()
    except Exception:  # whatever it was, it must not end the other jobs
        finished = log.finished(tasks)
        return [finished.get(task.case) or _lost(task, job) for task in tasks]


def _lost(task: CaseTask, job: Any) -> CaseFailure:
    file = task.prediction.npz or task.prediction.labels[0]
    return CaseFailure(
        task.case,
        f"{file}: its job ended without a result (state {job.state}), perhaps for want of time or memory: see "
        f"{job.paths.stderr}; the same command goes on where it was",
    )
