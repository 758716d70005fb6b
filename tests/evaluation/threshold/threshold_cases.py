"""Cases with probabilities, and files of thresholds."""

import json

import nibabel as nib
import numpy as np

SHAPE = (4, 6, 8)
SPACING = (2.0, 1.0, 0.5)
HEAD = {
    "format": "segmentation-thresholds",
    "format_version": 1,
    "metric": "dice",
    "pooled": False,
    "predictions": "elsewhere",
}


def chosen(workspace, output="chosen"):
    return json.loads((workspace.root / output / "thresholds.json").read_text())


def probabilities(workspace, case, label=1):
    return np.load(workspace.predictions / f"{case}.npz")["probabilities"][label]


def write(workspace, case, reference, p, **arrays):
    """Write a case; p are probabilities of label 1."""
    workspace.nifti(workspace.references / f"{case}.nii.gz", reference.astype(np.uint8), spacing=SPACING)
    arrays = arrays or {"probabilities": np.stack([1 - p, p]).astype(np.float32)}
    workspace.npz(workspace.predictions, case, spacing=SPACING, **arrays)


def one_threshold(threshold, key="1"):
    """Return the content of a thresholds.json."""
    entry = {"name": "x", "threshold": threshold, "value": 1.0, "n": 1, "value_at_half": 1.0, "n_at_half": 1}
    return HEAD | {"labels": {key: entry}}


def applied_maps(workspace, run, thresholds, *options, references=False):
    """Write label maps at some thresholds; return that of `case`, and the run."""
    labels = {key: one_threshold(value, key)["labels"][key] for key, value in thresholds.items()}
    content = HEAD | {"labels": labels}
    path = workspace.root / "thresholds.json"
    path.write_text(json.dumps(content))
    maps = workspace.root / "maps"
    result = run("--apply", path, "--save-labels", maps, *options, output="applied", references=references)
    file = maps / "case.nii.gz"
    return (np.asarray(nib.load(file).dataobj).T if file.exists() else None), result
