"""Time our scores against other packages' on the same volumes, compare the values, and print the ratios.

Every measurement runs in a process of its own, after a warm-up on a small volume: CPU seconds, wall seconds, and the
memory that scoring adds to the two arrays. `--files` times the commands instead, from files on disk to written scores.
A package that isn't installed is left out by name: pip install -e '.[benchmark]'.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from benchmark_volumes import SPACING_MM, VOLUMES, make_pair

Values = dict[str, float]
"""Value by `<label> <metric>`, the metric as we call it."""

LARGEST_DIFFERENCE = 1e-4
"""Largest difference of values that agree: MONAI and torchmetrics compute in float32."""


def ours(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """All overlap and surface metrics, as `python -m evaluation.test3d` has them."""
    from evaluation import score

    scores = score(reference, prediction, SPACING_MM, labels)
    return {f"{label} {name}": value for label in labels for name, value in scores[label].metrics().items()}


def ours_dual(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """The same with every distance between dual-grid surfaces."""
    from evaluation import MetricOptions, score

    scores = score(reference, prediction, SPACING_MM, labels, options=MetricOptions(boundary="dual"))
    names = {name: f"dual {name}" for name in ("hd_mm", "hd95_mm", "masd_mm")} | {"nsd_2mm": "nsd_2mm"}
    return {f"{label} {names[name]}": scores[label].metrics()[name] for label in labels for name in names}


def ours_union(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """The same as by default with percentiles of both directions together."""
    from evaluation import MetricOptions, score

    scores = score(reference, prediction, SPACING_MM, labels, options=MetricOptions(hd_directions="union"))
    names = {"hd95_mm": "union hd95_mm", "assd_mm": "assd_mm"}
    return {f"{label} {names[name]}": scores[label].metrics()[name] for label in labels for name in names}


def surface_distance(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """Dual-grid HD, HD95 and NSD."""
    import surface_distance as package

    values = {}
    for label in labels:
        found = package.compute_surface_distances(reference == label, prediction == label, SPACING_MM)
        values[f"{label} dual hd_mm"] = package.compute_robust_hausdorff(found, 100)
        values[f"{label} dual hd95_mm"] = package.compute_robust_hausdorff(found, 95)
        values[f"{label} nsd_2mm"] = package.compute_surface_dice_at_tolerance(found, 2.0)
        values[f"{label} dual masd_mm"] = sum(package.compute_average_surface_distance(found)) / 2
    return values


def monai_surface(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """HD95, ASSD and NSD of MONAI, a label at a time."""
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    values = {}
    for label in labels:
        masks = [torch.from_numpy(m == label)[None, None] for m in (prediction, reference)]
        keywords = {"include_background": True, "spacing": list(SPACING_MM)}
        values[f"{label} hd95_mm"] = compute_hausdorff_distance(*masks, percentile=95, **keywords).item()
        values[f"{label} assd_mm"] = compute_average_surface_distance(*masks, symmetric=True, **keywords).item()
        values[f"{label} nsd_2mm"] = compute_surface_dice(*masks, [2.0], use_subvoxels=True, **keywords).item()
    return values


def monai_overlap(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """Dice and IoU of MONAI, a label at a time."""
    import torch
    from monai.metrics import compute_dice, compute_iou

    values = {}
    for label in labels:
        masks = [torch.from_numpy(m == label)[None, None] for m in (prediction, reference)]
        values[f"{label} dice"] = compute_dice(*masks).item()
        values[f"{label} iou"] = compute_iou(*masks).item()
    return values


def nnunet_overlap(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """What `nnUNetv2_evaluate_folder` does with a case that is in memory."""
    from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn, region_or_label_to_mask

    values = {}
    for label in labels:
        masks = [region_or_label_to_mask(m, label) for m in (reference, prediction)]
        tp, fp, fn, _ = compute_tp_fp_fn_tn(*masks, None)
        values[f"{label} dice"] = 2 * tp / (2 * tp + fp + fn)
        values[f"{label} iou"] = tp / (tp + fp + fn)
    return values


def simpleitk_overlap(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """SimpleITK's LabelOverlapMeasures."""
    import SimpleITK as sitk  # noqa: N813

    images = [sitk.GetImageFromArray(m) for m in (reference, prediction)]
    measure = sitk.LabelOverlapMeasuresImageFilter()
    measure.Execute(*images)
    return {f"{label} dice": measure.GetDiceCoefficient(label) for label in labels}


