"""Names of metrics as people write them."""

import re

_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "vs": "Volumetric similarity",
    "voe": "VOE",
    "rvd": "Relative volume difference",
    "cldice": "clDice",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "lesion_f1": "Lesion F1",
    "lesion_tp": "Lesions found",
    "lesion_fp": "Lesions invented",
    "lesion_fn": "Lesions missed",
    "auroc": "AUROC",
    "ap": "Average precision",
    "ece": "ECE",
    "brier": "Brier score",
    "cross_entropy": "Cross-entropy",
    "reference_ml": "Volume of the reference (ml)",
    "prediction_ml": "Volume of the prediction (ml)",
}


def metric_title(metric: str) -> str:
    """Return the name of a metric as it stands above a figure.

    Args:
        metric: Name in metrics.csv.

    Returns:
        For example `HD95 (mm)` or `NSD at 2 mm`.
    """
    if metric in _TITLES:
        return _TITLES[metric]
    at_tolerance = re.fullmatch(r"(nsd|boundary_iou)_(.+)mm", metric)
    if at_tolerance:
        name = {"nsd": "NSD", "boundary_iou": "Boundary IoU"}[at_tolerance[1]]
        return f"{name} at {at_tolerance[2]} mm"
    if metric.endswith("_mm"):
        return f"{metric.removesuffix('_mm').upper()} (mm)"
    return metric.replace("_", " ").capitalize()
