"""Evaluate a folder of predictions against a folder of references."""

import shutil
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from tqdm import tqdm

from .case_log import FOLDER, CaseLog
from .case_scores import CaseFailure, CaseScores
from .case_task import CaseTask
from .curves import make_curves
from .curves_file import CURVES_FILE, remove_curves, write_curves
from .dataset_file import find_dataset, unannotated_notes
from .dataset_labels import DatasetLabels, Label, LabelRequest, choose_labels
from .errors import EvaluationError
from .jobs import FOLDER as JOBS_FOLDER
from .jobs import JobOptions, run_jobs
from .metric_choice import ToleranceRequest, choose_metrics
from .metric_options import DEFAULT_TOLERANCE_MM, MetricOptions
from .output import prepare_output, write_results
from .pairs import SOURCES, CaseFiles, find_cases
from .parallel import run_tasks
from .score_case import score_case, warm_up_for
from .summary import make_summary
from .suspicions import in_no_file, on_one_side_only, scored_with_themselves
from .threshold_choice import THRESHOLDS_FILE

_DEFAULTS = MetricOptions()


@dataclass(frozen=True)
class Evaluation:
    """What came of an evaluation.

    Attributes:
        summary: Content of summary.json.
        metrics_path: The file metrics.csv.
        summary_path: The file summary.json.
        failures: Cases that couldn't be scored, and why.
        unpredicted: Cases that have a reference and no prediction.
        complete: Whether every case was scored, and with `require_all` every reference.
        curves_path: The file curves.json, None if calibration wasn't asked for.
    """

    summary: Mapping[str, Any]
    metrics_path: Path
    summary_path: Path
    failures: tuple[CaseFailure, ...]
    unpredicted: tuple[str, ...]
    complete: bool
    curves_path: Path | None = None


def evaluate_folder(
    predictions: Path | str,
    references: Path | str,
    output: Path | str,
    *,
    dataset_json: Path | str | None = None,
    labels: Sequence[LabelRequest] | None = None,
    nsd_tolerance_mm: ToleranceRequest = DEFAULT_TOLERANCE_MM,
    metric_options: MetricOptions = _DEFAULTS,
    source: str = "auto",
    include_background: bool = False,
    require_all: bool = False,
    workers: int = 1,
    axis: int | None = None,
    resample: bool = False,
    jobs: JobOptions | None = None,
    progress: bool = False,
) -> Evaluation:
    """Score every prediction in a folder and write metrics.csv, summary.json and if calibration is wanted curves.json.

    Args:
        predictions: Folder with `<case>.nii.gz` or `<case>.npz` and `<case>.pkl`.
        references: Folder with `<case>.nii.gz`.
        output: Folder for the results; made if it doesn't exist.
        dataset_json: nnU-Net's dataset.json; by default the one beside the predictions, beside the references or in
            the folder above those, if there is one.
        labels: Labels to score, by value, name or region (`"1+2"`). By default those of dataset.json, else all
            non-zero values of all files.
        nsd_tolerance_mm: Tolerance of the normalised surface distance in mm: one, several, or a mapping from label to
            one or several, with None for the labels that it doesn't name.
        metric_options: Definitions of the metrics that have a choice.
        source: `labels`, `probabilities`, `logits`, or `auto`: label files where present, else npz.
        include_background: Whether label 0 is scored too.
        require_all: Whether a reference without a prediction makes the evaluation incomplete.
        workers: Number of processes, >= 1.
        axis: Array axis of (z, y, x) to cut slices along and score each; None to score whole images.
        resample: Whether predictions on another grid are brought onto that of their reference, by nearest voxel.
        jobs: How to score in jobs of a cluster; None to score on this machine.
        progress: Whether to show a progress bar on stderr.

    Returns:
        What came of it.

    Raises:
        EvaluationError: If an option, a folder or dataset.json is no good. A bad case raises nothing: it is among the
            failures.
    """
    predictions, references, output = Path(predictions), Path(references), Path(output)
    _check_options(source, workers, axis, metric_options)
    if jobs:
        jobs.check()
    found, known = find_both(predictions, references)
    dataset = find_dataset(None if dataset_json is None else Path(dataset_json), predictions, references)
    wanted = choose_labels(labels, dataset, include_background)
    metrics = choose_metrics(metric_options, nsd_tolerance_mm, dataset, wanted)
    prepare_output(output)

    tasks = [
        CaseTask(case, files, known[case], source, wanted, include_background, dataset, metrics, axis, resample)
        for case, files in found.items()
        if case in known
    ]
    log = CaseLog(output / FOLDER)
    scored, failures = score_cases(tasks, workers, progress, log, jobs=jobs)
    failures += [without_reference(case, files, references) for case, files in found.items() if case not in known]
    failures.sort(key=lambda failure: failure.case)
    unpredicted = tuple(case for case in known if case not in found)
    chosen = wanted if wanted is not None else _labels_of(scored)
    scored = [case.for_labels(chosen, metrics) for case in scored]
    options = {
        "predictions": str(predictions.absolute()),
        "references": str(references.absolute()),
        "dataset_json": str(dataset.path.absolute()) if dataset else None,
        "unannotated_labels": _left_out(dataset, scored),
        "labels": [label.key for label in chosen],
        "nsd_tolerance_mm": {label.key: list(metrics.tolerances_of(label)) for label in chosen},
        **_plain(metric_options),
        "source": source,
        "include_background": include_background,
        "require_all": require_all,
        "axis": axis,
        "resample": resample,
    }
    summary = make_summary(scored, failures, unpredicted, chosen, metrics, options, axis)
    if metric_options.wants_calibration:
        write_curves(output / CURVES_FILE, make_curves(scored, chosen))
    elif not (output / THRESHOLDS_FILE).exists():  # else the curves are those that the thresholds come from
        remove_curves(output)
    asked_for = [*(label.key for label in chosen if labels is not None), *metrics.by_label_mm]
    summary["warnings"] += [
        *scored_with_themselves(predictions, references),
        *unannotated_notes(dataset, [case.case for case in scored], known),
        *in_no_file(asked_for, scored, metric_options, dataset),
        *on_one_side_only(scored),
    ]
    paths = write_results(output, scored, metrics, summary, by_slice=axis is not None)
    if not failures:
        log.remove()
        shutil.rmtree(output / JOBS_FOLDER, ignore_errors=True)
    complete = not failures and not (require_all and unpredicted)
    curves_path = output / CURVES_FILE if metric_options.wants_calibration else None
    return Evaluation(summary, *paths, tuple(failures), unpredicted, complete, curves_path)


