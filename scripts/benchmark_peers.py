"""What the benchmark measures: each package's metrics, under the names of ours that mean the same."""

from collections.abc import Callable

import numpy as np
from benchmark_volumes import SPACING_MM

Values = dict[str, float]
"""Value by `<label> <metric>`, the metric as we call it."""


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
"""Package that has to be installed, and function, by name."""
