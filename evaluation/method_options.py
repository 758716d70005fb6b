"""Options by which commands are told of several methods' scores."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .cases import evaluate_folder
from .comparison import DEFAULT_RESAMPLES
from .errors import EvaluationError
from .output import METRICS_FILE
from .parallel import default_workers

LEAST_RESAMPLES = 100


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options that name methods, and those of their comparison.

    Args:
        parser: The parser.
    """
    add = parser.add_argument
    named = "NAME=DIR"
    add("--scores", nargs="+", default=[], metavar=named, help=f"folders with {METRICS_FILE}, one a method")
    add("--predictions", nargs="+", default=[], metavar=named, help="folders of predictions to score first")
    add("--references", type=Path, metavar="DIR", help="true label maps, for --predictions")
    add("--dataset-json", type=Path, metavar="FILE", help="label names and regions, for --predictions")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    add("--metrics", nargs="+", metavar="METRIC", help="metrics to show (default: Dice, HD95, NSD)")
    add("--labels", nargs="+", metavar="LABEL", help="labels by key or name, or foreground (default: all)")
    add("--patients", type=Path, metavar="FILE", help="CSV with columns case,patient: cases of one are drawn together")
    add(
        "--resamples", type=int, default=DEFAULT_RESAMPLES, metavar="N", help="bootstrap samples (default: %(default)s)"
    )
    add("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    add("--workers", type=int, default=default_workers(), metavar="N", help="processes (default: %(default)s)")


def score_folders(options: argparse.Namespace) -> tuple[dict[str, Path], bool]:
    """Return where the scores of each method are, after scoring the predictions that were given instead.

    Args:
        options: What the parser read.

    Returns:
        Folder by method, and whether every case was scored.

    Raises:
        EvaluationError: If the options don't fit together, or a folder is no good.
    """
    if bool(options.scores) == bool(options.predictions):
        raise EvaluationError("give either --scores or --predictions: scores that are there, or predictions to score")
    if options.predictions and options.references is None:
        raise EvaluationError("--predictions need --references, the folder of true label maps, got none; add it")
    if options.scores and (options.references or options.dataset_json):
        raise EvaluationError(
            "--references and --dataset-json: are for --predictions; scores know theirs, leave them out"
        )
    if options.seed < 0:
        raise EvaluationError(f"--seed: must be >= 0, got {options.seed}")
    if options.workers < 1:
        raise EvaluationError(f"--workers: must be >= 1, got {options.workers}")
    if options.resamples < LEAST_RESAMPLES:
        raise EvaluationError(f"--resamples: must be >= {LEAST_RESAMPLES}, got {options.resamples}")
    return (_named(options.scores, "--scores"), True) if options.scores else _scored(options)


def _named(words: Sequence[str], option: str) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for word in words:
        name, separator, folder = word.partition("=")
        if not (separator and name and folder):
            raise EvaluationError(f"{option}: must be NAME=FOLDER, got {word!r}; the name stands for the method")
        if name.startswith(("_", ".")):
            raise EvaluationError(f"{option}: a method's name must begin with a letter or a number, got {name}")
        if name in folders:
            raise EvaluationError(f"{option}: each method needs a name of its own, got {name} twice")
        folders[name] = Path(folder)
    return folders


def _scored(options: argparse.Namespace) -> tuple[dict[str, Path], bool]:
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
