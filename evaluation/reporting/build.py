"""Gather scores, make the sections, write the report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from tqdm import tqdm

from ..comparison import (
    DEFAULT_RESAMPLES,
    MetricComparison,
    choose_labels,
    choose_metrics,
    common_keys,
    compare_methods,
)
from ..errors import EvaluationError
from ..output import renamed_when_complete
from ..score_files import FOREGROUND, read_patients
from . import sections
from .inputs import ReportInputs, read_method
from .page import render_page
from .sections import Found, Section
from .style import figure_style

PAGE_FILE = "report.html"
_FIGURES, _TABLES, _UNFINISHED = "figures", "tables", ".nsd_curves"


@dataclass(frozen=True)
class ReportOptions:
    """What goes into a report.

    Attributes:
        title: Heading.
        metrics: Metrics to show; None for Dice, the first percentile of the surface distance, and NSD.
        labels: Labels to show by key or name, `foreground` for the mean over labels; None for all.
        patients: CSV file with the columns `case` and `patient`; None if each case is a patient of its own.
        resamples: Bootstrap samples of comparisons.
        seed: Seed of the bootstrap.
        images: Folder of the images; None for the one that nnU-Net's layout has beside the references.
        n_worst: How many of the worst cases to show.
        nsd_curve_mm: Largest tolerance of the NSD curve in mm; 0 for no curve.
        workers: Number of processes, >= 1.
    """

    title: str = "Segmentation scores"
    metrics: Sequence[str] | None = None
    labels: Sequence[str] | None = None
    patients: Path | None = None
    resamples: int = DEFAULT_RESAMPLES
    seed: int = 0
    images: Path | None = None
    n_worst: int = 3
    nsd_curve_mm: float = 10.0
    workers: int = 1


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        path: The page.
        sections: Its sections.
        warnings: What a reader should know; they stand in the page too.
    """

    path: Path
    sections: Sequence[Section]
    warnings: Sequence[str]


_DEFAULTS = ReportOptions()


def make_report(
    folders: Mapping[str, Path], output: Path, options: ReportOptions = _DEFAULTS, *, progress: bool = False
) -> Report:
    """Make a report of one or several methods' scores.

    Args:
        folders: Folder that `python -m evaluation.test3d` wrote, by name of the method.
        output: Folder for report.html, figures and tables; made if it doesn't exist.
        options: What goes into it.
        progress: Whether to show progress bars on stderr.

    Returns:
        What was written.

    Raises:
        EvaluationError: If scores are missing or don't belong together, or the output can't be written.
    """
    inputs, warnings = _read(folders, options)
    unfinished = output / _UNFINISHED
    parts: list[Callable[[], Found]] = [
        lambda: sections.averages(inputs),
        lambda: sections.distributions(inputs),
        lambda: sections.comparison(inputs),
        lambda: sections.surface_dice(inputs, options.nsd_curve_mm, unfinished, options.workers, progress),
        lambda: sections.calibration(inputs),
        lambda: sections.worst_cases(inputs, options.n_worst, options.images),
        lambda: sections.all_cases(inputs),
        lambda: sections.definitions(inputs),
    ]
    with figure_style():
        found = [part() for part in tqdm(parts, desc="report", unit="section", disable=not progress)]
    warnings = list(dict.fromkeys([*warnings, *(warning for one in found for warning in one.warnings)]))
    made = [one.section for one in found if one.section is not None]
    volumes = [volume for one in found for volume in one.volumes]
    _write(output, render_page(options.title, inputs, made, volumes, warnings), made)
    rmtree(unfinished, ignore_errors=True)
    return Report(output / PAGE_FILE, made, warnings)


def _read(folders: Mapping[str, Path], options: ReportOptions) -> tuple[ReportInputs, list[str]]:
    methods = [read_method(name, folder) for name, folder in folders.items()]
    stored = {method.name: method.stored for method in methods}
    common = common_keys(list(stored.values()))
    if not common:
        raise EvaluationError("the methods must have a label and a metric in common, got none; score the same data set")
    names = {label: name for one in stored.values() for label, name in one.label_names.items()}
    rows = choose_labels(common, names, options.labels)
    metrics = choose_metrics(common, options.metrics)
    comparisons: list[MetricComparison] = []
    warnings: list[str] = []
    if len(methods) > 1:
        cases = {case for one in stored.values() for case in one.cases}
        patients = read_patients(options.patients, cases) if options.patients else None
        comparisons, warnings = compare_methods(
            stored, metrics=metrics, labels=rows, patients=patients, resamples=options.resamples, seed=options.seed
        )
    warnings += [f"{method.name}: {warning}" for method in methods for warning in method.summary["warnings"]]
    warnings += [
        f"{m.name}: case {f['case']} not scored: {f['message']}" for m in methods for f in m.summary["failures"]
    ]
    label_names = {**{row: names.get(row, row) for row in rows}, FOREGROUND: "mean over labels"}
    return ReportInputs(methods, rows, label_names, metrics, comparisons), warnings


def _write(output: Path, page: str, made: Sequence[Section]) -> None:
    """Write figures and tables, then the page; each file is complete or not there."""
    files: dict[Path, bytes] = {}
    for section in made:
        for picture in section.pictures:
            files[output / _FIGURES / f"{picture.name}.png"] = picture.png
            if picture.svg:
                files[output / _FIGURES / f"{picture.name}.svg"] = picture.svg
        for table in section.tables:
            for ending, text in (("csv", table.csv()), ("tex", table.latex()), ("md", table.markdown())):
                files[output / _TABLES / f"{table.name}.{ending}"] = text.encode()
    files[output / PAGE_FILE] = page.encode()
    try:
        for folder in {path.parent for path in files}:
            folder.mkdir(parents=True, exist_ok=True)
        with renamed_when_complete(*files) as parts:
            for part, content in zip(parts, files.values(), strict=True):
                part.write_bytes(content)
    except OSError as error:
        raise EvaluationError(f"--output {output}: can't be written: {error.strerror}; choose another") from error