def medpy_surface(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """HD and ASSD of MedPy."""
    from medpy.metric import binary

    values = {}
    for label in labels:
        masks = [prediction == label, reference == label]
        values[f"{label} hd_mm"] = binary.hd(*masks, SPACING_MM)
        values[f"{label} dice"] = binary.dc(*masks)
        values[f"{label} assd_mm"] = binary.assd(*masks, SPACING_MM)
    return values


def torchmetrics_overlap(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """Dice of torchmetrics, a label at a time."""
    import torch
    from torchmetrics.functional.segmentation import dice_score

    values = {}
    for label in labels:
        masks = [torch.from_numpy(m == label)[None, None].int() for m in (prediction, reference)]
        values[f"{label} dice"] = dice_score(*masks, num_classes=1, include_background=True).item()
    return values


def panoptica_all(reference: np.ndarray, prediction: np.ndarray, labels: list[int]) -> Values:
    """Dice, IoU, ASSD, HD and HD95 of panoptica, each label an instance that is matched already.

    Its ASSD is the mean of both means, its HD95 that of both directions together.
    """
    from panoptica import InputType, Metric, Panoptica_Evaluator

    metrics = [Metric.DSC, Metric.IOU, Metric.ASSD, Metric.HD, Metric.HD95]
    evaluator = Panoptica_Evaluator(InputType.MATCHED_INSTANCE, instance_metrics=metrics, global_metrics=[])
    result = evaluator.evaluate(prediction, reference, voxelspacing=SPACING_MM, verbose=False)["ungrouped"]
    names = {"sq_dsc": "dice", "sq": "iou", "sq_assd": "masd_mm", "sq_hd": "hd_mm", "sq_hd95": "union hd95_mm"}
    values, sizes = {}, np.bincount(reference.reshape(-1))
    for label, row in zip(labels, result.to_dict(True)["reference_instances"], strict=True):
        if row["voxel_count"] != sizes[label]:
            raise RuntimeError(f"panoptica's instances must be in the order of the labels, got another at {label}")
        values |= {f"{label} {names[key]}": float(row[key]) for key in names}
    return values


PEERS: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray, list[int]], Values]]] = {
    "ours": ("evaluation", ours),
    "ours, dual": ("evaluation", ours_dual),
    "ours, union": ("evaluation", ours_union),
    "surface-distance": ("surface_distance", surface_distance),
    "MONAI, surface": ("monai", monai_surface),
    "MONAI, overlap": ("monai", monai_overlap),
    "nnU-Net, overlap": ("nnunetv2", nnunet_overlap),
    "SimpleITK, overlap": ("SimpleITK", simpleitk_overlap),
    "MedPy, surface": ("medpy", medpy_surface),
    "panoptica": ("panoptica", panoptica_all),
    "torchmetrics, overlap": ("torchmetrics", torchmetrics_overlap),
}


def measure(peer: str, folder: Path) -> dict:
    """Score a volume in this process.

    Args:
        peer: One of `PEERS`.
        folder: Where the volume lies.

    Returns:
        CPU and wall seconds, the memory added in MB, and the values.
    """
    reference, prediction = np.load(folder / "reference.npy"), np.load(folder / "prediction.npy")
    labels = [int(label) for label in np.flatnonzero(np.bincount(reference.reshape(-1))) if label]
    function = PEERS[peer][1]
    small = np.zeros((2, 24, 40, 40), np.uint8)
    small[0, 4:12, 4:20, 4:20] = small[1, 6:14, 5:21, 4:20] = 1
    function(small[0], small[1], [1])
    if peer.startswith("ours"):
        from evaluation.scoring import warm_up

        warm_up()
    before = _reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    values = function(reference, prediction, labels)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_s": cpu, "wall_s": wall, "added_mb": _peak_mb() - before, "values": values}


