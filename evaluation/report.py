"""Make a page of scores, with figures and tables: `python -m evaluation.report`."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from .command import EXIT_INCOMPLETE, EXIT_OK, Command, until_reader_leaves
from .errors import EvaluationError
from .method_options import add_method_options, score_folders
from .reporting.build import ReportOptions, make_report

_COMMAND = Command(
    "report",
    "Make one page of one or several methods' scores: tables, figures, comparisons, the worst cases in slices and 3D.",
    """\
Results: report.html (one file, opens anywhere without a network), figures/ and tables/ (the same as files).
Exit code: 0 done; 1 some cases of --predictions couldn't be scored; 2 nothing could be done; 130 interrupted.""",
    (
        "--scores samed=scores/samed --output report",
        "--scores nnunet=scores/nnunet samed=scores/samed --output report --images imagesTs",
        "--predictions nnunet=predictions/a samed=predictions/b --references labelsTs --output report",
    ),
    interrupted="no report was written; the same command makes it, and scores no case twice",
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
    if options.worst < 0:
        raise EvaluationError(f"--worst: must be >= 0, got {options.worst}")
    if options.nsd_curve_mm and not 0.1 <= options.nsd_curve_mm < math.inf:
        raise EvaluationError(f"--nsd-curve-mm: must be 0 for none or >= 0.1, got {options.nsd_curve_mm:g}; try 10")
    if options.images is not None and not options.images.is_dir():
        raise EvaluationError(f"--images {options.images}: must be a folder, got none; check the path")
    folders, complete = score_folders(options)
    chosen = ReportOptions(
        title=options.title,
        metrics=options.metrics,
        labels=options.labels,
        patients=options.patients,
        resamples=options.resamples,
        seed=options.seed,
        images=options.images,
        n_worst=options.worst,
        nsd_curve_mm=options.nsd_curve_mm,
        workers=options.workers,
    )
    report = make_report(folders, options.output, chosen, progress=True)
    with until_reader_leaves():
        print(report.path)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return EXIT_OK if complete and report.complete else EXIT_INCOMPLETE


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_method_options(parser)
    add = parser.add_argument
    add("--title", default="Segmentation scores", metavar="TEXT", help="heading (default: %(default)s)")
    add("--images", type=Path, metavar="DIR", help="images to show (default: imagesTr beside labelsTr, ...)")
    add("--worst", type=int, default=3, metavar="N", help="worst cases to show (default: 3)")
    add(
        "--nsd-curve-mm",
        type=float,
        default=10.0,
        metavar="MM",
        help="largest tolerance of the NSD curve, for which all files are read again; 0 for none (default: 10)",
    )


if __name__ == "__main__":
    raise SystemExit(main())
