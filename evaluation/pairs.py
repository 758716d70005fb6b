"""Which files make up which case."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .errors import CaseError, EvaluationError
from .readers import LABEL_ENDINGS

SOURCES = ("auto", "labels", "probabilities", "logits")


@dataclass
class CaseFiles:
    """The files of one case in a folder.

    Attributes:
        labels: Its label files; more than one is an error.
        npz: Its file of probabilities or logits, if there is one.
    """

    labels: list[Path] = field(default_factory=list)
    npz: Path | None = None

    def label_file(self) -> Path:
        """Return the label file.

        Raises:
            CaseError: If there are several.
        """
        if len(self.labels) > 1:
            names = " and ".join(path.name for path in self.labels)
            raise CaseError(
                f"{self.labels[0].parent}: a case must have one label file, got {names}; remove all but one"
            )
        return self.labels[0]

    def chosen(self, source: str) -> Path:
        """Return the file to score.

        Args:
            source: One of `SOURCES`.

        Raises:
            CaseError: If the case has no such file.
        """
        if source in ("auto", "labels") and self.labels:
            return self.label_file()
        if source != "labels" and self.npz is not None:
            return self.npz
        held = self.npz or self.labels[0]
        needed = "a label file" if source == "labels" else "an .npz file"
        raise CaseError(f"{held}: --source {source} needs {needed} for this case, got only {held.name}; use auto")


def find_cases(folder: Path, *, with_npz: bool, option: str) -> dict[str, CaseFiles]:
    """Find the cases in a folder.

    Label files are those of one format, the first of NIfTI, MetaImage, NRRD, PNG, BMP, TIFF, DICOM segmentations that
    the folder holds. Hidden files, folders and files with other endings are left alone.

    Args:
        folder: The folder.
        with_npz: Whether .npz files are cases too.
        option: Option that named the folder, for the message.

    Returns:
        Files by case, sorted by case.

    Raises:
        EvaluationError: If the folder can't be listed or holds no case.
    """
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    except OSError as error:
        raise EvaluationError(
            f"{option} {folder}: must be a folder that can be read, got: {error.strerror}; check the path"
        ) from error
    cases: dict[str, CaseFiles] = {}
    endings = next((group for group in LABEL_ENDINGS if _ending_in(files, group)), ())
    for path in files:
        ending = next((e for e in (*endings, *((".npz",) if with_npz else ())) if path.name.endswith(e)), None)
        if ending is None:
            continue
        case = cases.setdefault(path.name.removesuffix(ending), CaseFiles())
        if ending == ".npz":
            case.npz = path
        else:
            case.labels.append(path)
    if not cases:
        needed = "<case>.nii.gz or <case>.npz files" if with_npz else "<case>.nii.gz files"
        raise EvaluationError(f"{option} {folder}: must hold {needed}, got none; check the path")
    return dict(sorted(cases.items()))


def _ending_in(files: Iterable[Path], endings: tuple[str, ...]) -> bool:
    return any(path.name.endswith(endings) for path in files)


def find_dataset_json(predictions: Path, references: Path) -> Path | None:
    """Find the dataset.json that belongs to some predictions.

    Args:
        predictions: Folder of predictions.
        references: Folder of references.

    Returns:
        The first that exists: beside the predictions, beside the references, or in the folder above those (`labelsTr`
        and `labelsTs` of a raw data set). None if there is none.
    """
    folders = (predictions, references, references.resolve().parent)
    return next((path for folder in folders if (path := folder / "dataset.json").is_file()), None)
