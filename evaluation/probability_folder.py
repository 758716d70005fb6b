"""Score the probabilities of a folder of predictions, and nothing else of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .case_log import FOLDER, CaseLog
from .case_scores import CaseFailure, CaseScores
from .case_task import CaseTask
from .cases import find_both, score_cases, without_reference
from .dataset_file import unannotated_notes
from .dataset_labels import DatasetLabels, Label, LabelRequest, choose_labels
from .errors import EvaluationError
from .metric_choice import MetricChoice
from .metric_options import CALIBRATION, MetricOptions
from .output import prepare_output


@dataclass(frozen=True)
class ScoredFolder:
    """Scores of the probabilities of a folder.

    Attributes:
        cases: Scores by case, sorted, each with those of its probabilities.
        labels: Labels scored.
        failures: Cases that couldn't be scored, and why.
        log: Where finished cases are written down, to be removed when the results are there.
        notes: What is left out because nobody has annotated it.
    """

    cases: tuple[CaseScores, ...]
    labels: tuple[Label, ...]
    failures: tuple[CaseFailure, ...]
    log: CaseLog
    notes: tuple[str, ...] = ()


def score_probability_folder(
    predictions: Path,
    references: Path,
    output: Path,
    *,
    dataset: DatasetLabels | None = None,
    labels: Sequence[LabelRequest] | None = None,
    source: str = "auto",
    workers: int = 1,
    progress: bool = False,
) -> ScoredFolder:
    """Score the probabilities of every prediction in a folder.

    Args:
        predictions: Folder with `<case>.npz` and `<case>.pkl`.
        references: Folder with `<case>.nii.gz`.
        output: Folder for results; made if it doesn't exist. Finished cases are written down there.
        dataset: Labels of dataset.json, None if there is none.
        labels: Labels to score; by default those of dataset.json, else those of the channels.
        source: `probabilities`, `logits`, or `auto`: the first that is there.
        workers: Number of processes, >= 1.
        progress: Whether to show a progress bar on stderr.

    Returns:
        Scores.

    Raises:
        EvaluationError: If an option or a folder is no good, or no case could be scored.
    """
    if workers < 1:
        raise EvaluationError(f"--workers: must be >= 1, got {workers}")
    wanted = choose_labels(labels, dataset, include_background=False)
    found, known = find_both(predictions, references)
    prepare_output(output)
    metrics = MetricChoice(MetricOptions(also=(CALIBRATION,)))
    tasks = [
        CaseTask(case, files, known[case], source, wanted, False, dataset, metrics, axis=None, only_probabilities=True)
        for case, files in found.items()
        if case in known
    ]
    log = CaseLog(output / FOLDER)
    scored, failures = score_cases(tasks, workers, progress, log)
    failures += [without_reference(case, files, references) for case, files in found.items() if case not in known]
    failures.sort(key=lambda failure: failure.case)
    if not scored:
        raise EvaluationError(f"--predictions {predictions}: no case could be scored; the first: {failures[0].message}")
    occurring = {label for case in scored for label in case.labels}
    chosen = wanted if wanted is not None else tuple(sorted(occurring, key=lambda label: label.values))
    notes = tuple(unannotated_notes(dataset, [case.case for case in scored], known))
    if all(not case.probabilities or not case.probabilities.labels for case in scored):
        listed = ", ".join(label.name for label in chosen)
        raise EvaluationError(f"--labels: nobody has annotated {listed} in any of these cases; {notes[0]}")
    return ScoredFolder(tuple(scored), chosen, tuple(failures), log, notes)
