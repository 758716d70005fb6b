"""CRF: a network of any kind, and a mean-field CRF that refines its logits."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import build_network, network_class
from ._weights import read_weights
from .mean_field import MeanFieldCRF

KINDS = ("exact", "crfseg")
TRAINABLE = ("all", "crf", "last")
BANDWIDTHS = {"smoothness_mm": 1.0, "appearance_mm": 2.0}
"""Initial bandwidths in voxels, where none are given in mm."""

_SMALLEST_SIDE_MM = 0.1
"""Of smaller voxels so much is taken: the CRF has no smaller bandwidths than half of it."""

Logits = Tensor | list[Tensor]


class RefinedNetwork(nn.Module):
    """A network of any kind, whose logits a layer refines.

    Args:
        base: The network; of coarser outputs beside its logits, none is refined.
        field: The layer, as `make_field` returns it.
        spacing_mm: Voxel size in mm in the array's axis order; none: 1 along each axis.
        trainable: One of `TRAINABLE`.
        last_layers: Names of the modules of the base that make its logits.
        base_name: What to call the base in a message.

    Raises:
        ValueError: If `trainable` is unknown, or the base names no last layer and `trainable` asks for it.
    """

    def __init__(
        self,
        base: nn.Module,
        field: nn.Module,
        *,
        spacing_mm: Sequence[float] = (),
        trainable: str = "all",
        last_layers: Sequence[str] = (),
        base_name: str = "the base",
    ) -> None:
        super().__init__()
        self.base = base
        self.crf = field
        self.spacing_mm = tuple(float(length) for length in spacing_mm) or None
        self.trainable = trainable
        choose_trainable(field, base, trainable, last_layers, base_name)

    def forward(self, x: Tensor) -> Logits:
        """Return the refined raw logits, shape (B, K, *S), of images of shape (B, C, *S)."""
        outputs = self.base(x)
        finest, *coarser = outputs if isinstance(outputs, list | tuple) else [outputs]
        refined = self.crf(finest, x, self.spacing_mm)
        return [refined, *coarser] if isinstance(outputs, list | tuple) else refined

    def train(self, mode: bool = True) -> "RefinedNetwork":
        """Switch to training or evaluation; a base that is frozen, but for its last layer at most, stays as it is."""
        super().train(mode)
        if self.trainable != "all":
            self.base.eval()
        return self

    @property
    def needs_pretrained(self) -> bool:
        """Whether part of the base stays as it was loaded, so that random weights would make no sense."""
        return self.trainable != "all"

    def load_pretrained(self, file: str | Path) -> str:
        """Load the weights of the base from a file.

        Args:
            file: A plain state dict of the base network, such as a bundle's `model_best.pt`.

        Returns:
            What was loaded.

        Raises:
            ValueError: If the file is missing or damaged, or of another network.
        """
        try:
            state = read_weights(file)
        except ValueError as error:
            need = "must be a plain state dict of the base network, such as a bundle's model_best.pt"
            raise ValueError(f"{file}: {need}; {error}") from error
        try:
            self.load_base(state)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        return f"{len(state)} tensors of the base network loaded; the CRF is fresh"

    def load_base(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of the base.

        Args:
            state: A plain state dict of the base network, as the bundles save it.

        Raises:
            ValueError: If it is of another network, or of other options.
        """
        try:
            self.base.load_state_dict(dict(state), strict=True)
        except RuntimeError as error:
            raise ValueError(f"the weights don't fit the base network; build it as it was trained: {error}") from error


