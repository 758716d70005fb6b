"""What each number means, in words that go into summary.json."""

from collections.abc import Iterable

from .metric_options import MetricOptions, hd_name

_SURFACES = {
    "voxel": (
        "border voxels: mask minus its 6-neighbour erosion (4-neighbour in 2D), voxels at the image edge included; all "
        "count alike; Euclidean distance between voxel centres in mm"
    ),
    "dual": (
        "nodes of the dual grid, between 2x2x2 voxels (2x2 in 2D), after Nikolov et al. 2018; each counts with the "
        "area (in 2D length) of the surface around it; Euclidean distance in mm"
    ),
}
_DIRECTIONS = {"max": "the larger of the two directed {}", "union": "{} of both directions together"}
_METRICS = {
    "dice": "2 TP / (2 TP + FP + FN)",
    "iou": "TP / (TP + FP + FN)",
    "precision": "TP / (TP + FP)",
    "sensitivity": "TP / (TP + FN)",
    "specificity": "TN / (TN + FP); TN counts every voxel of the image that is in neither mask",
    "vs": "volumetric similarity, 1 - |FN - FP| / (2 TP + FP + FN)",
    "voe": "volumetric overlap error, 1 - IoU",
    "hd_mm": "Hausdorff distance: the larger of the two directed maxima of the surface distance",
    "assd_mm": "average symmetric surface distance: mean over both surfaces together",
    "masd_mm": "mean average surface distance: mean of the two directed means",
    "rvd": "relative volume difference, (FP - FN) / (TP + FN): above 0 where the prediction is too large",
    "reference_ml": "volume of the label in the reference in ml; nan in 2D",
    "prediction_ml": "volume of the label in the prediction in ml; nan in 2D",
    "cldice": (
        "clDice, Shit et al. 2021: harmonic mean of the shares of the two skeletons that lie in the other mask; each "
        "connected component has a part of it, one that thinning erases that of itself and one more layer of voxels"
    ),
    "lesion_tp": "connected components (26 neighbours, in 2D 8) of the reference that the prediction touches",
    "lesion_fp": "connected components of the prediction that touch none of the reference",
    "lesion_fn": "connected components of the reference that the prediction doesn't touch",
    "lesion_f1": "2 TP / (2 TP + FP + FN) of the three counts of lesions",
    "pq": "panoptic quality of components matched by an IoU above 0.5: sum of their IoU / (matched + unmatched / 2)",
    "sq": "segmentation quality: mean IoU of matched components; nan if there are none",
    "rq": "recognition quality: F1 of matched components",
}
_PROBABILITIES = {
    "cross_entropy": (
        "mean over voxels of -ln(probability of the truth), label against all others, in nats; probabilities are kept "
        "1e-7 away from 0 and 1"
    ),
    "brier": "mean over voxels of (probability - truth)^2, label against all others",
    "ece": (
        "expected calibration error: mean over voxels of |mean probability - share of true voxels| of the voxel's bin; "
        "15 bins of equal width, lower edges included, 1 in the last"
    ),
    "auroc": (
        "area under the ROC curve over the image's voxels, ties count half; nan if the reference has no voxel of the "
        "label, or no other"
    ),
    "ap": (
        "average precision over the image's voxels: sum of (recall - recall before) * precision over descending "
        "probabilities; nan as auroc"
    ),
}
_PROBABILITY_POLICY = {
    "probabilities": (
        "from the .npz file: the array named by --source; with auto or labels `probabilities`, else `logits` (softmax "
        "over channels, with regions sigmoid); rounded to float32; those up to 0.001 outside [0, 1] count as 0 or 1. A "
        "region of labels that exclude each other has the sum of their probabilities; the background among regions has "
        "none: nan"
    ),
    "ranks": (
        "auroc and ap are exact in images of up to 6.4 million voxels, and up to 2^24 voxels times labels; beyond, "
        "probabilities share a rank if they agree to 16 bits (12 below 2^-10; near 1 it is 1 - p that counts), which "
        "as a rule changes them by less than 1e-6"
    ),
    "probabilities_of_label_in_neither": (
        "cross_entropy, brier and ece are those of the image's voxels all the same, auroc and ap nan"
    ),
}
_CURVES = {
    "dice by threshold": (
        "of the mask p >= threshold, a voxel at the threshold included; both compared as they are stored (float32 "
        "against float64): a float32 0.7 is below 0.7; not applicable where mask and reference are both empty, 0 where "
        "one is"
    ),
    "iou by threshold": "likewise",
    "mean": "over the n cases where it applies; n changes with the threshold where a reference lacks the label",
    "pooled": "from TP, FP and FN summed over cases",
    "reliability": "voxels of all cases together; bins as for ece",
    "multiclass": (
        "all channels together: cross_entropy is the mean of -ln(probability of the true label), brier the mean of the "
        "squared error summed over labels, ece that of the likeliest label; voxels whose true label has no channel are "
        "left out"
    ),
}
_NSD = "normalised surface distance (surface Dice): share of both surfaces within the tolerance in the name, in mm"
_BOUNDARY_IOU = (
    "IoU of the mask's voxels that are at most the width in the name, in mm, from a border voxel; Cheng et al. 2021"
)
_POLICY = {
    "overlap": "counted in one int64 confusion matrix; labels that form a region are united first",
    "label_in_neither": "every metric of masks nan, counted in n_na",
    "label_in_one_only": (
        "dice, iou, vs, nsd 0; voe 1; distances inf; ratios with denominator 0 nan: precision if nothing was "
        "predicted, sensitivity if there is nothing to find"
    ),
    "unannotated_labels": (
        "what dataset.json says nobody has annotated in a case is nan there, as are the background and values that may "
        "be it, counted in n_na; in metrics of probabilities those of all labels together too"
    ),
    "ignore_label": "voxels with dataset.json's ignore label in the reference are left out of every metric",
    "masks from .npz": (
        "the label with the largest value, among equals the first; regions as in nnU-Net, where p > 0.5 (logit > 0): a "
        "voxel at 0.5 is outside, while curves by threshold and label maps of `threshold --save-labels` take p >= "
        "threshold"
    ),
    "geometry": "spacing from the reference; voxel corners of both files coincide within 1 % of the smallest spacing",
    "mean, std, median": "of the finite values; std with n - 1; null where there are too few values",
    "mean_inf_as_diagonal": "mean with each inf replaced by the length of the image's diagonal; nan left out",
    "n": "number of finite values",
    "n_na": "number of nan values",
    "n_missed": "number of images whose reference holds the label and whose prediction doesn't",
    "n_spurious": "number of images whose prediction holds the label and whose reference doesn't",
    "foreground_mean": (
        "mean over the labels other than 0 in each image or case, then over these; n and n_na count images or cases, "
        "n_missed and n_spurious are sums over labels"
    ),
}
_LESS_IS_BETTER = ("voe", "lesion_fp", "lesion_fn", "cross_entropy", "brier", "ece")
_NEITHER = ("rvd", "reference_ml", "prediction_ml", "lesion_tp")
_SLICES = {
    "image": "one slice; slices are cut along array axis `axis` of (z, y, x)",
    "pooled_over_slices": "each slice of each case is one value; slices without the label in either mask are n_na",
    "mean_of_cases": "each case is one value, the mean over its slices with a finite value; n counts cases",
}


