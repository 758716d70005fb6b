"""Images of tokens cut into windows for attention."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image of tokens, made of windows that are alike.

    Args:
        start: First row and column.
        size: Rows and columns.
        queries: Rows and columns of a window that ask.
        keys: Rows and columns of a window that answer: at the border, filling included.
    """

    start: tuple[int, int]
    size: tuple[int, int]
    queries: tuple[int, int]
    keys: tuple[int, int]

    def cut(self, x: Tensor, window: tuple[int, int], heads: int, fill: Tensor | None = None) -> Tensor:
        """Return this rectangle of an image as windows of tokens.

        Args:
            x: The image, shape (B, H, W, heads * d).
            window: `queries` or `keys`.
            heads: Attention heads.
            fill: Token for what is missing in a window, shape (1, 1, 1, heads * d); zeros if not given.

        Returns:
            Shape (B * windows * heads, tokens of a window, d).
        """
        (top, left), (height, width) = self.start, self.size
        lines, columns = self._counts
        x = _filled(x[:, top : top + height, left : left + width], lines * window[0], columns * window[1], fill)
        parts = x.unflatten(3, (heads, -1)).unflatten(2, (columns, -1)).unflatten(1, (lines, -1))
        return parts.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(0, 3)

    def join(self, x: Tensor, window: tuple[int, int], heads: int) -> Tensor:
        """Return windows of tokens as the rectangle that they were cut from, without the filling.

        Args:
            x: Windows, as from `cut`.
            window: `queries` or `keys`.
            heads: Attention heads.

        Returns:
            Shape (B, rows, columns, heads * d).
        """
        parts = x.unflatten(0, (-1, *self._counts, heads)).unflatten(4, window)
        image = parts.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return image[:, : self.size[0], : self.size[1]]

    @property
    def _counts(self) -> tuple[int, int]:
        """Windows down and across."""
        return -(-self.size[0] // self.queries[0]), -(-self.size[1] // self.queries[1])


def tiles(image: tuple[int, int], window: tuple[int, int], split: bool) -> list[list[Tile]]:
    """Return an image's tiles, in lines from the top, each from the left.

    Args:
        image: Rows and columns of tokens.
        window: Rows and columns of a window; windows that reach over the border are filled up.
        split: Whether windows at the border make tiles of their own, in which only tokens of the image ask; else
            everything is one tile.
    """
    if not split:
        return [[Tile((0, 0), image, window, window)]]
    lines, columns = (list(_pieces(*lengths)) for lengths in zip(image, window, strict=True))
    return [
        [Tile((top, left), (height, width), (rows, across), window) for left, width, across in columns]
        for top, height, rows in lines
    ]


def _pieces(length: int, window: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, length and a window's real length of the whole windows, and of the one at the border."""
    rest = length % window
    if length >= window:
        yield 0, length - rest, window
    if rest:
        yield length - rest, rest, rest


def _filled(x: Tensor, height: int, width: int, fill: Tensor | None) -> Tensor:
    """Return an image (B, H, W, C), continued below and to the right."""
    below, right = height - x.shape[1], width - x.shape[2]
    if fill is None:
        return F.pad(x, (0, 0, 0, right, 0, below)) if below or right else x
    if right:
        x = torch.cat([x, fill.expand(len(x), x.shape[1], right, -1)], dim=2)
    if below:
        x = torch.cat([x, fill.expand(len(x), below, x.shape[2], -1)], dim=1)
    return x
