"""Choose a threshold for each label, and apply it elsewhere: `python -m evaluation.threshold`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .case_scores import CaseFailure
from .command import EXIT_INCOMPLETE, EXIT_OK, Command, until_reader_leaves
from .curves import make_curves
from .curves_file import CURVES_FILE, read_curves, write_curves
from .dataset_file import find_dataset
from .dataset_labels import DatasetLabels, choose_labels
from .errors import EvaluationError
from .pairs import find_cases
from .parallel import default_workers
from .probability_folder import ScoredFolder, score_probability_folder
from .summary import versions
from .threshold_choice import BIAS, METRICS, ThresholdChoice, choose_thresholds, read_thresholds, write_thresholds
from .threshold_labels import write_label_maps
from .threshold_scores import means_of, scores_at, write_threshold_scores
from .threshold_table import format_applied, format_choice

_SOURCES = ("auto", "probabilities", "logits")
_COMMAND = Command(
    "threshold",
    "Choose for each label the probability threshold with the best overlap, or apply chosen ones.",
    """\
Results: thresholds.json, thresholds.csv (Dice and IoU by threshold) and curves.json; with --apply
threshold_scores.csv (a row a case and label) and threshold_scores.json (means); with --save-labels label maps.
Exit code: 0 all scored; 1 some cases couldn't be scored, the others are; 2 nothing could be done; 130 interrupted.""",
    (
        "--predictions validation --references labelsTr --output chosen",
        "--apply chosen/thresholds.json --predictions test --references labelsTs --output applied",
        "--apply chosen/thresholds.json --predictions test --output applied --save-labels applied/labels",
    ),
    interrupted="the results are incomplete; the same command goes on where it was",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        Exit code: 0 done, 1 some cases couldn't be scored, 2 nothing could be done, 130 interrupted.
    """
    return _COMMAND.run(argv, _add_options, _run)


def _run(options: argparse.Namespace) -> int:
    _check(options)
    dataset = find_dataset(options.dataset_json, options.predictions, options.references)
    failures = _choose(options, dataset) if options.apply is None else _apply(options, dataset)
    for failure in failures:
        print(f"error: case {failure.case}: {failure.message}", file=sys.stderr)
    return EXIT_INCOMPLETE if failures else EXIT_OK


def _check(options: argparse.Namespace) -> None:
    if options.references is None and not (options.apply and options.save_labels):
        raise EvaluationError("--references: needed unless --apply only writes --save-labels; add the folder")
    if options.save_labels and options.apply is None:
        raise EvaluationError("--save-labels: needs --apply FILE, the thresholds; choose them first without it")
    if options.apply and (options.metric or options.pooled):
        raise EvaluationError("--metric and --pooled: say how to choose, so they don't go with --apply; leave them out")
    if options.workers < 1:
        raise EvaluationError(f"--workers: must be >= 1, got {options.workers}")
    for option, folder in (("--predictions", options.predictions), ("--references", options.references)):
        if options.save_labels and folder and options.save_labels.resolve() == folder.resolve():
            raise EvaluationError(
                f"--save-labels: must not be the folder of {option}, whose labels it would replace; choose another"
            )


def _choose(options: argparse.Namespace, dataset: DatasetLabels | None) -> Sequence[CaseFailure]:
    scored = _scored(options, dataset)
    curves_path = options.output / CURVES_FILE
    write_curves(curves_path, make_curves(scored.cases, scored.labels))
    curves = read_curves(curves_path)
    choice = choose_thresholds(curves, options.metric or METRICS[0], options.pooled, options.predictions)
    paths = write_thresholds(options.output, choice, curves, _facts(options, dataset, scored))
    _finish(scored)
    with until_reader_leaves():
        notes = [f"note: {note}" for note in (BIAS, *scored.notes)]
        print(format_choice(choice, len(scored.cases)), *notes, "", *paths, curves_path, sep="\n")
    return scored.failures


def _apply(options: argparse.Namespace, dataset: DatasetLabels | None) -> Sequence[CaseFailure]:
    choice = read_thresholds(options.apply)
    failures: list[CaseFailure] = []
    if options.references is not None:
        failures += _score_at(options, dataset, choice)
    if options.save_labels:
        known = {failure.case for failure in failures}
        failures += [failure for failure in _save_labels(options, dataset, choice) if failure.case not in known]
    return failures


def _save_labels(
    options: argparse.Namespace, dataset: DatasetLabels | None, choice: ThresholdChoice
) -> Sequence[CaseFailure]:
    saved = write_label_maps(
        find_cases(options.predictions, with_npz=True, option="--predictions"),
        options.save_labels,
        source=options.source,
        dataset=dataset,
        labels=choose_labels(options.labels, dataset, include_background=False) if options.labels else None,
        thresholds={key: chosen.threshold for key, chosen in choice.labels.items()},
        workers=options.workers,
        progress=True,
    )
    notes = []
    if saved.at_half:
        notes.append(f"note: no threshold was chosen for {', '.join(saved.at_half)}; label maps take 0.5")
    if saved.unused:
        notes.append(f"note: no label map has a label {', '.join(saved.unused)}, so that its threshold isn't applied")
    with until_reader_leaves():
        print(*notes, options.save_labels, sep="\n")
    return saved.failures


def _score_at(options: argparse.Namespace, dataset: DatasetLabels | None, choice: ThresholdChoice) -> list[CaseFailure]:
    scored = _scored(options, dataset)
    scores = scores_at(choice, scored.cases, scored.labels)
    if not scores:
        known = ", ".join(choice.labels)
        raise EvaluationError(f"--apply {options.apply}: has thresholds for {known}, and no label of these data")
    same = choice.predictions == str(options.predictions.resolve())
    facts = _facts(options, dataset, scored) | {"thresholds": str(options.apply.absolute())}
    paths = write_threshold_scores(options.output, scores, facts | {"bias": BIAS if same else None})
    _finish(scored)
    notes = [f"note: {note}" for note in (*([BIAS] if same else []), *scored.notes)]
    there = [label.key for label in scored.labels]
    missing = [key for key in there if key not in choice.labels]
    if missing:
        notes.append(f"note: no threshold was chosen for {', '.join(missing)}, which isn't scored")
    unused = [key for key in choice.labels if key not in there]
    if unused and not options.labels:
        notes.append(f"note: no label {', '.join(unused)} is scored, so that its threshold isn't applied")
    with until_reader_leaves():
        print(format_applied(means_of(scores), len(scored.cases)), *notes, "", *paths, sep="\n")
    return list(scored.failures)


def _scored(options: argparse.Namespace, dataset: DatasetLabels | None) -> ScoredFolder:
    return score_probability_folder(
        options.predictions,
        options.references,
        options.output,
        dataset=dataset,
        labels=options.labels,
        source=options.source,
        workers=options.workers,
        progress=True,
    )


def _facts(options: argparse.Namespace, dataset: DatasetLabels | None, scored: ScoredFolder) -> dict[str, Any]:
    """Return what a reader of the results has to know about where they come from."""
    return {
        "n_cases": len(scored.cases),
        "failures": [{"case": failure.case, "message": failure.message} for failure in scored.failures],
        "references": str(options.references.absolute()),
        "dataset_json": str(dataset.path.absolute()) if dataset else None,
        "source": options.source,
        "versions": versions(),
    }


def _finish(scored: ScoredFolder) -> None:
    if not scored.failures:
        scored.log.remove()


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--predictions", type=Path, required=True, metavar="DIR", help="<case>.npz and <case>.pkl")
    add("--references", type=Path, metavar="DIR", help="<case>.nii.gz")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    add("--dataset-json", type=Path, metavar="FILE", help="label names and regions (default: found beside the data)")
    add(
        "--labels",
        nargs="+",
        metavar="LABEL",
        help="values, names or regions like 1+2, to score and to save (default: all)",
    )
    add("--metric", choices=METRICS, help="what is to be best (default: dice)")
    add("--pooled", action="store_true", help="sum voxels over cases instead of averaging over cases")
    add("--apply", type=Path, metavar="FILE", help="thresholds.json chosen before: score at these thresholds")
    add("--save-labels", type=Path, metavar="DIR", help="with --apply: write label maps there")
    add("--source", choices=_SOURCES, default="auto", help="what to use (default: probabilities, else logits)")
    add("--workers", type=int, default=default_workers(), metavar="N", help="processes (default: %(default)s)")


if __name__ == "__main__":
    raise SystemExit(main())
