"""Small data sets in nnU-Net's raw layout, written file by file so that a test can spoil any of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813


class RawFolder:
    """Writes the files of a data set; arrays are (z, y, x)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)

    def describe(self, *, channels=("MRI",), labels=None, **entries: Any) -> Path:
        """Write dataset.json; an entry given as None is left out."""
        content = {
            "channel_names": {str(number): name for number, name in enumerate(channels)},
            "labels": labels or {"background": 0, "left": 1, "right": 2},
            "numTraining": 5,
            "file_ending": ".nii.gz",
            **entries,
        }
        (self.root / "dataset.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
        return self.root

    def write(self, path: str, array: np.ndarray, **geometry: Any) -> Path:
        """Write one array as an image."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(np.asarray(array))
        image.SetSpacing(geometry.get("spacing_mm", (1.0, 1.0, 3.0)[: image.GetDimension()]))
        image.SetOrigin(geometry.get("origin_mm", (0.0,) * image.GetDimension()))
        image.SetDirection(geometry.get("direction", np.eye(image.GetDimension()).ravel().tolist()))
        sitk.WriteImage(image, str(target))
        return target

    def case(self, name: str, image=None, label=None, num_channels: int = 1, **geometry: Any) -> None:
        """Write image and label of a training case, random where not given."""
        random = np.random.default_rng(sum(name.encode()))
        label = random.integers(0, 3, (4, 12, 10)).astype(np.uint8) if label is None else label
        for channel in range(num_channels):
            noise = random.normal(100 * channel, 10, np.shape(label)).astype(np.float32)
            self.write(f"imagesTr/{name}_{channel:04d}.nii.gz", noise if image is None else image, **geometry)
        self.write(f"labelsTr/{name}.nii.gz", label, **geometry)

    def cases(self, number: int, **options: Any) -> list[str]:
        """Write several cases and return their names."""
        names = [f"case_{index:03d}" for index in range(number)]
        for name in names:
            self.case(name, **options)
        return names


@pytest.fixture
def raw(tmp_path) -> RawFolder:
    """An empty data set `Dataset950_Test`, not yet described."""
    return RawFolder(tmp_path / "raw" / "Dataset950_Test")
