"""Folders of predictions and references, and a way to score them by the command line's function."""

import csv
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from evaluation import test2d, test3d

REPOSITORY = Path(__file__).resolve().parents[2]
REAL_DATA = REPOSITORY.parent / "shared" / "data"


@dataclass
class Run:
    """What one run of the command line left behind."""

    code: int
    out: str
    err: str
    rows: list
    summary: dict

    def value(self, metric, case="case", label="1", **columns):
        """Return the one value of metrics.csv that fits."""
        wanted = {"case": case, "label": label, "metric": metric, **columns}
        (row,) = [row for row in self.rows if all(row[name] == value for name, value in wanted.items())]
        return float(row["value"])

    def statistics(self, metric, label="1"):
        """Return the statistics of one metric and label."""
        return self.summary["labels"][label]["metrics"][metric]


class Workspace:
    """Folders `predictions`, `references`, `scores` and the files in them."""

    def __init__(self, root, capsys):
        self.root, self._capsys = root, capsys
        self.predictions, self.references, self.scores = (root / n for n in ("predictions", "references", "scores"))
        self.predictions.mkdir(parents=True)
        self.references.mkdir()

    def pair(self, reference, prediction, case="case", **geometry):
        """Write a reference and a prediction of one case as NIfTI; arrays are (z, y, x)."""
        self.nifti(self.references / f"{case}.nii.gz", reference, **geometry)
        self.nifti(self.predictions / f"{case}.nii.gz", prediction, **geometry)

    @staticmethod
    def nifti(path, array, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), dtype=None):
        """Write a label map (z, y, x), its spacing in the same order, its origin (x, y, z) in RAS."""
        affine = np.diag([*spacing[::-1], *[1.0] * (4 - len(spacing))])
        affine[:3, 3] = origin
        array = np.asarray(array)
        nib.save(
            nib.Nifti1Image(array.astype(dtype or (np.uint8 if array.dtype == bool else array.dtype)).T, affine), path
        )

    @staticmethod
    def npz(folder, case, spacing=(1.0, 1.0, 1.0), origin_lps=(0.0, 0.0, 0.0), **arrays):
        """Write contract-3 files: arrays (K, z, y, x) and the geometry beside them."""
        np.savez_compressed(folder / f"{case}.npz", **arrays)
        ndim = len(spacing)
        sitk = {
            "spacing": tuple(spacing[::-1]),
            "origin": tuple(origin_lps[:ndim]),
            "direction": tuple(np.diag([-1.0, -1.0, 1.0][:ndim]).ravel()),
        }
        (folder / f"{case}.pkl").write_bytes(pickle.dumps({"sitk_stuff": sitk, "spacing": list(spacing)}))

    def dataset_json(self, labels, folder=None, **more):
        """Write a dataset.json, by default beside the predictions."""
        path = (folder or self.predictions) / "dataset.json"
        path.write_text(json.dumps({"labels": labels, **more}))
        return path

    def run(self, *options, module=test3d, output=None):
        """Score the folders by `main()`, in this process."""
        output = output or self.scores
        arguments = ["--predictions", self.predictions, "--references", self.references, "--output", output]
        arguments += [] if "--workers" in options else ["--workers", "1"]
        code = module.main([str(argument) for argument in (*arguments, *options)])
        captured = self._capsys.readouterr()
        rows, summary = [], {}
        if (output / "metrics.csv").is_file():
            with (output / "metrics.csv").open(newline="") as stream:
                rows = list(csv.DictReader(stream))
            summary = json.loads((output / "summary.json").read_text(), parse_constant=_refuse)
        return Run(code, captured.out, captured.err, rows, summary)

    def run2d(self, *options, output=None):
        """Score the slices."""
        return self.run(*options, module=test2d, output=output)


def _refuse(constant):
    raise AssertionError(f"summary.json must be strict JSON, holds {constant}")


@pytest.fixture
def workspace(tmp_path, capsys):
    return Workspace(tmp_path / "work", capsys)


@pytest.fixture
def real_data():
    if not REAL_DATA.is_dir():
        pytest.skip("no real data beside the repository (shared/data)")
    return REAL_DATA


@pytest.fixture
def cube():
    """Return a maker of boxes: mask of a box of some size in an image of some shape, moved along the last axis."""

    def make(size, shift=0, shape=(40, 40, 40)):
        size = (size,) * len(shape) if isinstance(size, int) else size
        mask = np.zeros(shape, dtype=bool)
        box = [slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(shape, size, strict=True)]
        box[-1] = slice(box[-1].start + shift, box[-1].stop + shift)
        mask[tuple(box)] = True
        return mask

    return make


@pytest.fixture
def blobs():
    """Return a maker of pairs of random smooth masks, two components or more, never empty."""
    from scipy.ndimage import gaussian_filter

    def make(seed, shape):
        rng = np.random.default_rng(seed)
        base, noise = (gaussian_filter(rng.standard_normal(shape), 2) for _ in range(2))
        reference, prediction = base > 0.05 * base.std(), base + 0.4 * noise > 0.1 * base.std()
        assert reference.any() and prediction.any()
        return reference, prediction

    return make


@pytest.fixture
def bits():
    """Return what turns a boolean mask (D, H, W) or (H, W) into the engine's bit mask."""
    from evaluation.engine.bit_masks import fill_mask, mask_shape
    from evaluation.engine.flat_maps import FlatMap
    from evaluation.engine.label_index import LabelIndex

    def make(mask):
        flat = FlatMap.of(np.asarray(mask))
        box = tuple((0, size) for size in flat.array.shape)
        return fill_mask(np.empty(mask_shape(box), np.uint64), flat, box, LabelIndex((0, 1)), [1])

    return make
