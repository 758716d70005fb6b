"""Messages between the voxels of a random field: each voxel's sum over its neighbours, weighted by a kernel."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_BLOCK = 16
"""Rows of a banded matrix that are multiplied at once: fewer are slower by their number, more by their zeros."""

_VOXELS = 2**21
"""Values that are smoothed at once: blocks of memory that are larger are fetched from the system anew each time."""

_IN_CACHE = 2**17
"""Values that are smoothed along all axes but the first before others follow: what the processor keeps near."""


def axis_kernels(size: Sequence[int], spacing_mm: Tensor, bandwidths_mm: Tensor, radius: int) -> list[Tensor]:
    """Return for each axis the matrix that convolves along it with a Gaussian.

    Args:
        size: Voxels along each of the D axes.
        spacing_mm: Voxel size in mm, shape (B, D) or (1, D).
        bandwidths_mm: Standard deviation of the Gaussian in mm along each axis, shape (D,).
        radius: Farthest neighbour along the axis, in voxels.

    Returns:
        One banded matrix an axis, shape (B or 1, N, N). Its diagonal is the share of the voxel itself in the
        Gaussian's sum over the window; outside the image there is nothing, so rows near a border sum to less than 1.
    """
    kernels = []
    for axis, length in enumerate(size):
        steps = (spacing_mm[:, axis] / bandwidths_mm[axis])[:, None, None]
        voxels = torch.arange(length, device=spacing_mm.device)
        apart = voxels[:, None] - voxels[None, :]
        gaussian = torch.exp(-0.5 * (apart * steps).square()) * (apart.abs() <= radius)
        kernels.append(gaussian / _window_sum(steps, radius))
    return kernels


def smoothness_messages(belief: Tensor, kernels: Sequence[Tensor], radius: int) -> Tensor:
    """Return each voxel's sum over its neighbours' beliefs, weighted by a separable kernel, without the voxel itself.

    A banded matrix product along each axis is many times as fast as a convolution on a CPU, and exact.

    Args:
        belief: Shape (B, K, *S), contiguous; where no gradient is wanted, the messages take its place.
        kernels: As `axis_kernels` returns them.
        radius: Farthest neighbour along an axis, in voxels, as given to `axis_kernels`.

    Returns:
        Messages of the same shape.
    """
    samples = zip(belief.split(len(belief) // len(kernels[0])), *kernels, strict=True)
    at_once = max(1, _VOXELS // belief[0, 0].numel())
    if torch.is_grad_enabled():
        smooth = [_smoothed(part, own, radius) for some, *own in samples for part in some.flatten(0, 1).split(at_once)]
        return torch.cat(smooth).reshape(belief.shape)
    room = belief.new_empty(belief.flatten(0, 1)[:at_once].shape)
    for some, *own in samples:
        for part in some.flatten(0, 1).split(at_once):
            _smooth_in_place(part, own, radius, room[: len(part)])
    return belief


def _smoothed(belief: Tensor, kernels: Sequence[Tensor], radius: int) -> Tensor:
    """Return the messages of channels (N, *S)."""
    smooth = belief
    for axis, kernel in enumerate(kernels, start=1):
        smooth = _along_axis(smooth, kernel, axis, radius)
    return torch.addcmul(smooth, belief, -_own_share(kernels))


def _smooth_in_place(belief: Tensor, kernels: Sequence[Tensor], radius: int, room: Tensor) -> None:
    """Put the messages of channels (N, *S) in the place of their beliefs; `room`: memory of the same shape."""
    at_once = max(1, _IN_CACHE // belief[0, 0].numel())
    for part, smooth in zip(*(x.flatten(0, 1).split(at_once) for x in (belief, room)), strict=True):
        for axis, kernel in enumerate(kernels[1:-1], start=1):
            part = _along_axis(part, kernel, axis, radius)
        rows, smooth_rows = part.flatten(0, -2), smooth.flatten(0, -2)
        for block, seen in _blocks(rows.shape[1], radius):
            smooth_rows[:, block] = rows[:, seen] @ kernels[-1][seen, block]
    belief *= -_own_share(kernels)
    for messages, smooth in zip(belief.flatten(2), room.flatten(2), strict=True):
        for block, seen in _blocks(len(smooth), radius):
            messages[block].addmm_(kernels[0][block, seen], smooth[seen])


def _own_share(kernels: Sequence[Tensor]) -> Tensor:
    """Return the weight of the voxel itself, a scalar."""
    return torch.stack([kernel[0, 0] for kernel in kernels]).prod()


def _along_axis(values: Tensor, kernel: Tensor, axis: int, radius: int) -> Tensor:
    """Multiply by a banded symmetric matrix along one axis, in blocks of rows: most of the matrix is 0."""
    is_last = axis == values.ndim - 1
    flat = values.flatten(0, axis - 1) if is_last else values.flatten(0, axis - 1).flatten(2)
    parts = []
    for block, seen in _blocks(values.shape[axis], radius):
        parts.append(flat[:, seen] @ kernel[seen, block] if is_last else kernel[block, seen] @ flat[:, seen])
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).reshape(values.shape)


def _blocks(length: int, radius: int) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of an axis, each with what its voxels see."""
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        yield slice(start, stop), slice(max(0, start - radius), min(length, stop + radius))


