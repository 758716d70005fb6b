"""Images to predict: one at a time, finished cases skipped, unusable ones named."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from ..atomic import write_json
from ..data.geometry import Geometry, to_canonical
from ..data.image_io import read_channels
from ..data.raw_dataset import Case, find_cases
from ..errors import DatasetError, UserError
from .checkpoints import fingerprint
from .model_card import ModelCard
from .prediction_writer import saved_arrays

logger = logging.getLogger(__name__)


def default_predictions_dir(root: str | Path, images_dir: str | Path) -> str:
    """Return where predictions go if nothing else is said.

    Args:
        root: Folder of all predictions of a bundle.
        images_dir: Folder of images, in the folder of their data set.
    """
    folder = os.path.abspath(images_dir)  # noqa: PTH100  .. is to go, links are to stay
    return str(Path(root) / Path(folder).parent.name)


class InferenceDataset(IterableDataset):
    """Normalised volumes of a folder of images, read one after another.

    A case that cannot be read is logged and remembered, and the next one follows; `report` ends the run
    with an error that names them. Cases whose predictions exist are skipped.

    Args:
        images_dir: Folder with `<case>_0000<ending>`, ...
        card: Description of the model.
        checkpoint: Its weights, a file or an adapter folder; predictions of other weights in `output_dir` are an error,
            and so are those of the same weights with other options of the network.
        output_dir: Where predictions go.
        save_probabilities: Whether `<case>.npz` with probabilities is wanted.
        save_logits: Whether `<case>.npz` with logits is wanted.
        overwrite: Whether existing predictions are made again.

    Raises:
        UserError: If the folder holds no image, or `output_dir` holds predictions of other weights or images.
    """

    def __init__(
        self,
        images_dir: str | Path,
        card: ModelCard,
        checkpoint: str | Path,
        output_dir: str | Path,
        save_probabilities: bool = False,
        save_logits: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.card = card
        self.output_dir = Path(output_dir)
        self.images_dir = Path(images_dir).resolve()
        self.wanted = {name for name, on in (("probabilities", save_probabilities), ("logits", save_logits)) if on}
        self.overwrite = overwrite
        if not self.images_dir.is_dir():
            raise UserError(
                f"images_dir: need a folder of images, but {images_dir} does not exist; name one: --images_dir DIR"
            )
        self.cases, self.failures = find_cases(Path(images_dir), card.file_ending, card.num_channels)
        self.geometries: dict[str, Geometry] = {}
        self._yielded: set[str] = set()
        self._claim_output(Path(checkpoint))
        if skipped := len(self.cases) - len(self.pending()):
            logger.info(f"{skipped} of {len(self.cases)} cases are predicted already in {self.output_dir}; skipped")

    def pending(self) -> list[Case]:
        """Return the cases that still lack a prediction; each is offered once in the life of this object."""
        candidates = [case for case in self.cases.values() if case.name not in self._yielded]
        return [case for case in candidates if self.overwrite or not self._finished(case)]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield "image" (C, D, H, W), float32, and "case" of each usable pending case."""
        for case in self.pending():
            self._yielded.add(case.name)
            try:
                yield self._load(case)
            except DatasetError as error:
                self.failures[case.name] = str(error)
                logger.error(f"case {case.name} skipped: {error}")

    def report(self) -> None:
        """Say where the predictions are, or end with an error if a case could not be predicted.

        Raises:
            UserError: Naming each such case with its reason.
        """
        if self.failures:
            listed = "\n  ".join(f"{name}: {reason}" for name, reason in self.failures.items())
            done = len(self.cases.keys() - self.failures.keys())
            raise UserError(f"{len(self.failures)} case(s) failed, {done} predicted in {self.output_dir}:\n  {listed}")
        logger.info(f"{len(self.cases)} case(s) predicted in {self.output_dir}")

    def _load(self, case: Case) -> dict[str, Any]:
        image, geometry = read_channels(list(case.images))
        preprocessing = self.card.preprocessing
        slices = preprocessing.slices_first(to_canonical(image, geometry))
        try:
            normalized = preprocessing.normalize(np.ascontiguousarray(slices))
        except DatasetError as error:
            raise DatasetError(f"{case.images[0]}: {error}") from error
        self.geometries[case.name] = geometry
        return {"image": normalized, "case": case.name}

    def _finished(self, case: Case) -> bool:
        if not (self.output_dir / (case.name + self.card.file_ending)).is_file():
            return False
        if not self.wanted:
            return True
        return self.wanted <= saved_arrays(self.output_dir / f"{case.name}.npz")

    def _claim_output(self, checkpoint: Path) -> None:
        """Remember whose predictions the folder holds, and of which images."""
        record = self.output_dir / "prediction.json"
        content: dict[str, Any] = {"checkpoint_sha256": fingerprint(checkpoint), "images_dir": str(self.images_dir)}
        content["network_options"] = json.loads(json.dumps(self.card.network_options))
        found = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else content
        found = {"network_options": content["network_options"], **found}  # older records say nothing of them
        kinds = {"checkpoint_sha256": "weights", "images_dir": "images", "network_options": "options of the network"}
        for key, what in kinds.items():
            if found.get(key) == content[key]:
                continue
            if not self.overwrite and self._predictions():
                raise UserError(
                    f"output_dir: {self.output_dir} holds predictions of other {what} "
                    f"({found.get('checkpoint')}, {found.get('images_dir')}); "
                    "give another --output_dir, or --overwrite True"
                )
            for stale in self._predictions():  # a continued run must not mix the two
                stale.unlink()
        self.card.write(self.output_dir)
        write_json(record, {"checkpoint": str(checkpoint), **content})

    def _predictions(self) -> list[Path]:
        endings = (self.card.file_ending, ".npz", ".pkl")
        return [path for ending in endings for path in self.output_dir.glob(f"*{ending}")]
