"""Compare methods on the same cases: `python -m evaluation.compare`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .cases import evaluate_folder
from .command import EXIT_INCOMPLETE, EXIT_OK, Command, until_reader_leaves
from .comparison import DEFAULT_RESAMPLES, compare_methods
from .comparison_files import format_comparison, write_comparison
from .errors import EvaluationError
from .output import METRICS_FILE
from .parallel import default_workers
from .score_files import read_patients, read_scores

_COMMAND = Command(
    "compare",
    "Compare methods on the same cases: paired differences with intervals and tests, and rankings.",
    """\
Results: comparison.json (everything, with definitions), differences.csv (a row a pair of methods), rankings.csv.
Exit code: 0 done; 1 some cases of --predictions couldn't be scored; 2 nothing could be done; 130 interrupted.""",
    (
        "--scores nnunet=scores/nnunet samed=scores/samed --output comparison",
        "--predictions nnunet=predictions/a samed=predictions/b --references labelsTs --output comparison",
    ),
    interrupted="no comparison was written; the same command goes on where it was",
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
    folders, complete = _score_folders(options), True
    if options.predictions:
        folders, complete = _scored(options)
    methods = {name: read_scores(folder, "--scores") for name, folder in folders.items()}
    cases = {case for stored in methods.values() for case in stored.cases}
    comparisons, warnings = compare_methods(
        methods,
        metrics=options.metrics,
        labels=options.labels,
        patients=read_patients(options.patients, cases) if options.patients else None,
        resamples=options.resamples,
        seed=options.seed,
    )
    content = {
        "warnings": warnings,
        "options": {"resamples": options.resamples, "seed": options.seed},
        "files": {name: str(stored.path.absolute()) for name, stored in methods.items()},
    }
    paths = write_comparison(options.output, list(methods), comparisons, content)
    with until_reader_leaves():
        print(format_comparison(list(methods), comparisons), *("", *map(str, paths)), sep="\n")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return EXIT_OK if complete else EXIT_INCOMPLETE


def _score_folders(options: argparse.Namespace) -> dict[str, Path]:
    if bool(options.scores) == bool(options.predictions):
        raise EvaluationError("give either --scores or --predictions: scores that are there, or predictions to score")
    if options.predictions and options.references is None:
        raise EvaluationError("--predictions need --references, the folder of true label maps, got none; add it")
    if options.resamples < 100:
        raise EvaluationError(f"--resamples: must be >= 100, got {options.resamples}")
    return _named(options.scores, "--scores")


def _named(words: Sequence[str], option: str) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for word in words:
        name, separator, folder = word.partition("=")
        if not (separator and name and folder):
            raise EvaluationError(f"{option}: must be NAME=FOLDER, got {word!r}; the name stands for the method")
        if name in folders:
            raise EvaluationError(f"{option}: each method needs a name of its own, got {name} twice")
        folders[name] = Path(folder)
    return folders


def _scored(options: argparse.Namespace) -> tuple[dict[str, Path], bool]:
    """Score every folder of predictions; return where the scores are, and whether all cases were scored."""
    folders, complete = {}, True
    for name, folder in _named(options.predictions, "--predictions").items():
        if Path(name).name != name:
            raise EvaluationError(f"--predictions: a method's name becomes a folder, so it must have no /, got {name}")
        evaluation = evaluate_folder(
            folder,
            options.references,
            options.output / "scores" / name,
            dataset_json=options.dataset_json,
            workers=options.workers,
            progress=True,
        )
        for failure in evaluation.failures:
            print(f"error: {name}, case {failure.case} not scored: {failure.message}", file=sys.stderr)
        complete = complete and evaluation.complete
        folders[name] = evaluation.metrics_path.parent
    return folders, complete


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    named = "NAME=DIR"
    add("--scores", nargs="+", default=[], metavar=named, help=f"folders with {METRICS_FILE}, one a method")
    add("--predictions", nargs="+", default=[], metavar=named, help="folders of predictions to score first")
    add("--references", type=Path, metavar="DIR", help="true label maps, for --predictions")
    add("--dataset-json", type=Path, metavar="FILE", help="label names and regions, for --predictions")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    add("--metrics", nargs="+", metavar="METRIC", help="metrics to compare (default: Dice, HD95, NSD)")
    add("--labels", nargs="+", metavar="LABEL", help="labels by key or name, or foreground (default: all)")
    add("--patients", type=Path, metavar="FILE", help="CSV with columns case,patient: cases of one are drawn together")
    add(
        "--resamples", type=int, default=DEFAULT_RESAMPLES, metavar="N", help="bootstrap samples (default: %(default)s)"
    )
    add("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    add("--workers", type=int, default=default_workers(), metavar="N", help="processes, for --predictions")


if __name__ == "__main__":
    raise SystemExit(main())
