"""Compare methods on the same cases: `python -m evaluation.compare`."""

import argparse
import sys
from collections.abc import Sequence

from .command import EXIT_INCOMPLETE, EXIT_OK, Command, until_reader_leaves
from .comparison import compare_methods
from .comparison_files import format_comparison, write_comparison
from .method_options import add_method_options, score_folders
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
    interrupted="no comparison was written; the same command makes it, and scores no case twice",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        Exit code: 0 done, 1 some cases couldn't be scored, 2 nothing could be done, 130 interrupted.
    """
    return _COMMAND.run(argv, add_method_options, _run)


def _run(options: argparse.Namespace) -> int:
    folders, complete = score_folders(options)
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


if __name__ == "__main__":
    raise SystemExit(main())
