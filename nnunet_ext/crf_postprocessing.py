"""Refine a folder of predictions with a mean-field CRF: new label maps and npz files in the same layout."""

import json
import logging
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .atomic import atomic_path, write_json
from .data.geometry import Geometry, from_canonical, to_canonical
from .data.image_io import NATURAL_IMAGE_ENDINGS, read_channels, read_geometry, write_label
from .data.label_map import LabelMap
from .data.normalization import ChannelScheme, measure_image, normalize
from .data.raw_dataset import Case, find_cases, read_dataset_json
from .errors import DatasetError, UserError
from .networks.crf import BANDWIDTHS, default_bandwidths, make_field

logger = logging.getLogger(__name__)

ARRAYS = ("logits", "probabilities")
"""Names of the arrays in an npz file; the first that is there is refined."""

_RECORD = "crf.json"
_SMALLEST_PROBABILITY = 1e-6
_ROUNDING = 0.01
"""By how much probabilities may leave [0, 1]: those kept in half precision do."""


@dataclass
class RefinedFolder:
    """What became of the cases of a folder.

    Args:
        refined: Cases that were refined now.
        skipped: Cases that were finished before.
        failures: What is wrong with each case that could not be refined.
    """

    refined: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    """What all cases share."""

    predictions: Path
    output: Path
    label_map: LabelMap
    file_ending: str
    reoriented: bool
    kind: str
    options: Mapping[str, Any]
    device: torch.device

    def layer(self, spacing_mm: Sequence[float]) -> torch.nn.Module:
        """Return the CRF for an image; bandwidths that are not given follow the size of its voxels."""
        given = {name: value for name, value in self.options.items() if value is not None}
        options = {**default_bandwidths(spacing_mm), **given, "regions": self.label_map.has_regions}
        return make_field(self.kind, 3, options).to(self.device).eval()


def refine_folder(
    predictions_dir: str | Path,
    images_dir: str | Path,
    output_dir: str | Path,
    *,
    field_options: Mapping[str, Any] | None = None,
    kind: str = "exact",
    device: str = "cpu",
    overwrite: bool = False,
) -> RefinedFolder:
    """Refine the probabilities or logits of every case of a prediction folder, in 3D and with the case's spacing.

    A case that cannot be refined is logged and remembered, and the next one follows. Finished cases are skipped, so
    the same call goes on with an interrupted run; those that were predicted again since are refined again.

    Args:
        predictions_dir: Folder with `<case>.npz` and `dataset.json`, as nnU-Net and the bundles write it. For
            nnU-Net's own `fold_<n>/validation` the latter, and `plans.json`, are found in the folder of the model.
        images_dir: Folder with `<case>_0000<ending>`, ...; the appearance term sees each channel as a z-score.
        output_dir: Where the refined predictions go: `<case>.npz` with the same arrays, label maps, the rest copied.
        field_options: Options of `nnunet_ext.networks.mean_field.MeanFieldCRF`. Bandwidths that are None or left out
            are those of `nnunet_ext.networks.crf.default_bandwidths` for each image's own voxels.
        kind: `exact` or `crfseg`.
        device: Where to compute, as torch names it.
        overwrite: Whether finished cases are refined again.

    Returns:
        What became of each case.

    Raises:
        UserError: If a folder lacks what is needed, an option is wrong, or `output_dir` is that of the predictions,
            holds files of another origin or was made with other options.
    """
    predictions, images, output = Path(predictions_dir), Path(images_dir), Path(output_dir)
    description, label_map = _read_description(predictions)
    cases, failures = find_cases(images, description["file_ending"], len(description["channel_names"]))
    names = sorted(path.stem for path in predictions.glob("*.npz") if not path.name.startswith("."))
    if not names:
        raise UserError(
            f"{predictions}: holds no <case>.npz; predict with --save_probabilities true (bundles), "
            "--save_probabilities (nnUNetv2_predict), or validate again: nnUNetv2_train ... --val --npz"
        )
    options = {**dict.fromkeys(BANDWIDTHS), **(field_options or {})}
    ending, reoriented = description["file_ending"], _are_reoriented(_describing(predictions, "plans.json"))
    try:
        job = _Job(predictions, output, label_map, ending, reoriented, kind, options, torch.device(device))
        job.layer((1.0, 1.0, 1.0))  # a wrong option is wrong for every image
    except (ValueError, ImportError, RuntimeError) as error:  # torch: of a device that is not there
        raise UserError(str(error)) from error
    _claim_output(predictions, output, {"kind": kind, "options": options}, ending, overwrite)
    result = RefinedFolder()
    unsaved = {path.name.removesuffix(job.file_ending) for path in predictions.glob(f"[!.]*{job.file_ending}")}
    for name in sorted(unsaved - set(names)):
        result.failures[name] = f"{predictions / name}.npz: not found; predict the case again with its probabilities"
    for name in names:
        if not overwrite and _is_finished(job, name):
            result.skipped.append(name)
            continue
        try:
            if name not in cases:
                raise DatasetError(failures.get(name, f"{images}: has no image {name}_0000{job.file_ending}"))
            _refine_case(job, cases[name])
        except torch.OutOfMemoryError as error:
            result.failures[name] = f"{job.predictions / name}.npz: too large for {device} ({error}); take --device cpu"
            logger.error(f"case {name} skipped: {result.failures[name]}")
        except DatasetError as error:
            result.failures[name] = str(error)
            logger.error(f"case {name} skipped: {error}")
        else:
            result.refined.append(name)
            logger.info(f"case {name} refined ({len(result.refined)} of {len(names) - len(result.skipped)})")
    return result