def _reset_peak() -> float:
    """Forget the highest memory so far where the system can (Linux); return that of now in MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_mb()


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(text for text in status.read_text(encoding="ascii").splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def compare(volumes: Iterable[str], peers: Iterable[str], repeats: int, limit_s: float) -> bool:
    """Measure every peer on every volume and print a table for each.

    Args:
        volumes: Some of `VOLUMES`.
        peers: Some of `PEERS`.
        repeats: Measurements of each, of which the fastest counts.
        limit_s: Time after which a measurement is given up.

    Returns:
        Whether some values were compared, and all that should agree do.
    """
    agree, n_compared = True, 0
    print(f"{platform.machine()}, Python {platform.python_version()}, one process each, {time.strftime('%Y-%m-%d')}")
    for volume in volumes:
        with tempfile.TemporaryDirectory() as folder:
            for name, array in zip(("reference", "prediction"), make_pair(volume), strict=True):
                np.save(Path(folder) / name, array)
            print(f"\n{volume}: {array.shape}\n")
            print("| package | CPU s | times ours | wall s | added MB | largest difference to ours, of values |")
            print("|---|---|---|---|---|---|", flush=True)
            known: Values = {}
            base = math.nan
            for peer in peers:
                result = _best_of(peer, folder, repeats, limit_s)
                if isinstance(result, str):
                    print(f"| {peer} | {result} | | | | |", flush=True)
                    continue
                base = result["cpu_s"] if peer == "ours" else base
                apart = differences(result["values"], known)
                n_compared += len(apart)
                agree = agree and max(apart, default=0.0) <= LARGEST_DIFFERENCE
                if peer.startswith("ours"):
                    known = result["values"] | known
                shown = f"{max(apart):.1g} of {len(apart)}" if apart else "" if peer == "ours" else "nan: none compared"
                print(
                    f"| {peer} | {result['cpu_s']:.3f} | {result['cpu_s'] / base:.1f} | {result['wall_s']:.3f} "
                    f"| {result['added_mb']:.0f} | {shown} |",
                    flush=True,
                )
    if not n_compared:
        print("error: needs values of ours and of another package to compare, got none; see --peers", file=sys.stderr)
    return agree and n_compared > 0


def differences(values: Values, known: Values) -> list[float]:
    """Return how far apart values are that have the same name.

    Args:
        values: Values of one package.
        known: Values of another.

    Returns:
        Absolute differences, >= 0; 0 where both are nan or the same infinity, inf where only one of them is.
    """
    apart = []
    for key in values.keys() & known.keys():
        one, other = values[key], known[key]
        same = one == other or (math.isnan(one) and math.isnan(other))
        apart.append(0.0 if same else abs(one - other) if math.isfinite(one) and math.isfinite(other) else math.inf)
    return apart


def _best_of(peer: str, folder: str, repeats: int, limit_s: float) -> dict | str:
    if importlib.util.find_spec(PEERS[peer][0]) is None:
        return "not installed"
    results = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--measure", peer, "--folder", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return f"more than {limit_s:.0f} s"
        if done.returncode:
            return f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:120]}"
        results.append(json.loads(done.stdout.splitlines()[-1]))
        if results[-1]["wall_s"] > 30:
            break
    return min(results, key=lambda result: result["cpu_s"])


def compare_commands(n_cases: int, workers: int) -> None:
    """Time our command and nnU-Net's from files on disk to written scores, and print a table.

    Args:
        n_cases: Number of cases, all like `abdomen`.
        workers: Processes of each command.
    """
    import nibabel as nib

    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        (folder / "references").mkdir()
        (folder / "predictions").mkdir()
        for side, array in zip(("references", "predictions"), make_pair("abdomen"), strict=True):
            first = folder / side / "case_000.nii.gz"
            nib.save(nib.Nifti1Image(array.T, np.diag([*SPACING_MM[::-1], 1.0])), first)
            for number in range(1, n_cases):
                shutil.copy(first, folder / side / f"case_{number:03d}.nii.gz")
        labels = {"background": 0, **{f"organ {label}": label for label in range(1, VOLUMES["abdomen"][1] + 1)}}
        content = {"labels": labels, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}, "numTraining": n_cases}
        (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
        (folder / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}), encoding="utf-8")
        sides = [str(folder / side) for side in ("references", "predictions")]
        ours = [sys.executable, "-m", "evaluation.test3d", "--predictions", sides[1], "--references", sides[0]]
        ours += ["--output", str(folder / "scores"), "--workers", str(workers)]
        ours += ["--dataset-json", str(folder / "dataset.json")]
        theirs = [str(Path(sys.executable).with_name("nnUNetv2_evaluate_folder")), *sides, "-np", str(workers)]
        theirs += ["-djfile", str(folder / "dataset.json"), "-pfile", str(folder / "plans.json")]
        fresh = {"NUMBA_CACHE_DIR": str(folder / "cache")}
        times = {
            "ours, first run after installation": _timed(ours, fresh),
            "ours": _timed(ours, fresh),
            "nnUNetv2_evaluate_folder (overlap only)": _timed(theirs, {}),
        }
        print(f"\n{n_cases} cases of {array.shape} on disk, {workers} processes\n")
        print("| command | wall s | CPU s | times ours (wall) |\n|---|---|---|---|")
        for name, (wall, cpu) in times.items():
            print(f"| {name} | {wall:.1f} | {cpu:.1f} | {wall / times['ours'][0]:.1f} |")


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Run the command line.

    Returns:
        Exit code: 1 if values that should agree don't, or if none were compared.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", nargs="+", choices=VOLUMES, default=list(VOLUMES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each, the fastest counts")
    parser.add_argument("--limit-s", type=float, default=900, help="give a measurement up after so many seconds")
    parser.add_argument("--files", type=int, metavar="N", help="time commands on N cases on disk instead")
    parser.add_argument("--workers", type=int, default=2, help="processes of the commands")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder)))
        return 0
    if args.files:
        compare_commands(args.files, args.workers)
        return 0
    return 0 if compare(args.volumes, args.peers, args.repeats, args.limit_s) else 1


if __name__ == "__main__":
    sys.exit(main())
