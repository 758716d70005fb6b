"""Mean-field inference in a conditional random field (CRF), as a layer that refines logits."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .field_kernels import appearance_messages, axis_kernels, saving_memory, smoothness_messages

_SMALLEST = 0.05
"""Lower bound of every learned bandwidth, in its own unit: at 0 a kernel would divide by zero."""

_VOXELS = 2**16
"""Voxels whose probabilities are computed at once, where they replace logits."""

Spacing = Tensor | Sequence[float] | None


class MeanFieldCRF(nn.Module):
    """Refine logits by mean-field inference in a CRF with Potts compatibility.

    Each iteration adds to a voxel's logits what its neighbours, out to half a window along each axis, believe: their
    probabilities, weighted by kernels. The smoothness kernel is a Gaussian of the distance in mm; the appearance
    kernel is a Gaussian of the distance times one of the difference in intensity, so that it stops at edges. The
    voxel itself has weight 0, direct neighbours the most. A kernel is divided by the sum of its Gaussian of the
    distance over the window, the voxel included: so a term's weight is the most by which it can move a logit.

    Weights stay positive and bandwidths above 0.05 whatever an optimiser does. It is computed in float32 at
    least, under autocast too. In 3D the smoothness term is exact at the cost of one matrix product an axis; the
    appearance term costs one pass a neighbour (half of them, by symmetry) and never holds more than one
    neighbour's copy of the probabilities. Backward computes each iteration again instead of keeping it.

    Args:
        spatial_dims: 2 or 3.
        iterations: Mean-field updates, >= 1.
        smoothness_weight: Initial weight of the smoothness term, in logits, >= 0; 0 leaves the term out for good.
        smoothness_mm: Its initial bandwidth in mm, > 0.05, one for all axes or one an axis in the array's order.
        smoothness_window: Voxels along each axis that it spans, odd, >= 3.
        appearance_weight: As `smoothness_weight`, for the appearance term.
        appearance_mm: As `smoothness_mm`.
        appearance_intensity: Its initial bandwidth in units of the image's intensity, > 0.05.
        appearance_window: As `smoothness_window`.
        regions: Whether channels are overlapping regions (sigmoid), each a field of its own, not classes (softmax). A
            single channel always is a region.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Krähenbühl and Koltun 2011, arXiv:1210.5644, algorithm 1; windows instead of the dense field as in Teichmann
        and Cipolla 2018, arXiv:1805.04777.
    """

    def __init__(
        self,
        spatial_dims: int,
        *,
        iterations: int = 5,
        smoothness_weight: float = 1.0,
        smoothness_mm: float | Sequence[float] = 1.0,
        smoothness_window: int = 11,
        appearance_weight: float = 0.0,
        appearance_mm: float | Sequence[float] = 2.0,
        appearance_intensity: float = 0.5,
        appearance_window: int = 5,
        regions: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
        if iterations < 1 or iterations != int(iterations):
            raise ValueError(f"iterations must be an integer >= 1, got {iterations!r}")
        self.dims = spatial_dims
        self.iterations = int(iterations)
        self.regions = bool(regions)
        self.smoothness = self.appearance = None
        if _checked_weight("smoothness_weight", smoothness_weight):
            self.smoothness = _Term(
                smoothness_weight,
                _per_axis("smoothness_mm", smoothness_mm, spatial_dims),
                _checked_window("smoothness_window", smoothness_window),
            )
        if _checked_weight("appearance_weight", appearance_weight):
            self.appearance = _Term(
                appearance_weight,
                _per_axis("appearance_mm", appearance_mm, spatial_dims),
                _checked_window("appearance_window", appearance_window),
                _per_axis("appearance_intensity", appearance_intensity, 1),
            )

    def forward(self, logits: Tensor, image: Tensor | None = None, spacing_mm: Spacing = None) -> Tensor:
        """Return refined logits.

        Args:
            logits: Raw logits, shape (B, K, *S).
            image: Image that the logits belong to, shape (B, C, *S), any C; needed by the appearance term only.
            spacing_mm: Voxel size in mm, in the array's axis order: one for all, shape (D,), or one a sample, shape
                (B, D); 1 mm if not given.

        Returns:
            Logits of the same shape and type; their softmax (sigmoid for regions) is the field's marginals.

        Raises:
            ValueError: If a shape doesn't fit, a spacing is not positive, or the appearance term gets no image.
        """
        self._check(logits, image)
        spacing = _spacing(spacing_mm, logits, self.dims)
        with torch.autocast(logits.device.type, enabled=False):
            # whose memory runs along the axes: without gradients each update writes into that of the one before
            unary = (logits if logits.dtype == torch.float64 else logits.float()).contiguous()
            guide = image.to(unary.dtype) if image is not None and self.appearance is not None else None
            refined = unary
            for _ in range(self.iterations):
                refined = saving_memory(self._update, unary, refined, guide, spacing.to(unary.dtype))
            return refined.to(logits.dtype) if refined is not logits else logits.clone()

    def _update(self, unary: Tensor, refined: Tensor, guide: Tensor | None, spacing: Tensor) -> Tensor:
        """Return the logits after one mean-field update."""
        if torch.is_grad_enabled():
            belief = self._belief(refined)
        else:  # logits of the update before aren't needed any more, and new memory costs as much time as a sum
            belief = unary.new_empty(unary.shape) if refined is unary else refined
            for logits, place in zip(*(x.flatten(2).split(_VOXELS, 2) for x in (refined, belief)), strict=True):
                place.copy_(self._belief(logits))
        updated = unary
        if self.appearance is not None:
            assert guide is not None
            term = self.appearance
            bandwidths = term.bandwidths_mm().to(spacing), term.intensity_bandwidth().to(spacing)
            messages = appearance_messages(belief, guide, spacing, *bandwidths, term.radius)
            updated = torch.addcmul(updated, messages, term.weight().to(unary))
        if self.smoothness is not None:  # last, because the belief may be lost
            term = self.smoothness
            kernels = axis_kernels(unary.shape[2:], spacing, term.bandwidths_mm().to(spacing), term.radius)
            messages = smoothness_messages(belief, kernels, term.radius)
            reused = None if torch.is_grad_enabled() else messages
            updated = torch.addcmul(updated, messages, term.weight().to(unary), out=reused)
        return updated

    def _belief(self, logits: Tensor) -> Tensor:
        """Return the probabilities, or of a region what they are more than those of its complement: tanh(x / 2)."""
        binary = self.regions or logits.shape[1] == 1
        return torch.tanh(logits / 2) if binary else torch.softmax(logits, dim=1)

    def _check(self, logits: Tensor, image: Tensor | None) -> None:
        if logits.ndim != self.dims + 2:
            raise ValueError(f"logits must have {self.dims + 2} axes (B, K, *S), got shape {tuple(logits.shape)}")
        if self.appearance is None:
            return
        if image is None:
            raise ValueError("image must be given for the appearance term, got None; or set appearance_weight=0")
        if image.ndim != logits.ndim or image.shape[0] != logits.shape[0] or image.shape[2:] != logits.shape[2:]:
            raise ValueError(
                f"image must have the batch and the size of the logits, got {tuple(image.shape)} for logits of "
                f"{tuple(logits.shape)}; resize it to them"
            )


class _Term(nn.Module):
    """The parameters of one kernel: free numbers, from which positive weights and bandwidths are made."""

    def __init__(self, weight: float, bandwidths_mm: list[float], window: int, intensity: Sequence[float] = ()) -> None:
        super().__init__()
        self.radius = window // 2
        self.raw_weight = nn.Parameter(_inverse_softplus([weight])[0])
        self.raw_bandwidths = nn.Parameter(_inverse_softplus([value - _SMALLEST for value in bandwidths_mm]))
        if intensity:
            self.raw_intensity = nn.Parameter(_inverse_softplus([value - _SMALLEST for value in intensity])[0])

    def weight(self) -> Tensor:
        return F.softplus(self.raw_weight)

    def bandwidths_mm(self) -> Tensor:
        return _SMALLEST + F.softplus(self.raw_bandwidths)

    def intensity_bandwidth(self) -> Tensor:
        return _SMALLEST + F.softplus(self.raw_intensity)


def _inverse_softplus(values: Sequence[float]) -> Tensor:
    exact = torch.tensor(values, dtype=torch.float64)
    return (exact + torch.log(-torch.expm1(-exact))).float()


def _checked_weight(name: str, weight: float) -> bool:
    """Return whether a term is wanted."""
    if not 0 <= weight < float("inf"):
        raise ValueError(f"{name} must be a number >= 0, got {weight!r}")
    return weight > 0


def _checked_window(name: str, window: int) -> int:
    if window < 3 or window % 2 != 1:
        odd = max(3, int(window) // 2 * 2 + 1)
        raise ValueError(f"{name} must be an odd number of voxels >= 3, got {window!r}; take {odd}")
    return int(window)


def _per_axis(name: str, values: float | Sequence[float], axes: int) -> list[float]:
    numbers = [float(values)] * axes if isinstance(values, int | float) else [float(value) for value in values]
    if len(numbers) != axes or not all(_SMALLEST < number < float("inf") for number in numbers):
        need = "a number" if axes == 1 else f"one number or {axes}, each"
        raise ValueError(f"{name} must be {need} > {_SMALLEST}, got {values!r}")
    return numbers


def _spacing(spacing_mm: Spacing, logits: Tensor, dims: int) -> Tensor:
    """Return the spacing of each sample, (B, D), or of all, (1, D), on the logits' device."""
    if spacing_mm is None:
        return torch.ones(1, dims, device=logits.device)
    spacing = torch.as_tensor(spacing_mm, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)
    spacing = spacing[None] if spacing.ndim == 1 else spacing
    if spacing.ndim != 2 or spacing.shape[1] != dims or spacing.shape[0] not in (1, logits.shape[0]):
        raise ValueError(
            f"spacing_mm must have shape ({dims},) or ({logits.shape[0]}, {dims}), got {tuple(spacing.shape)}"
        )
    # a look at the values would break a graph that is being compiled or exported, and wait for a GPU if they lie there
    look = not torch.compiler.is_compiling() and spacing.device.type == "cpu"
    if look and not ((spacing > 0) & spacing.isfinite()).all():
        raise ValueError(f"spacing_mm must be finite and > 0, got {spacing.tolist()}")
    return spacing.to(logits.device, non_blocking=True)
