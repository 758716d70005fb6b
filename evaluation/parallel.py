"""Run independent tasks in several processes, so that one that dies takes no other with it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

MOST_DEFAULT_WORKERS = 8


def default_workers() -> int:
    """Return how many processes to use unless told: the processors this process may use, at most 8."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, MOST_DEFAULT_WORKERS)


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    when_worker_dies: Callable[[Task], Result],
) -> Iterator[tuple[int, Result]]:
    """Apply a function to each task.

    Processes are spawned: they import only what the function needs, and calling scripts need the usual
    `if __name__ == "__main__"`. With one worker or one task everything stays in this process.

    Args:
        function: Importable function of one task.
        tasks: Tasks, each picklable.
        workers: Number of processes, >= 1.
        when_worker_dies: Makes the result of a task whose process was killed, for example for want of memory.

    Yields:
        Index of the task and its result, in the order in which they finish.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        yield from ((index, function(task)) for index, task in enumerate(tasks))
        return
    waiting = list(range(len(tasks)))[::-1]
    while waiting:
        in_flight: dict[Future[Result], int] = {}
        with _pool(workers) as pool:
            try:
                while waiting or in_flight:
                    while waiting and len(in_flight) < 2 * workers:
                        index = waiting.pop()
                        in_flight[_submit(pool, function, tasks[index])] = index
                    for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield in_flight.pop(future), result
            except BrokenProcessPool:
                pass  # what was under way is run again below
        for index in sorted(in_flight.values()):
            yield index, _run_alone(function, tasks[index], when_worker_dies)


def _run_alone(function: Callable[[Task], Result], task: Task, when_worker_dies: Callable[[Task], Result]) -> Result:
    """Run a task that was under way when a process died, in a process of its own: it may be another's fault."""
    with _pool(1) as pool:
        try:
            return _submit(pool, function, task).result()
        except BrokenProcessPool:
            return when_worker_dies(task)


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Make a pool whose processes end at once when the block is left by an exception, Ctrl-C above all."""
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, function: Callable[[Task], Result], task: Task) -> Future[Result]:
    """Submit a task, which may start a process: one that inherits SIGINT blocked, so that it dies without a word."""
    if not hasattr(signal, "pthread_sigmask"):
        return pool.submit(function, task)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(function, task)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent() -> None:
    """Leave interrupts to the parent process, and end when it does, even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers are spawned"
    parent.join()
    os._exit(1)
