"""Scores of single cases, kept while an evaluation runs, so that a killed one goes on where it was."""

import contextlib
import hashlib
import json
import os
import socket
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .case_scores import CaseScores
from .case_task import CaseTask
from .dataset_labels import Label
from .engine.compiled import engine_fingerprint
from .probability_scores import ProbabilityScores

FOLDER = ".cases"


class CaseLog:
    """Finished cases in a folder: lines of JSON, one file a process that writes.

    A case counts as finished as long as its files, every option that its scores depend on, and the sources of this
    package are the same.

    Args:
        folder: Folder of the files; made when the first case is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._own = folder / f"{socket.gethostname()}-{os.getpid()}.jsonl"
        self._failed = False

    def finished(self, tasks: Sequence[CaseTask]) -> dict[str, CaseScores]:
        """Return the scores of the tasks that are finished.

        Args:
            tasks: Cases and how to score them.

        Returns:
            Scores by case.
        """
        known: dict[str, dict[str, Any]] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    known[entry["key"]] = entry["scores"]
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a process that was killed
        if not known:
            return {}
        keys = {task.case: _key(task) for task in tasks}
        return {case: _from_plain(known[key]) for case, key in keys.items() if key in known}

    def append(self, task: CaseTask, scores: CaseScores) -> None:
        """Write down a finished case; warn if that can't be done, because the scores matter more than the log.

        Args:
            task: The case.
            scores: Its scores.
        """
        if self._failed:
            return
        entry = json.dumps({"key": _key(task), "scores": _to_plain(scores)})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._own.open("a", encoding="utf-8") as stream:
                stream.write(f"\n{entry}\n")  # a process of the same name may have left half a line
        except OSError as error:
            self._failed = True
            print(
                f"warning: {self._own}: can't be written: {error.strerror}; a killed run starts anew", file=sys.stderr
            )

    def remove(self) -> None:
        """Delete the files, which a complete evaluation has no need of."""
        with contextlib.suppress(OSError):
            for path in self.folder.glob("*.jsonl"):
                path.unlink(missing_ok=True)
            self.folder.rmdir()


@cache
def evaluation_fingerprint() -> str:
    """Return what changes with the sources that scores depend on, so that an update means scoring again."""
    content = hashlib.sha256(engine_fingerprint().encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        content.update(source.read_bytes())
    return content.hexdigest()[:16]


def _key(task: CaseTask) -> str:
    """Return what tells a case apart that was scored by other options or from other files."""
    npz = task.prediction.npz
    arrays = [npz, npz.with_suffix(".pkl")] if npz else []
    files = [*task.prediction.labels, *arrays, *task.reference.labels]
    stamps = [(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.exists()]
    settings = (
        task.source,
        task.labels,
        task.include_background,
        task.dataset,
        task.metrics,
        task.axis,
        task.resample,
        task.only_probabilities,
    )
    return hashlib.sha256(repr((evaluation_fingerprint(), task.case, stamps, settings)).encode()).hexdigest()


def _to_plain(scores: CaseScores) -> dict[str, Any]:
    return {
        "case": scores.case,
        "prediction_file": str(scores.prediction_file),
        "reference_file": str(scores.reference_file),
        "source": scores.source,
        "labels": [[list(label.values), label.name] for label in scores.labels],
        "values": {key: array.tolist() for key, array in scores.values.items()},
        "missed": scores.missed.tolist(),
        "spurious": scores.spurious.tolist(),
        "diagonals_mm": scores.diagonals_mm.tolist(),
        "axis": scores.axis,
        "warnings": list(scores.warnings),
        "probabilities": scores.probabilities.to_plain() if scores.probabilities else None,
    }


def _from_plain(plain: dict[str, Any]) -> CaseScores:
    n_images = len(plain["diagonals_mm"])
    return CaseScores(
        case=plain["case"],
        prediction_file=Path(plain["prediction_file"]),
        reference_file=Path(plain["reference_file"]),
        source=plain["source"],
        labels=tuple(Label(tuple(values), name) for values, name in plain["labels"]),
        values={key: np.array(array, dtype=float).reshape(n_images, -1) for key, array in plain["values"].items()},
        missed=np.array(plain["missed"], dtype=bool).reshape(n_images, -1),
        spurious=np.array(plain["spurious"], dtype=bool).reshape(n_images, -1),
        diagonals_mm=np.array(plain["diagonals_mm"], dtype=float),
        axis=plain["axis"],
        warnings=tuple(plain["warnings"]),
        probabilities=ProbabilityScores.from_plain(plain["probabilities"]) if plain["probabilities"] else None,
    )
