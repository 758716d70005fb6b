"""The sections of a report, each a few tables and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..comparison_files import DEFINITIONS as COMPARISON_DEFINITIONS
from ..curves_file import CURVES_FILE, read_curves
from ..definitions import direction
from .figures.boxes import draw_boxes
from .figures.calibration import draw_reliability, draw_thresholds
from .figures.differences import draw_differences
from .figures.heat_map import draw_heat_map
from .figures.rank_stability import draw_rank_stability
from .figures.significance import draw_significance
from .figures.surface_dice import draw_surface_dice
from .figures.volumes import draw_volumes
from .inputs import ReportInputs
from .nsd_curves import compute_nsd_curves
from .slices import draw_slices
from .style import Picture
from .surface_view import draw_surfaces
from .tables import Table, cases_table, differences_table, metric_table, number, rankings_table
from .titles import metric_title
from .viewer_volumes import encode_case
from .worst_cases import MOST_SHOWN_LABELS, WorstCase, choose_worst, load_worst, most_wrong_labels


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: Its anchor.
        title: Heading.
        text: What stands below it.
        tables: Tables, which come first.
        pictures: Figures.
        definitions: Terms and what they mean.
    """

    id: str
    title: str
    text: str = ""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    definitions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What a section adds to the page beside itself.

    Attributes:
        section: The section, None if there is nothing to show.
        warnings: What a reader should know.
        volumes: Cases for the viewer, plain JSON values.
    """

    section: Section | None
    warnings: Sequence[str] = ()
    volumes: Sequence[Mapping[str, Any]] = ()


def averages(inputs: ReportInputs) -> Found:
    """Return tables of averages and heat maps."""
    tables = [metric_table(inputs, metric, direction(metric)) for metric in inputs.metrics]
    pictures = [draw_heat_map(inputs, metric) for metric in inputs.metrics]
    return Found(Section("averages", "Averages", tables=tables, pictures=pictures))


def distributions(inputs: ReportInputs) -> Found:
    """Return boxes of each metric, and volumes."""
    if not inputs.labels:
        return Found(None)
    pictures = [draw_boxes(inputs, metric) for metric in inputs.metrics]
    volumes = draw_volumes(inputs)
    return Found(Section("distributions", "Cases", pictures=[*pictures, *([volumes] if volumes else [])]))


def comparison(inputs: ReportInputs) -> Found:
    """Return what the cases say about pairs of methods, and rankings; nothing with one method."""
    if not inputs.comparisons:
        return Found(None)
    pictures = [draw_differences(inputs)]
    if any(one.rankings and one.label == inputs.overall for one in inputs.comparisons):
        pictures += [draw_significance(inputs), draw_rank_stability(inputs)]
    n_shared = len(set.intersection(*(method.stored.cases for method in inputs.methods)))
    cases = f"{n_shared} cases" if n_shared != 1 else "one case"
    grouped = any(one.n_patients != len(one.cases) for one in inputs.comparisons)
    people = ", those of one patient drawn together" if grouped else ""
    text = f"On the {cases} that all methods were scored on{people}."
    tables = [differences_table(inputs), rankings_table(inputs)]
    return Found(Section("comparison", "Comparison of methods", text, tables, pictures))


def surface_dice(inputs: ReportInputs, largest_mm: float, log_folder: Path, workers: int, progress: bool) -> Found:
    """Return the curve of NSD against the tolerance, for which the files are read again.

    Args:
        inputs: The scores.
        largest_mm: Largest tolerance in mm; 0 for no curve.
        log_folder: Folder for finished cases.
        workers: Number of processes.
        progress: Whether to show progress bars.

    Returns:
        The section; none if no file is there any more.
    """
    if not largest_mm or set(inputs.rows) == {"0"}:
        return Found(None)
    curves = compute_nsd_curves(inputs.methods, largest_mm, log_folder, workers=workers, progress=progress)
    warnings = list(curves.warnings)
    if len(warnings) > 3:
        warnings = [*warnings[:3], f"NSD by tolerance: {len(curves.warnings) - 3} more files couldn't be read again"]
    if not any(len(values) for by_label in curves.values.values() for values in by_label.values()):
        return Found(None, warnings)
    pictures = [draw_surface_dice(inputs, curves)]
    return Found(Section("tolerance", "Surface agreement by tolerance", pictures=pictures), warnings)


def calibration(inputs: ReportInputs) -> Found:
    """Return reliability and Dice by threshold, where an evaluation left curves."""
    curves = {
        method.name: read_curves(method.folder) for method in inputs.methods if (method.folder / CURVES_FILE).is_file()
    }
    if not any(label in one.labels for one in curves.values() for label in inputs.labels):
        return Found(None)
    pictures = [draw_reliability(inputs, curves), draw_thresholds(inputs, curves)]
    return Found(Section("calibration", "Probabilities", pictures=pictures))


def worst_cases(inputs: ReportInputs, n_worst: int, images: Path | None) -> Found:
    """Return the worst cases as slices, surfaces and volumes.

    Args:
        inputs: The scores.
        n_worst: How many.
        images: Folder of the images, None for the one beside the references.

    Returns:
        The section; none if there is no case to show.
    """
    metric = next((one for one in inputs.metrics if direction(one)), None)
    if not n_worst or metric is None or not inputs.drawable_labels:
        return Found(None)
    cases, warnings = load_worst(inputs, choose_worst(inputs, metric, direction(metric), n_worst), images)
    if not cases:
        return Found(None, warnings)
    pictures = [picture for rank, case in enumerate(cases) for picture in _pictures(inputs, case, metric, rank + 1)]
    volumes = [
        encode_case(case, most_wrong_labels(case, inputs.drawable_labels), inputs.label_names)
        for case in cases
        if case.reference.ndim == 3
    ]
    text = (
        f"The cases with the worst {metric_title(metric)} by any method "
        f"({inputs.label_names[inputs.overall]}, the worst first)."
    )
    if len(inputs.drawable_labels) > MOST_SHOWN_LABELS:
        text += f" Pictures show the {MOST_SHOWN_LABELS} labels with the most wrong voxels of a case."
    return Found(Section("worst", "Worst cases", text, pictures=pictures), warnings, volumes)


def _pictures(inputs: ReportInputs, case: WorstCase, metric: str, rank: int) -> list[Picture]:
    values = {
        method.name: f"{metric_title(metric)} {number(method.case_value(case.case, inputs.overall, metric)[0])}"
        for method in inputs.methods
    }
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in case.case)[:60]
    shown = most_wrong_labels(case, inputs.drawable_labels)
    slices = draw_slices(case, shown, inputs.label_names, values, f"worst_{rank}_{plain}_slices")
    surfaces = draw_surfaces(case, shown, f"worst_{rank}_{plain}_surfaces")
    return [slices, *([surfaces] if surfaces else [])]


def all_cases(inputs: ReportInputs) -> Found:
    """Return a table of all cases."""
    return Found(Section("cases", "All cases", tables=[cases_table(inputs)]))


def definitions(inputs: ReportInputs) -> Found:
    """Return what each number means."""
    shown = {name: text for method in inputs.methods for name, text in method.summary["definitions"].items()}
    if inputs.comparisons:
        shown |= COMPARISON_DEFINITIONS
    return Found(Section("definitions", "Definitions", definitions=shown))