class CRF(RefinedNetwork):
    """Refine the logits of another network with a mean-field conditional random field.

    The appearance term looks at the network's own input. Of a network that returns coarser outputs too, the finest is
    refined.

    Args:
        in_channels: Channels of the input, >= 1.
        num_classes: Classes K including background, >= 1.
        spatial_dims: 2 for images, 3 for volumes.
        base: Key of the network to refine; empty: `enet` for images, `genesisunet3d` for volumes.
        base_options: Its options.
        trainable: What trains: `all`; `crf`, the parameters of the CRF only; or `last`, those and the layer of the
            base that makes the logits. What doesn't train is as in evaluation: its dropout is off, its running
            statistics stay as they are.
        kind: `exact`, or `crfseg` for the layer of the package of this name, for comparison: no appearance term, and a
            kernel in which the neighbours in a voxel's own row and columns have weight 0.
        spacing_mm: Voxel size in mm in the array's axis order; empty: 1 along each axis, so that bandwidths are in
            voxels.
        iterations: As for `nnunet_ext.networks.mean_field.MeanFieldCRF`, like all that follow.
        smoothness_weight: Initial weight of the smoothness term, in logits.
        smoothness_mm: Its initial bandwidth in mm.
        smoothness_window: Voxels along each axis that it spans.
        appearance_weight: Initial weight of the appearance term; 0 leaves it out.
        appearance_mm: Its initial bandwidth in mm.
        appearance_intensity: Its initial bandwidth in units of the input's intensity.
        appearance_window: Voxels along each axis that it spans.
        regions: Whether channels are overlapping regions.

    Shape:
        Input (B, in_channels, *S), float; output (B, num_classes, *S), raw logits.

    Raises:
        ValueError: If an argument is out of range, or the base names no last layer and `trainable` asks for it.
        ImportError: If `kind` is crfseg and the package is not installed.

    Source:
        Krähenbühl and Koltun 2011, arXiv:1210.5644; on a network, Zheng 2015, arXiv:1502.03240.
    """

    spatial_dims = (2, 3)
    default_base = {2: "enet", 3: "genesisunet3d"}  # noqa: RUF012
    # what suits the default bases
    training_defaults = {"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 2e-4}  # noqa: RUF012

    @staticmethod
    def default_options(patch_size: Sequence[int]) -> dict[str, str]:
        """Name the base, so that plans say it.

        Args:
            patch_size: Size of a patch, of 2 or 3 numbers.
        """
        return {"base": CRF.default_base[len(patch_size)]}

    @staticmethod
    def options_for_spacing(spacing_mm: Sequence[float]) -> dict[str, Any]:
        """Return voxel size and bandwidths, so that plans say them.

        Args:
            spacing_mm: Voxel size in mm, in the array's axis order.
        """
        return {"spacing_mm": list(spacing_mm), **default_bandwidths(spacing_mm)}

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        spatial_dims: int = 2,
        base: str = "",
        base_options: Mapping[str, Any] = {},
        trainable: str = "all",
        kind: str = "exact",
        spacing_mm: Sequence[float] = (),
        iterations: int = 5,
        smoothness_weight: float = 1.0,
        smoothness_mm: float = 1.0,
        smoothness_window: int = 11,
        appearance_weight: float = 0.0,
        appearance_mm: float = 2.0,
        appearance_intensity: float = 0.5,
        appearance_window: int = 5,
        regions: bool = False,
    ) -> None:
        base = base or self.default_base.get(spatial_dims, "")
        if base == "crf":
            raise ValueError("base must be another network than 'crf', got 'crf'")
        field: dict[str, Any] = {
            "iterations": iterations,
            "smoothness_weight": smoothness_weight,
            "smoothness_mm": smoothness_mm,
            "smoothness_window": smoothness_window,
            "appearance_weight": appearance_weight,
            "appearance_mm": appearance_mm,
            "appearance_intensity": appearance_intensity,
            "appearance_window": appearance_window,
            "regions": regions,
        }
        super().__init__(
            build_network(base, in_channels, num_classes, spatial_dims=spatial_dims, **base_options),
            make_field(kind, spatial_dims, field),
            spacing_mm=spacing_mm,
            trainable=trainable,
            last_layers=getattr(network_class(base), "last_layers", ()),
            base_name=base,
        )