def appearance_messages(
    belief: Tensor,
    image: Tensor,
    spacing_mm: Tensor,
    bandwidths_mm: Tensor,
    intensity_bandwidth: Tensor,
    radius: int,
) -> Tensor:
    """Return each voxel's sum over its neighbours' beliefs, weighted by distance and by difference in intensity.

    Args:
        belief: Shape (B, K, *S).
        image: Shape (B, C, *S); the squared differences of its channels are added.
        spacing_mm: Voxel size in mm, shape (B, D) or (1, D).
        bandwidths_mm: Standard deviation in mm along each axis, shape (D,).
        intensity_bandwidth: Standard deviation in units of the image's intensity.
        radius: Farthest neighbour along an axis, in voxels.

    Returns:
        Messages of the same shape, without the voxel itself; where the image is constant they are those of
        `smoothness_messages`.
    """
    steps = spacing_mm / bandwidths_mm
    scale = torch.stack([_window_sum(step, radius) for step in steps.unbind(1)]).prod(dim=0)
    messages = torch.zeros_like(belief)
    for offset in _half_window(belief.shape[2:], radius):
        near, far = _overlap(offset)
        shift = torch.tensor(offset, dtype=steps.dtype, device=steps.device)
        closeness = torch.exp(-0.5 * (shift * steps).square().sum(dim=1)) / scale
        shape = (-1,) + (1,) * (belief.ndim - 1)
        pair = belief[near], belief[far], image[near], image[far], closeness.reshape(shape), intensity_bandwidth
        # the views cost nothing to keep, what is computed from them would: a copy of all probabilities a neighbour
        to_near, to_far = saving_memory(_exchange, *pair)
        messages[near] += to_near
        messages[far] += to_far
    return messages


def saving_memory(function: Any, *arguments: Any) -> Any:
    """Call a function; where gradients are wanted, keep its arguments only and compute it again in backward."""
    if not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)


def _exchange(
    near: Tensor, far: Tensor, near_image: Tensor, far_image: Tensor, closeness: Tensor, intensity_bandwidth: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what voxels that lie one offset apart tell each other: the messages to the near ones and to the far."""
    difference = ((near_image - far_image) / intensity_bandwidth).square().sum(dim=1, keepdim=True)
    weight = closeness * torch.exp(-0.5 * difference)
    return weight * far, weight * near


def _window_sum(steps: Tensor, radius: int) -> Tensor:
    """Return the sum of a Gaussian over one axis of the window; `steps`: voxels in standard deviations."""
    total = torch.ones_like(steps)
    for distance in range(1, radius + 1):
        total = total + 2 * torch.exp(-0.5 * (distance * steps).square())
    return total


def _half_window(size: Sequence[int], radius: int) -> Iterator[tuple[int, ...]]:
    """Yield one offset of each opposite pair in a window, those that reach beyond the image left out."""
    for offset in itertools.product(range(-radius, radius + 1), repeat=len(size)):
        if offset > (0,) * len(size) and all(abs(o) < length for o, length in zip(offset, size, strict=True)):
            yield offset


def _overlap(offset: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the voxels that have a neighbour at the offset, and these neighbours, as indices of (B, K, *S)."""
    whole = (slice(None), slice(None))
    near = tuple(slice(max(0, -o), -o if o > 0 else None) for o in offset)
    far = tuple(slice(max(0, o), o if o < 0 else None) for o in offset)
    return whole + near, whole + far