def is_distance(metric: str) -> bool:
    """Return whether a metric is a distance in mm: without bound, inf if one mask is empty.

    Args:
        metric: Name of the metric.

    Returns:
        True for distances.
    """
    return metric.endswith("_mm")


def direction(metric: str) -> int:
    """Return whether more of a metric is better.

    Args:
        metric: Name of the metric.

    Returns:
        1 if more is better, -1 if less is, 0 if neither is.
    """
    if metric in _NEITHER:
        return 0
    return -1 if is_distance(metric) or metric in _LESS_IS_BETTER else 1


def describe(metrics: Iterable[str], options: MetricOptions, *, slices: bool) -> dict[str, str]:
    """Return the definition of each metric and of each statistic.

    Args:
        metrics: Names of the metrics used.
        options: Definitions of the metrics that have a choice.
        slices: Whether slices were scored instead of whole images.

    Returns:
        Definitions by name.
    """
    used = {metric: _definition(metric, options) for metric in metrics}
    surfaces = {"surface": _SURFACES[options.boundary], "surface of nsd": _SURFACES[options.nsd_boundary]}
    image = _SLICES if slices else {"image": "the whole file, in 3D or 2D as it is"}
    return used | surfaces | _POLICY | (_PROBABILITY_POLICY if options.wants_calibration else {}) | image


def describe_probabilities() -> dict[str, str]:
    """Return the definitions of everything in curves.json.

    Returns:
        Definitions by name.
    """
    ignored = {"ignore_label": _POLICY["ignore_label"]}
    return _PROBABILITIES | _PROBABILITY_POLICY | ignored | _CURVES


def _definition(metric: str, options: MetricOptions) -> str:
    if metric in _PROBABILITIES:
        return _PROBABILITIES[metric]
    if metric.startswith("nsd_"):
        return _NSD
    if metric.startswith("boundary_iou_"):
        return _BOUNDARY_IOU
    percentile = next((p for p in options.hd_percentiles if hd_name(p) == metric), None)
    if percentile is None:
        return _METRICS[metric]
    interpolated = "linearly interpolated" if options.boundary == "voxel" else "by area"
    what = f"{percentile:.12g}th percentile" + ("s" if options.hd_directions == "max" else "")
    return f"{_DIRECTIONS[options.hd_directions].format(what)} of the surface distance, {interpolated}"