class CrfsegField(nn.Module):
    """The CRF layer of the package crfseg, with its defaults, for comparison.

    Args:
        spatial_dims: 2 or 3.
        iterations: Mean-field updates.
        smoothness_weight: Initial weight.
        smoothness_mm: Initial bandwidth in mm.
        smoothness_window: Voxels along each axis, odd.

    Raises:
        ImportError: If the package is not installed.

    Source:
        https://github.com/migonch/crfseg, version 1.0.0.
    """

    def __init__(
        self,
        spatial_dims: int,
        *,
        iterations: int = 5,
        smoothness_weight: float = 1.0,
        smoothness_mm: float = 1.0,
        smoothness_window: int = 11,
    ) -> None:
        super().__init__()
        try:
            crfseg = importlib.import_module("crfseg")
        except ImportError as error:
            raise ImportError("kind=crfseg needs the package crfseg; pip install crfseg, or take kind=exact") from error
        if smoothness_window % 2 == 0:
            raise ValueError(f"smoothness_window must be odd for crfseg, got {smoothness_window}")
        self.layer = crfseg.CRF(
            spatial_dims,
            filter_size=smoothness_window,
            n_iter=iterations,
            smoothness_weight=smoothness_weight,
            smoothness_theta=smoothness_mm,
        )

    def forward(self, logits: Tensor, image: Tensor | None = None, spacing_mm: Any = None) -> Tensor:
        """Return refined logits; see `MeanFieldCRF.forward`. The image is ignored."""
        spacing = None
        if spacing_mm is not None:
            spacing = torch.as_tensor(spacing_mm, dtype=torch.float32, device=logits.device)
            spacing = spacing.expand(logits.shape[0], -1)
        with torch.autocast(logits.device.type, enabled=False):
            return self.layer(logits.float(), spacing).to(logits.dtype)


def default_bandwidths(spacing_mm: Sequence[float]) -> dict[str, float]:
    """Return initial bandwidths in mm, of so many voxels as `BANDWIDTHS` says: 1 mm reaches no neighbour at 4 mm.

    Args:
        spacing_mm: Voxel size in mm, whose smallest side counts; empty: 1 mm.
    """
    side = max(_SMALLEST_SIDE_MM, min(spacing_mm, default=1.0))
    return {name: voxels * side for name, voxels in BANDWIDTHS.items()}


def make_field(kind: str, spatial_dims: int, options: Mapping[str, Any]) -> nn.Module:
    """Return the layer that refines logits.

    Args:
        kind: One of `KINDS`.
        spatial_dims: 2 or 3.
        options: Options of `MeanFieldCRF`, by name.

    Raises:
        ValueError: If the kind is unknown, or cannot do what the options ask for.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "exact":
        return MeanFieldCRF(spatial_dims, **options)
    refused = [name for name in ("appearance_weight", "regions") if options.get(name)]
    if refused:
        raise ValueError(f"kind=crfseg has no {' and no '.join(refused)}; take kind=exact")
    names = ("iterations", "smoothness_weight", "smoothness_mm", "smoothness_window")
    return CrfsegField(spatial_dims, **{name: options[name] for name in names if name in options})


def choose_trainable(
    field: nn.Module, base: nn.Module, trainable: str, last_layers: Sequence[str], base_name: str
) -> None:
    """Let exactly those parameters train that are asked for.

    Args:
        field: The layer that refines logits.
        base: The network whose logits it refines.
        trainable: One of `TRAINABLE`; `all` leaves the base as it says itself.
        last_layers: Names of the modules of the base that make its logits.
        base_name: What to call the base in a message.

    Raises:
        ValueError: If `trainable` is unknown, or the base names no last layer and it is to train.
    """
    if trainable not in TRAINABLE:
        raise ValueError(f"trainable must be one of {', '.join(TRAINABLE)}, got {trainable!r}")
    if trainable == "all":
        return
    field.requires_grad_(True)
    base.requires_grad_(False)
    if trainable == "crf":
        return
    if not last_layers:
        raise ValueError(f"trainable=last needs a base that names its last_layers, got {base_name}; take crf or all")
    for name in last_layers:
        base.get_submodule(name).requires_grad_(True)