def _describing(predictions: Path, name: str) -> Path:
    """Return a file that describes predictions: beside them, or in the model's folder for `fold_<n>/validation`."""
    beside = any((predictions / other).is_file() for other in (name, "dataset.json"))
    above = predictions.resolve().parent.parent / name
    return above if above.is_file() and not beside else predictions / name


def _read_description(predictions: Path) -> tuple[dict[str, Any], LabelMap]:
    """Return the content of `dataset.json` without an ignore label, and its labels."""
    if not predictions.is_dir():
        raise UserError(f"{predictions}: is no folder; check --predictions")
    file = _describing(predictions, "dataset.json")
    if not file.is_file():
        above = predictions.resolve().parent.parent / file.name
        raise UserError(
            f"{file}: not found, nor {above}, where nnU-Net's fold_<n>/validation has it; check --predictions, or "
            "copy the data set's dataset.json into it"
        )
    description = read_dataset_json(file, drop_ignore_label=True)
    return description, LabelMap.from_dataset_json(description, file)


def _are_reoriented(plans_file: Path) -> bool:
    """Say whether arrays run along S, A, R, whatever the axes of the images: some of nnU-Net's readers turn them."""
    if not plans_file.is_file():
        return False
    return str(_read_json(plans_file).get("image_reader_writer", "")).endswith("WithReorient")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: need a JSON object, got {content!r}")
    return content


def _is_finished(job: _Job, name: str) -> bool:
    """Say whether the label map of a case is there, and no older than what it was made from."""
    label = job.output / f"{name}{job.file_ending}"
    return label.is_file() and label.stat().st_mtime_ns >= (job.predictions / f"{name}.npz").stat().st_mtime_ns


def _claim_output(predictions: Path, output: Path, options: dict[str, Any], file_ending: str, overwrite: bool) -> None:
    """Copy what describes the folder, and remember the options; refuse to mix cases of different ones."""
    if output.resolve() == predictions.resolve():
        raise UserError(f"output: must be another folder than the predictions, got {output} for both")
    content = {"predictions": str(predictions.resolve()), **options}
    record = output / _RECORD
    ours = record.is_file()
    found = _read_json(record) if ours else content
    if found != content and not overwrite:
        raise UserError(
            f"output: {output} holds predictions refined with {found}, now asked: {content}; "
            "give another --output, or --overwrite"
        )
    held = list(output.iterdir()) if output.is_dir() else []
    results = [path for path in held if path.name.endswith((".npz", ".pkl", file_ending))]
    if results and not ours:
        raise UserError(
            f"output: {output} holds {results[0].name}, which this command did not write; give a new folder"
        )
    for stale in results if found != content else ():
        stale.unlink()  # a continued run must not mix the two
    write_json(record, content)
    for name in ("dataset.json", "plans.json"):
        if (source := _describing(predictions, name)).is_file():
            shutil.copyfile(source, output / name)


