"""SAM's attention with decomposed relative positions, exact, without the (tokens x tokens) bias in memory."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .windows import Tile, tiles

_BLOCK_BYTES = 4 * 2**20
"""Scores held at once on a CPU: about what its cache holds."""

_Filled = tuple[Tensor, Tensor | None]
"""Image of tokens, and the token that fills windows up."""


class SplitQKV(nn.Module):
    """Query, key and value projections as three layers, so that an adapter can take two of them.

    Args:
        dim: Width of the tokens.
        bias: Whether the projections have a bias.
    """

    def __init__(self, dim: int, bias: bool = True) -> None:
        super().__init__()
        self.q_proj = nn.Linear(dim, dim, bias=bias)
        self.k_proj = nn.Linear(dim, dim, bias=bias)
        self.v_proj = nn.Linear(dim, dim, bias=bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of tokens, each in the shape of `x` (..., dim)."""
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


class RelativeAttention(nn.Module):
    """Multi-head self-attention over an image of tokens, with relative positions of rows and of columns.

    Same result and same parameters as `segment_anything`'s attention, with `qkv` split in three. Windows are cut
    here, after the projections, and not in the block around: what fills up windows at the border is all alike, so it
    is projected once, and on a CPU it asks for no answer.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads; divides `dim`.
        size: Rows and columns (H, W) that the tables of positions are for: of a window, or of the whole image.
        windowed: Whether tokens attend within windows of that size.
        bias: Whether query, key and value have a bias.

    Source:
        Kirillov et al. 2023, arXiv:2304.02643 (ViT of Li et al. 2022, arXiv:2203.16527, with the decomposed
        positions of Li et al. 2021, arXiv:2112.01526).
    """

    def __init__(
        self, dim: int, num_heads: int, size: tuple[int, int], windowed: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.size = size
        self.windowed = windowed
        self.qkv = SplitQKV(dim, bias)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size[0] - 1, self.head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size[1] - 1, self.head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended tokens, shape (B, H, W, dim), of tokens of that shape."""
        lines = [
            [tile.join(attend(*parts), tile.queries, self.num_heads) for tile, parts in line]
            for line in self._scored_parts(x)
        ]
        return self.proj(_assembled(lines))

    def spread(self, x: Tensor, shares: Tensor) -> Tensor:
        """Return what each token gets if the queries pass on their shares as they attend, mean over the heads.

        Args:
            x: Tokens, shape (B, H, W, dim).
            shares: Of each query, shape (B, H, W, 1).

        Returns:
            Shape (B, H, W, 1). What the filling of windows gets is not in it.
        """

        def spread(tile: Tile, parts: tuple[Tensor, ...]) -> Tensor:
            q, k, _, rows, columns = parts
            given = tile.cut(shares, tile.queries, 1).repeat_interleave(self.num_heads, dim=0).transpose(1, 2)
            got = torch.zeros(len(k), 1, k.shape[1], dtype=k.dtype, device=k.device)
            for n, s in _blocks(q, k):
                got[n] += given[n, :, s] @ _scores(q[n, s], k[n], rows[n, s], columns[n, s]).softmax(-1)
            return tile.join(got.unflatten(0, (-1, self.num_heads)).mean(1).transpose(1, 2), tile.keys, 1)

        return _assembled([[spread(*part) for part in line] for line in self._scored_parts(x)])

    def _scored_parts(self, x: Tensor) -> list[list[tuple[Tile, tuple[Tensor, ...]]]]:
        """Return the image's tiles with their arguments of `attend`."""
        image = x.shape[1], x.shape[2]
        if self.windowed:
            lines = tiles(image, self.size, split=_by_blocks(x))
            fill = self.qkv(x.new_zeros(1, 1, 1, x.shape[-1]))
        else:
            lines = tiles(image, image, split=False)
            fill = (None,) * 3
        q, k, v = zip(self.qkv(x), fill, strict=True)
        return [[(tile, self._arguments(tile, q, k, v)) for tile in line] for line in lines]

    def _arguments(self, tile: Tile, q: _Filled, k: _Filled, v: _Filled) -> tuple[Tensor, ...]:
        (height, width), (key_height, key_width) = tile.queries, tile.keys
        queries = tile.cut(q[0], tile.queries, self.num_heads)
        keys, values = (tile.cut(image, tile.keys, self.num_heads, fill) for image, fill in (k, v))
        # One product a head and row (or column): (.., H, W, d) with the table of offsets (H, H, d).
        grid = queries.unflatten(1, (height, width))
        down = _offsets(self.rel_pos_h, height, key_height).to(q[0].dtype)
        across = _offsets(self.rel_pos_w, width, key_width).to(q[0].dtype)
        rows = torch.einsum("nhwd,hkd->nhwk", grid, down).flatten(1, 2)
        columns = torch.einsum("nhwd,wkd->nhwk", grid, across).flatten(1, 2)
        return queries * self.head_dim**-0.5, keys, values, rows, columns


def _assembled(lines: list[list[Tensor]]) -> Tensor:
    """Return an image (B, H, W, C) of its pieces, in lines."""
    rows = [torch.cat(line, dim=2) if len(line) > 1 else line[0] for line in lines]
    return torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]


def attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return softmax(q k' + rows + columns) v, where a key's row and column choose the entry of the two terms.

    On a CPU in single precision the scores are made block by block, and made again for the gradient. Elsewhere the
    two terms become further entries of query and key (the key's are one-hot), so that a fused kernel applies.

    Args:
        q: Scaled queries, shape (N, Q, d).
        k: Keys, shape (N, H * W, d).
        v: Values, shape (N, H * W, d).
        rows: Score of each query with each row of keys, shape (N, Q, H).
        columns: Score of each query with each column of keys, shape (N, Q, W).

    Returns:
        Shape (N, Q, d).
    """
    if not _by_blocks(q):
        return _attend_fused(q, k, v, rows, columns)
    if torch.is_grad_enabled() and any(part.requires_grad for part in (q, k, v, rows, columns)):
        return _BlockAttention.apply(q, k, v, rows, columns)
    return _attend_blocks(q, k, v, rows, columns)


def _by_blocks(x: Tensor) -> bool:
    """Return whether scores are made block by block, with less to do in exchange for more calls."""
    exporting = torch.jit.is_tracing() or torch.compiler.is_compiling()
    return x.device.type == "cpu" and x.dtype == torch.float32 and not exporting


def _offsets(table: Tensor, queries: int, keys: int) -> Tensor:
    """Return the positions of each pair (query, key) of an axis, shape (queries, keys, d), from (2 keys - 1, d)."""
    index = torch.arange(keys, device=table.device)
    return table[index[:queries, None] - index[None, :] + keys - 1]


def _attend_fused(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    height, width = rows.shape[-1], columns.shape[-1]
    row = torch.eye(height, dtype=k.dtype, device=k.device).repeat_interleave(width, dim=0)
    column = torch.eye(width, dtype=k.dtype, device=k.device).repeat(height, 1)
    place = torch.cat([row, column], dim=-1).expand(len(k), -1, -1)
    query = torch.cat([q, rows, columns], dim=-1)
    key = torch.cat([k, place], dim=-1)
    filler = -query.shape[-1] % 8  # kernels want multiples of 8
    query, key = F.pad(query, (0, filler)), F.pad(key, (0, filler))
    value = F.pad(v, (0, query.shape[-1] - v.shape[-1]))
    attended = F.scaled_dot_product_attention(query[None], key[None], value[None], scale=1.0)[0]
    return attended[..., : v.shape[-1]]


class _BlockAttention(torch.autograd.Function):
    """Attention whose scores are made again for the gradient; nothing of their size is kept."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(q, k, v, rows, columns)
        return _attend_blocks(q, k, v, rows, columns)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, rows, columns = ctx.saved_tensors
        inputs = zip((q, k, v, rows, columns), ctx.needs_input_grad, strict=True)
        dq, dk, dv, drows, dcolumns = (torch.zeros_like(part) if need else None for part, need in inputs)
        grad = grad.contiguous()
        for n, s in _blocks(q, k):
            weights = _scores(q[n, s], k[n], rows[n, s], columns[n, s]).softmax(-1)
            if dv is not None:
                dv[n].baddbmm_(weights.transpose(1, 2), grad[n, s])
            dweights = torch.bmm(grad[n, s], v[n].transpose(1, 2))
            dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
            if dq is not None:
                torch.bmm(dscores, k[n], out=dq[n, s])
            if dk is not None:
                dk[n].baddbmm_(dscores.transpose(1, 2), q[n, s])
            grid = dscores.unflatten(-1, (rows.shape[-1], columns.shape[-1]))
            if drows is not None:
                torch.sum(grid, -1, out=drows[n, s])
            if dcolumns is not None:
                torch.sum(grid, -2, out=dcolumns[n, s])
        return dq, dk, dv, drows, dcolumns


def _attend_blocks(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=v.dtype, device=v.device)
    for n, s in _blocks(q, k):
        weights = _scores(q[n, s], k[n], rows[n, s], columns[n, s]).softmax(-1)
        torch.bmm(weights, v[n], out=out[n, s])
    return out


def _scores(q: Tensor, k: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    bias = rows.unsqueeze(-1) + columns.unsqueeze(-2)
    return bias.flatten(-2).baddbmm_(q, k.transpose(1, 2))


def _blocks(q: Tensor, k: Tensor):
    """Yield slices of heads and of queries whose scores fit the cache."""
    heads, queries, keys = q.shape[0], q.shape[1], k.shape[1]
    scores = _BLOCK_BYTES // q.element_size()
    step_queries = min(queries, max(1, scores // keys))
    step_heads = max(1, scores // (keys * queries)) if step_queries == queries else 1
    for first in range(0, heads, step_heads):
        for start in range(0, queries, step_queries):
            yield slice(first, min(heads, first + step_heads)), slice(start, min(queries, start + step_queries))
