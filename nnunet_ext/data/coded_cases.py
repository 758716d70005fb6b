"""What nobody has annotated in each case, through nnU-Net's data loader to the loss."""

from collections.abc import Mapping
from typing import Any

import torch

from .unannotated import UnannotatedLabels


class CaseCode:
    """The code of the case that the data loader has loaded last; loading and transforming take turns in a process.

    Args:
        codes: Code of each case, see `nnunet_ext.data.unannotated.UnannotatedLabels`; 0 if not listed.
    """

    def __init__(self, codes: Mapping[str, int]) -> None:
        self.codes = dict(codes)
        self.current = 0


class CodedCases:
    """nnU-Net's data set, which notes what case is loaded.

    Args:
        dataset: nnU-Net's data set of whole cases.
        code: Where to note it.
    """

    def __init__(self, dataset: Any, code: CaseCode) -> None:
        self.dataset = dataset
        self.identifiers = dataset.identifiers
        self.code = code

    def load_case(self, identifier: str) -> Any:
        """Return a case, as nnU-Net's data sets do."""
        self.code.current = self.code.codes.get(identifier, 0)
        return self.dataset.load_case(identifier)


class AppendCode:
    """Apply nnU-Net's transforms, and append the code of the case to the target as one more channel.

    Args:
        transform: nnU-Net's transforms.
        code: Where the case was noted.
    """

    def __init__(self, transform: Any, code: CaseCode) -> None:
        self.transform = transform
        self.code = code

    def __call__(self, **data: Any) -> dict[str, Any]:
        """Transform "image" and "segmentation"; the latter may become a list of scales."""
        data = self.transform(**data)
        target = data["segmentation"]
        scales = [self._appended(one) for one in target] if isinstance(target, list) else self._appended(target)
        return {**data, "segmentation": scales}

    def _appended(self, target: torch.Tensor) -> torch.Tensor:
        target = target.to(torch.int16) if target.dtype == torch.bool else target
        return torch.cat([target, torch.full_like(target[:1], self.code.current)])


class CodedLoading:
    """Both data loaders of a training, each with its own note of the case; nothing is changed if all is annotated.

    Args:
        unannotated: Labels that nobody has annotated, by case.
    """

    def __init__(self, unannotated: UnannotatedLabels) -> None:
        codes = unannotated.codes()
        self.notes = {part: CaseCode(codes) for part in ("training", "validation")} if unannotated else {}

    def cases(self, part: str, dataset: Any) -> Any:
        """Return the cases of `training` or `validation`."""
        return CodedCases(dataset, self.notes[part]) if self.notes else dataset

    def transforms(self, part: str, transform: Any) -> Any:
        """Return the transforms of `training` or `validation`."""
        return AppendCode(transform, self.notes[part]) if self.notes else transform
