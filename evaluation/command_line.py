"""What `python -m evaluation.test3d` and `python -m evaluation.test2d` have in common."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .cases import Evaluation, evaluate_folder
from .command import EXIT_INCOMPLETE, EXIT_OK, Command, until_reader_leaves
from .dataset_labels import LabelRequest
from .errors import EvaluationError
from .jobs import CLUSTERS, JobOptions
from .metric_choice import OPTION, ToleranceRequest
from .metric_options import ALSO, DEFAULT_TOLERANCE_MM, MetricOptions
from .pairs import SOURCES
from .parallel import default_workers
from .report_table import format_table
from .surface import BOUNDARIES, DIRECTIONS

_RESULTS = """\
Results: metrics.csv (one row a case, label and metric) and summary.json (averages, definitions, versions, files).
With --also calibration: curves.json (reliability, and Dice by threshold).
Exit code: 0 all scored; 1 some cases couldn't be scored, the others are; 2 nothing could be done; 130 interrupted."""


def run(name: str, description: str, argv: Sequence[str] | None, *, slices: bool) -> int:
    """Parse a command line, evaluate, print the table.

    Args:
        name: Name of the module that was started.
        description: What it does, for the help text.
        argv: Arguments without the program's name; None for those of the process.
        slices: Whether slices are scored instead of whole images.

    Returns:
        Exit code.
    """
    command = Command(
        name,
        description,
        _RESULTS,
        ("--predictions predictions --references labelsTs --output scores",),
        interrupted="no result was written; the same command goes on where it was",
    )
    return command.run(argv, lambda parser: _add_options(parser, slices), _evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    evaluation = evaluate_folder(
        options.predictions,
        options.references,
        options.output,
        dataset_json=options.dataset_json,
        labels=options.labels,
        nsd_tolerance_mm=parse_tolerances(options.nsd_tolerance_mm),
        metric_options=_metric_options(options),
        source=options.source,
        include_background=options.include_background,
        require_all=options.require_all,
        workers=options.workers,
        axis=getattr(options, "axis", None),
        resample=options.resample,
        jobs=_job_options(options),
        progress=True,
    )
    _report(evaluation, require_all=options.require_all)
    return EXIT_OK if evaluation.complete else EXIT_INCOMPLETE


def parse_tolerances(texts: Sequence[str]) -> ToleranceRequest:
    """Read tolerances as the command line has them.

    Args:
        texts: Each a number in mm, or `label=number`; repeated ones add up.

    Returns:
        Mapping from label to tolerances in mm, None for labels without their own.

    Raises:
        EvaluationError: If a text is neither.
    """
    by_label: dict[LabelRequest | None, list[float]] = {}
    for text in texts:
        label, _, number = text.rpartition("=")
        try:
            by_label.setdefault(label or None, []).append(float(number))
        except ValueError:
            raise EvaluationError(
                f"{OPTION}: must be a number in mm or label=number, got {text!r}; write for example 2 or liver=3"
            ) from None
    return by_label


def _metric_options(options: argparse.Namespace) -> MetricOptions:
    try:
        return MetricOptions(
            hd_percentiles=tuple(options.hd_percentiles),
            hd_directions=options.hd_directions,
            boundary=options.boundary,
            nsd_boundary=options.nsd_boundary,
            also=tuple(options.also),
            boundary_width_mm=options.boundary_width_mm,
        )
    except ValueError as error:
        name, _, text = str(error).partition(" ")
        raise EvaluationError(f"--{name.replace('_', '-')}: {text}") from None


def _job_options(options: argparse.Namespace) -> JobOptions | None:
    if not options.slurm:
        names = ("slurm_cluster", "slurm_shards", "slurm_options")
        given = [name for name in names if getattr(options, name) not in (None, [])]
        if given:
            raise EvaluationError(f"--{given[0].replace('_', '-')}: is for --slurm only, which isn't there; add it")
        return None
    parameters = {}
    for word in options.slurm_options:
        name, separator, value = word.partition("=")
        if not (separator and name):
            raise EvaluationError(f"--slurm-options: must be NAME=VALUE, got {word!r}; try slurm_partition=NAME")
        try:
            parameters[name] = json.loads(value)
        except ValueError:  # a word
            parameters[name] = value
    return JobOptions(options.slurm_cluster or CLUSTERS[0], options.slurm_shards, parameters)


def _add_options(parser: argparse.ArgumentParser, slices: bool) -> None:
    add = parser.add_argument
    add("--predictions", type=Path, required=True, metavar="DIR", help="<case>.nii.gz, or <case>.npz and <case>.pkl")
    add("--references", type=Path, required=True, metavar="DIR", help="<case>.nii.gz")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for metrics.csv and summary.json")
    add("--dataset-json", type=Path, metavar="FILE", help="label names and regions (default: found beside the data)")
    add("--labels", nargs="+", metavar="LABEL", help="values, names or regions like 1+2 (default: all)")
    add(
        OPTION,
        nargs="+",
        default=[f"{DEFAULT_TOLERANCE_MM:g}"],
        metavar="MM",
        help="tolerance of the surface Dice in mm, or LABEL=MM for one label (default: 2)",
    )
    add(
        "--hd-percentiles",
        nargs="*",
        type=float,
        default=[95.0],
        metavar="P",
        help="percentiles of the surface distance beside its maximum (default: 95)",
    )
    add(
        "--hd-directions",
        choices=DIRECTIONS,
        default="max",
        help="percentile of each direction, the larger counts, or of both together (default: max)",
    )
    add("--boundary", choices=BOUNDARIES, default="voxel", help="surface of HD, ASSD and MASD (default: voxel)")
    add("--nsd-boundary", choices=BOUNDARIES, default="dual", help="surface of the surface Dice (default: dual)")
    groups = f"further metrics: {', '.join(ALSO)} (of .npz files)"
    add("--also", nargs="+", default=[], choices=ALSO, metavar="GROUP", help=groups)
    add(
        "--boundary-width-mm",
        type=float,
        default=2.0,
        metavar="MM",
        help="width of the band in which boundary IoU looks (default: 2)",
    )
    add("--source", choices=SOURCES, default="auto", help="what to score (default: label files, else npz)")
    add("--include-background", action="store_true", help="score label 0 too")
    add("--resample", action="store_true", help="bring predictions onto their reference's grid, by nearest voxel")
    add("--require-all", action="store_true", help="exit with 1 if a reference has no prediction")
    add("--workers", type=int, default=default_workers(), metavar="N", help="processes (default: %(default)s)")
    add("--slurm", action="store_true", help="score in a job array on a Slurm cluster, started on its login node")
    add("--slurm-shards", type=int, metavar="N", help="jobs, one process each (default: one for 20 cases, at most 64)")
    add(
        "--slurm-options",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of submitit for each job, such as slurm_partition=cpu mem_gb=8 (default: timeout_min=60)",
    )
    add("--slurm-cluster", choices=CLUSTERS, help="where the jobs run: local is this machine (default: slurm)")
    if slices:
        add("--axis", type=int, default=0, choices=(0, 1, 2), help="array axis (z, y, x) to cut along (default: 0, z)")


def _report(evaluation: Evaluation, *, require_all: bool) -> None:
    curves = [evaluation.curves_path] if evaluation.curves_path else []
    with until_reader_leaves():
        print(format_table(evaluation.summary))
        print("", evaluation.metrics_path, evaluation.summary_path, *curves, sep="\n")
    for warning in evaluation.summary["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if evaluation.unpredicted:
        listed = ", ".join(evaluation.unpredicted[:10]) + (", ..." if len(evaluation.unpredicted) > 10 else "")
        kind = "error" if require_all else "note"
        print(f"{kind}: {len(evaluation.unpredicted)} references without a prediction: {listed}", file=sys.stderr)
    for failure in evaluation.failures:
        print(f"error: case {failure.case} not scored: {failure.message}", file=sys.stderr)