def _plain(options: MetricOptions) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}


def _check_options(source: str, workers: int, axis: int | None, metrics: MetricOptions) -> None:
    if source not in SOURCES:
        raise EvaluationError(f"--source: must be one of {', '.join(SOURCES)}, got {source!r}")
    if workers < 1:
        raise EvaluationError(f"--workers: must be >= 1, got {workers}; leave it out to use the processors there are")
    if axis not in (None, 0, 1, 2):
        raise EvaluationError(f"--axis: must be 0, 1 or 2 (z, y, x), got {axis}")
    if axis is not None and metrics.wants_calibration:
        raise EvaluationError(
            "--also calibration: must be of whole images, got slices; use python -m evaluation.test3d"
        )


def find_both(predictions: Path, references: Path) -> tuple[dict[str, CaseFiles], dict[str, CaseFiles]]:
    """Find the cases of both folders.

    Args:
        predictions: Folder of predictions.
        references: Folder of references.

    Returns:
        Files of the predictions by case, and those of the references.

    Raises:
        EvaluationError: If a folder can't be listed or holds no case.
    """
    found = find_cases(predictions, with_npz=True, option="--predictions")
    known = find_cases(references, with_npz=False, option="--references")
    return found, known


def score_cases(
    tasks: Sequence[CaseTask],
    workers: int,
    progress: bool,
    log: CaseLog,
    title: str = "scoring",
    jobs: JobOptions | None = None,
) -> tuple[list[CaseScores], list[CaseFailure]]:
    """Score cases that aren't finished yet, several at once.

    Args:
        tasks: Cases and how to score them.
        workers: Number of processes, >= 1.
        progress: Whether to show a progress bar on stderr.
        log: Where finished cases are written down.
        title: What the progress bar says.
        jobs: How to submit jobs to a cluster; None to score on this machine.

    Returns:
        Scores of the cases, sorted by case, and those that couldn't be scored.
    """
    finished = log.finished(tasks)
    scored = list(finished.values())
    failures: list[CaseFailure] = []
    waiting = [task for task in tasks if task.case not in finished]
    if waiting:
        _compile(progress, waiting[0])
    with (
        tqdm(total=len(tasks), initial=len(scored), desc=title, unit="case", disable=not progress) as bar,
        closing(_results(waiting, workers, jobs, log, bar)) as results,
    ):
        for index, result in results:
            if isinstance(result, CaseScores):
                scored.append(result)
                if not jobs:  # jobs write down theirs themselves
                    log.append(waiting[index], result)
            else:
                failures.append(result)
            bar.update()
    return sorted(scored, key=lambda case: case.case), failures


def _results(
    tasks: Sequence[CaseTask], workers: int, jobs: JobOptions | None, log: CaseLog, bar: tqdm
) -> Generator[tuple[int, CaseScores | CaseFailure], None, None]:
    if jobs and tasks:
        folder = log.folder.with_name(JOBS_FOLDER)
        yield from run_jobs(score_case, tasks, jobs, folder, log, bar.set_postfix_str)
    else:
        yield from run_tasks(score_case, tasks, workers, _killed)


def _compile(progress: bool, task: CaseTask) -> None:
    """Compile the engine before other processes need it, and say so if it takes more than a moment."""
    text = "compiling the metrics, once after installation ..."
    notice = Timer(1.5, print, [text], {"file": sys.stderr})
    if progress:
        notice.start()
    try:
        warm_up_for(task)
    finally:
        notice.cancel()


def _killed(task: CaseTask) -> CaseFailure:
    file = task.prediction.npz or task.prediction.labels[0]
    return CaseFailure(
        task.case, f"{file}: the process that scored it was killed, perhaps for want of memory; use fewer --workers"
    )


def without_reference(case: str, files: CaseFiles, references: Path) -> CaseFailure:
    """Return the failure of a prediction that has no reference.

    Args:
        case: Its name.
        files: Its files.
        references: Folder of references.

    Returns:
        What to report.
    """
    file = files.labels[0] if files.labels else files.npz
    return CaseFailure(case, f"{file}: has no reference {case} in {references}; add it or remove the prediction")


def _labels_of(cases: Sequence[CaseScores]) -> tuple[Label, ...]:
    return tuple(sorted({label for case in cases for label in case.labels}, key=lambda label: label.values))


def _left_out(dataset: DatasetLabels | None, cases: Sequence[CaseScores]) -> dict[str, list[str]]:
    """Return the keys of the labels that nobody has annotated, by scored case."""
    by_case = dataset.unannotated.by_case if dataset else {}
    return {case.case: [label.key for label in by_case[case.case]] for case in cases if case.case in by_case}
