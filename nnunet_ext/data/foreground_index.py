"""Which slices of nnU-Net's preprocessed cases hold foreground: read from the labels once, then from a file."""

import json
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..atomic import write_json

logger = logging.getLogger(__name__)

FORMAT = 1
MAX_THREADS = 8


@dataclass(frozen=True)
class SliceKinds:
    """What the slices of one case hold, along the first axis of the preprocessed volume.

    Args:
        num_slices: Number of slices.
        foreground: Slices with a label other than background.
        unannotated: Slices of which every pixel carries the ignore label.
    """

    num_slices: int
    foreground: tuple[int, ...]
    unannotated: tuple[int, ...] = ()

    @classmethod
    def of(cls, label: np.ndarray, ignore_label: int | None = None) -> "SliceKinds":
        """Look at a label map.

        Args:
            label: Label values, shape (D, H, W); values below 0 lie outside the imaged region.
            ignore_label: The label of pixels without annotation, if there is one.
        """
        ignored = np.zeros(1, bool) if ignore_label is None else label == ignore_label
        foreground = ((label > 0) & ~ignored).any(axis=(1, 2))
        unannotated = np.broadcast_to(ignored, label.shape).all(axis=(1, 2))
        return cls(len(label), tuple(np.flatnonzero(foreground).tolist()), tuple(np.flatnonzero(unannotated).tolist()))


def index_foreground(dataset: Any, file: Path, ignore_label: int | None = None) -> dict[str, SliceKinds]:
    """Return what the slices of all cases hold, and keep it in a file.

    Each case is known by the time and size of its properties file, so a case that is preprocessed anew is read again.
    Several processes may do this at once: the file is replaced as a whole.

    Args:
        dataset: nnU-Net's data set: `identifiers`, `source_folder`, and `load_case(case)` that returns the label map
            (1, D, H, W) second.
        file: JSON file of the index; where it cannot be written, the index is made anew in each run.
        ignore_label: The label of pixels without annotation, if there is one.
    """
    known = _read(file, ignore_label)
    stamps = {case: _stamp(Path(dataset.source_folder) / f"{case}.pkl") for case in dataset.identifiers}
    missing = [case for case, stamp in stamps.items() if known.get(case, {}).get("stamp") != stamp]
    if missing:
        found = zip(missing, _look(dataset, missing, ignore_label), strict=True)
        known |= {case: {"stamp": stamps[case], **vars(kinds)} for case, kinds in found}
        try:
            write_json(file, {"format": FORMAT, "ignore_label": ignore_label, "cases": known})
        except OSError as error:
            logger.warning(f"{file}: the index of slices with foreground cannot be kept ({error})")
    return {
        case: SliceKinds(known[case]["num_slices"], tuple(known[case]["foreground"]), tuple(known[case]["unannotated"]))
        for case in dataset.identifiers
    }


def _look(dataset: Any, cases: Iterable[str], ignore_label: int | None) -> list[SliceKinds]:
    def look(case: str) -> SliceKinds:
        return SliceKinds.of(np.asarray(dataset.load_case(case)[1][0]), ignore_label)

    cases = list(cases)
    with ThreadPoolExecutor(MAX_THREADS) as pool:
        return list(tqdm(pool.map(look, cases), total=len(cases), desc="finding foreground", unit="case"))


def _read(file: Path, ignore_label: int | None) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    usable = content.get("format") == FORMAT and content.get("ignore_label") == ignore_label
    return content["cases"] if usable else {}


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
