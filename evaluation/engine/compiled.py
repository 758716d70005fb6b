"""Compilation of the engine's functions, kept on disk for as long as no source of the engine changes.

Numba itself looks only at the file of a function, not at those of the functions that are built into it.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numba
from filelock import FileLock, Timeout

_LOCK_TIMEOUT_S = 600


def compiled(function: Callable) -> Any:
    """Compile a function at its first call, or load it from disk.

    Args:
        function: What Numba can compile.

    Returns:
        The compiled function, which doesn't hold Python's lock while it runs.
    """
    folder = cache_folder()
    if folder is None:
        return numba.njit(nogil=True)(function)
    config: Any = numba.config
    before, config.CACHE_DIR = config.CACHE_DIR, str(folder)
    try:
        return numba.njit(cache=True, nogil=True)(function)
    finally:
        config.CACHE_DIR = before


@contextmanager
def one_process_at_a_time() -> Iterator[None]:
    """Keep other processes that use this from compiling meanwhile: their files would get mixed up."""
    folder = cache_folder()
    if folder is None:
        yield
        return
    lock = FileLock(folder / "compile.lock")
    try:
        lock.acquire(timeout=_LOCK_TIMEOUT_S)
    except (Timeout, OSError, NotImplementedError):  # better to risk it than not to score
        yield
        return
    try:
        yield
    finally:
        lock.release()


@cache
def cache_folder() -> Path | None:
    """Return the folder for compiled functions, None if there is no place to write.

    It is in `$NUMBA_CACHE_DIR` if that is set, else beside the sources, else in the user's folder for caches.
    """
    name = f"engine-{engine_fingerprint()}"
    in_tree = Path(__file__).parent / "__pycache__"
    for_user = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "medseg-plugins"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    for place in [Path(chosen)] if chosen else [in_tree, for_user]:
        folder = place / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError:
            continue
        if not chosen:
            for other in place.glob("engine-*"):  # of sources that are no more
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)
        return folder
    return None


@cache
def engine_fingerprint() -> str:
    """Return what changes with the sources of the engine and with Numba."""
    content = hashlib.sha256(numba.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        content.update(source.read_bytes())
    return content.hexdigest()[:16]
