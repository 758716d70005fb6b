"""Gather scores, make the sections, write the report."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

from tqdm import tqdm

from ..comparison import (
    DEFAULT_RESAMPLES,
    MetricComparison,
    check_same_data,
    choose_labels,
    choose_metrics,
    common_keys,
    compare_methods,
)
from ..errors import EvaluationError
from ..output import prepare_output, renamed_when_complete
from ..score_files import FOREGROUND, read_patients
from . import sections
from .inputs import Method, ReportInputs, read_method
from .page import render_page
from .sections import Found, Section
from .style import figure_style

PAGE_FILE = "report.html"
_FIGURES, _TABLES, _UNFINISHED = "figures", "tables", ".nsd_curves"
_MANIFEST = ".report_files.json"
"""Names of the files of the last report, so that the next one can remove what it doesn't replace."""


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
        complete: Whether every section could be made.
    """

    path: Path
    sections: Sequence[Section]
    warnings: Sequence[str]
    complete: bool


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
    methods = [read_method(name, folder) for name, folder in folders.items()]
    prepare_output(output)
    unfinished = output / _UNFINISHED
    made: list[Section] = []
    volumes: list[Mapping[str, Any]] = []
    n_failed = 0
    with figure_style(), tqdm(total=9, desc="report", unit="section", disable=not progress) as bar:
        inputs, warnings = _compared(methods, options)
        bar.update()
        for part in _parts(inputs, options, unfinished, progress):
            try:
                found = part()
            except Exception as error:  # one picture must not cost the page
                n_failed += 1
                warnings.append(f"a section is missing: {type(error).__name__}: {error}")
                continue
            finally:
                bar.update()
            made += [found.section] if found.section else []
            volumes += found.volumes
            warnings += found.warnings
    warnings = list(dict.fromkeys(warnings))
    _write(output, render_page(options.title, inputs, made, volumes, warnings), made)
    rmtree(unfinished, ignore_errors=True)
    return Report(output / PAGE_FILE, made, warnings, complete=not n_failed)


def _parts(inputs: ReportInputs, options: ReportOptions, unfinished: Path, progress: bool) -> list[Callable[[], Found]]:
    return [
        lambda: sections.averages(inputs),
        lambda: sections.distributions(inputs),
        lambda: sections.comparison(inputs),
        lambda: sections.surface_dice(inputs, options.nsd_curve_mm, unfinished, options.workers, progress),
        lambda: sections.calibration(inputs),
        lambda: sections.worst_cases(inputs, options.n_worst, options.images),
        lambda: sections.all_cases(inputs),
        lambda: sections.definitions(inputs),
    ]


def _compared(methods: Sequence[Method], options: ReportOptions) -> tuple[ReportInputs, list[str]]:
    """Choose labels and metrics, and compare the methods if there are several."""
    stored = {method.name: method.stored for method in methods}
    warnings = check_same_data(stored)
    common = common_keys(list(stored.values()))
    if not common:
        raise EvaluationError("the methods must have a label and a metric in common, got none; score the same data set")
    names = {label: name for one in stored.values() for label, name in one.label_names.items()}
    rows = choose_labels(common, names, options.labels)
    metrics = choose_metrics(common, options.metrics)
    known = dict.fromkeys(metric for one in stored.values() for _, metric in one.values)
    not_common = [metric for metric in known if metric not in {metric for _, metric in common}]
    if not_common:
        warnings.append(f"not every method has {', '.join(not_common)}, so they are left out")
    cases = {case for one in stored.values() for case in one.cases}
    patients = read_patients(options.patients, cases) if options.patients else None
    comparisons: list[MetricComparison] = []
    if len(methods) > 1:
        try:
            comparisons, more = compare_methods(
                stored, metrics=metrics, labels=rows, patients=patients, resamples=options.resamples, seed=options.seed
            )
            warnings += more
        except EvaluationError as error:
            warnings.append(f"the methods aren't compared: {error}")
    for method in methods:
        failures = method.summary["failures"]
        warnings += [f"{method.name}: {warning}" for warning in method.summary["warnings"]]
        warnings += [f"{method.name}: case {one['case']} not scored: {one['message']}" for one in failures]
        warnings += _newer_files(method)
    label_names = {**{row: names.get(row, row) for row in rows}, **names, FOREGROUND: "mean over labels"}
    return ReportInputs(methods, rows, label_names, metrics, comparisons), warnings


def _newer_files(method: Method) -> list[str]:
    """Warn of predictions that were written after the scores: pictures of them would show something else."""
    scored = method.stored.path.stat().st_mtime
    newer = [one.prediction for one in method.files.values() if one.prediction.is_file()]
    newer = [path for path in newer if path.stat().st_mtime > scored]
    if not newer:
        return []
    return [f"{method.name}: {len(newer)} predictions, {newer[0]} first, are newer than their scores; score them again"]


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
    manifest = output / _MANIFEST
    names = sorted(str(path.relative_to(output)) for path in files)
    files[manifest] = json.dumps(names).encode()
    try:
        before = _names_in(manifest)
        for folder in {path.parent for path in files}:
            folder.mkdir(parents=True, exist_ok=True)
        with renamed_when_complete(*files) as parts:
            for part, content in zip(parts, files.values(), strict=True):
                part.write_bytes(content)
        for name in set(before) - set(names):
            (output / name).unlink(missing_ok=True)
    except OSError as error:
        raise EvaluationError(f"--output {output}: can't be written: {error.strerror}; choose another") from error


def _names_in(manifest: Path) -> list[str]:
    """Return the files that the last report left here."""
    try:
        names = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    folders = {_FIGURES, _TABLES}
    return [name for name in names if isinstance(name, str) and Path(name).parent.as_posix() in folders]