def _refine_case(job: _Job, case: Case) -> None:
    """Write the files of one case; the label map comes last and marks the case as finished."""
    file = job.predictions / f"{case.name}.npz"
    present, logits = _read_logits(file, job.label_map)
    image, geometry = read_channels(list(case.images))
    spacing = _spacing_zyx_mm(geometry)
    if job.reoriented:
        image, spacing = _turned(to_canonical(image, geometry)), _along_canonical(spacing, geometry)
    if logits.shape[1:] != image.shape[1:]:
        raise DatasetError(
            f"{file}: must have the size of {case.images[0].name}, {image.shape[1:]}, got {tuple(logits.shape[1:])}; "
            "give the images that were predicted"
        )
    _check_grid(job, case, geometry)
    refined = _refine(job, logits, image, spacing)
    arrays: dict[str, Any] = {}
    if "logits" in present:
        arrays["logits"] = refined.numpy()
    if "probabilities" in present:
        arrays["probabilities"] = job.label_map.probabilities(refined).numpy()
    with atomic_path(job.output / file.name) as temporary:
        np.savez_compressed(temporary, **arrays)
    properties = file.with_suffix(".pkl")
    if properties.is_file():
        with atomic_path(job.output / properties.name) as temporary:
            shutil.copyfile(properties, temporary)
    label = job.label_map.decode(refined).numpy()
    label = from_canonical(_turned(label), geometry) if job.reoriented else label
    write_label(job.output / (case.name + job.file_ending), label, geometry)


def _check_grid(job: _Job, case: Case, geometry: Geometry) -> None:
    """Refuse an image that lies elsewhere than the label map that was predicted for it."""
    label = job.predictions / (case.name + job.file_ending)
    if not label.is_file() or job.file_ending.lower() in NATURAL_IMAGE_ENDINGS:
        return
    if difference := read_geometry(label).difference(geometry):
        raise DatasetError(f"{label} and {case.images[0]}: have {difference}; give the images that were predicted")


def _spacing_zyx_mm(geometry: Geometry) -> tuple[float, ...]:
    """Return the voxel size; a 2D image, which has no third, gets its smaller one, to be refined alike at any size."""
    depth, height, width = geometry.spacing_zyx_mm()
    return min(height, width) if geometry.dimension == 2 else depth, height, width


def _turned(array: np.ndarray) -> np.ndarray:
    """Turn an array (..., Z, Y, X) that runs along S, P, L so that it runs along S, A, R; or back."""
    return array[..., ::-1, ::-1]


def _along_canonical(spacing_mm: tuple[float, ...], geometry: Geometry) -> tuple[float, ...]:
    return tuple(spacing_mm[axis] for axis in geometry.axis_order()[0])


def _refine(job: _Job, logits: torch.Tensor, image: np.ndarray, spacing_mm: tuple[float, ...]) -> torch.Tensor:
    """Return refined logits (K, Z, Y, X) on the CPU."""
    scheme = ChannelScheme("ZScoreNormalization")
    guide = np.stack([normalize(channel, scheme, measure_image(channel)) for channel in image])
    with torch.inference_mode():
        tensors = (tensor[None].to(job.device) for tensor in (logits, torch.from_numpy(guide)))
        return job.layer(spacing_mm)(*tensors, spacing_mm)[0].cpu()


def _read_logits(file: Path, label_map: LabelMap) -> tuple[set[str], torch.Tensor]:
    """Return the names of the arrays in an npz file, and logits (K, Z, Y, X), made from probabilities if need be."""
    try:
        with np.load(file) as arrays:
            present = set(arrays.files) & set(ARRAYS)
            name = next((name for name in ARRAYS if name in present), None)
            values = arrays[name] if name is not None else None
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:  # TypeError: a lone array
        raise DatasetError(f"{file}: cannot be read ({error}); predict the case again") from error
    if values is None:
        raise DatasetError(f"{file}: must hold `probabilities` or `logits`, got neither; predict the case again")
    if values.ndim != 4 or len(values) != label_map.num_outputs or values.dtype.kind not in "fiu":
        raise DatasetError(
            f"{file}: {name} must be numbers of shape ({label_map.num_outputs}, Z, Y, X) as dataset.json has it, "
            f"got {values.dtype} of shape {values.shape}; predict the case again"
        )
    with np.errstate(over="ignore"):
        tensor = torch.from_numpy(values.astype(np.float32))
    if not tensor.isfinite().all():
        raise DatasetError(f"{file}: {name} must be finite, got NaN or infinity; predict the case again")
    if name == "logits":
        return present, tensor
    if tensor.numel() and not -_ROUNDING <= tensor.min() <= tensor.max() <= 1 + _ROUNDING:
        got = f"{float(tensor.min()):.3g} to {float(tensor.max()):.3g}"
        raise DatasetError(f"{file}: probabilities must lie in [0, 1], got {got}; are they logits?")
    if label_map.has_regions:
        return present, torch.logit(tensor, eps=_SMALLEST_PROBABILITY)
    return present, tensor.clamp(min=_SMALLEST_PROBABILITY).log()
