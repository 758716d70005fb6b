"""Folders of images and predictions as nnU-Net writes them, for what refines them."""

import json
import pickle

import numpy as np
import torch

from nnunet_ext.cli import main
from nnunet_ext.data.geometry import Geometry
from nnunet_ext.data.image_io import write_label

SHAPE = (4, 9, 8)
GEOMETRY = Geometry((8, 9, 4), (0.8, 1.1, 3.0), (-5.0, 4.0, 7.0), (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
CLASSES = {"background": 0, "left": 1, "right": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


class Folders:
    """Images and predictions of cases a and b.

    Args:
        root: Where they lie.
        predictions: Folder of the predictions in `root`.
    """

    def __init__(self, root, predictions="predictions") -> None:
        self.images, self.predictions, self.output = root / "images", root / predictions, root / "output"
        self.describe(CLASSES)
        (self.predictions / "plans.json").write_text('{"plans_name": "nnUNetPlans"}')
        self.logits, self.geometries = {}, {}
        for seed, name in enumerate("ab"):
            self.add(name, GEOMETRY, seed)

    def add(self, name, geometry, seed) -> None:
        """Write the image and the prediction of a case; the numbers hang on the seed alone."""
        rng, shape = np.random.default_rng(seed), (1, *reversed(geometry.size))[-3:]
        write_label(self.images / f"{name}_0000.nii.gz", rng.integers(0, 99, shape).astype(np.int16), geometry)
        self.geometries[name] = geometry
        self.predict(name, rng.normal(0, 2, (3, *shape)).astype(np.float32), "probabilities")

    def describe(self, labels, **entries) -> None:
        self.predictions.mkdir(parents=True, exist_ok=True)
        content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", **entries}
        (self.predictions / "dataset.json").write_text(json.dumps(content))

    def predict(self, name, logits, *arrays, regions=False) -> None:
        geometry = self.geometries[name]
        self.logits[name] = torch.from_numpy(logits)
        probabilities = self.logits[name].sigmoid() if regions else self.logits[name].softmax(0)
        both = {"logits": logits, "probabilities": probabilities.numpy()}
        np.savez_compressed(self.predictions / f"{name}.npz", **{array: both[array] for array in arrays})
        (self.predictions / f"{name}.pkl").write_bytes(pickle.dumps({"sitk_stuff": geometry.sitk_stuff()}))
        write_label(self.predictions / f"{name}.nii.gz", logits.argmax(0).astype(np.uint8), geometry)

    def run(self, *options: str) -> int:
        folders = ["--predictions", self.predictions, "--images", self.images, "--output", self.output]
        return main(["crf", *map(str, folders), *options])
