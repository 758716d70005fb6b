"""SAM's attention with decomposed relative positions, exact, without the (tokens x tokens) bias in memory."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .windows import Tile, tiles

_BLOCK_BYTES = 4 * 2**20
"""Scores held at once on a CPU: about what its cache holds."""

_Tensors = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor, Tensor]
_Part = tuple[Tile, tuple[Tensor, ...]]


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
        tensors = self._projected(x)
        if _by_blocks(tensors[0]) and torch.is_grad_enabled() and any(map(_needs_grad, tensors)):
            return self.proj(_RecutAttention.apply(self._parts, self.num_heads, *tensors))
        return self.proj(_attended(self._parts(*tensors), self.num_heads))

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
                got[n] += given[n, :, s] @ _weights(q[n, s], k[n], rows[n, s], columns[n, s])
            return tile.join(got.unflatten(0, (-1, self.num_heads)).mean(1).transpose(1, 2), tile.keys, 1)

        return _assembled([[spread(*part) for part in line] for line in self._parts(*self._projected(x))])

    def _projected(self, x: Tensor) -> "_Tensors":
        """Return queries, keys and values, the key and the value that fill windows up, and the tables of positions."""
        q, k, v = self.qkv(x)
        _, *fills = self.qkv(x.new_zeros(1, 1, 1, x.shape[-1])) if self.windowed else (None,) * 3
        return q, k, v, *fills, self.rel_pos_h, self.rel_pos_w

    def _parts(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        k_fill: Tensor | None,
        v_fill: Tensor | None,
        down: Tensor,
        across: Tensor,
    ) -> list[list["_Part"]]:
        """Return the image's tiles with their arguments of `attend`."""
        image = q.shape[1], q.shape[2]
        lines = tiles(image, self.size if self.windowed else image, split=self.windowed and _by_blocks(q))

        def arguments(tile: Tile) -> tuple[Tensor, ...]:
            (height, width), (key_height, key_width) = tile.queries, tile.keys
            queries = tile.cut(q, tile.queries, self.num_heads)
            keys, values = (tile.cut(x, tile.keys, self.num_heads, fill) for x, fill in ((k, k_fill), (v, v_fill)))
            # One product a head and row (or column): (.., H, W, d) with the table of offsets (H, H, d).
            grid = queries.unflatten(1, (height, width))
            rows = torch.einsum("nhwd,hkd->nhwk", grid, _offsets(down, height, key_height).to(q.dtype))
            columns = torch.einsum("nhwd,wkd->nhwk", grid, _offsets(across, width, key_width).to(q.dtype))
            return queries, keys, values, rows.flatten(1, 2), columns.flatten(1, 2)

        return [[(tile, arguments(tile)) for tile in line] for line in lines]


def _attended(lines: list[list["_Part"]], heads: int) -> Tensor:
    return _assembled([[tile.join(attend(*parts), tile.queries, heads) for tile, parts in line] for line in lines])


def _needs_grad(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.requires_grad


def _assembled(lines: list[list[Tensor]]) -> Tensor:
    """Return an image (B, H, W, C) of its pieces, in lines."""
    rows = [torch.cat(line, dim=2) if len(line) > 1 else line[0] for line in lines]
    return torch.cat(rows, dim=1) if len(rows) > 1 else rows[0]


def attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return softmax(q k' / sqrt(d) + rows + columns) v; a key's row and column choose the entry of the two terms.

    On a CPU in single precision the scores are made block by block (without a gradient, which `_RecutAttention` makes).
    Elsewhere the two terms become further entries of query and key (the key's are one-hot), so that a fused kernel
    applies.

    Args:
        q: Queries, shape (N, Q, d).
        k: Keys, shape (N, H * W, d).
        v: Values, shape (N, H * W, d).
        rows: Score of each query with each row of keys, shape (N, Q, H).
        columns: Score of each query with each column of keys, shape (N, Q, W).

    Returns:
        Shape (N, Q, d).
    """
    return (_attend_blocks if _by_blocks(q) else _attend_fused)(q, k, v, rows, columns)


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
    query = torch.cat([q * _scale(q), rows, columns], dim=-1)
    key = torch.cat([k, place], dim=-1)
    filler = -query.shape[-1] % 8  # kernels want multiples of 8
    query, key = F.pad(query, (0, filler)), F.pad(key, (0, filler))
    value = F.pad(v, (0, query.shape[-1] - v.shape[-1]))
    attended = F.scaled_dot_product_attention(query[None], key[None], value[None], scale=1.0)[0]
    return attended[..., : v.shape[-1]]


class _RecutAttention(torch.autograd.Function):
    """Attention that keeps queries, keys and values as images; windows and scores are made again for the gradient.

    What is kept is all of one size, so that a CPU's memory isn't riddled with holes between the windows of the blocks.
    """

    @staticmethod
    def forward(ctx, cut, heads: int, *tensors: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.cut, ctx.heads = cut, heads
        ctx.save_for_backward(*tensors)
        return _attended(cut(*tensors), heads)

    @staticmethod
    @torch.autograd.function.once_differentiable
    @torch.autocast("cpu", enabled=False)  # the backward pass may be called inside one that the forward wasn't in
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        needs = ctx.needs_input_grad[2:]
        inputs = [
            t if t is None else t.detach().requires_grad_(n) for t, n in zip(ctx.saved_tensors, needs, strict=True)
        ]
        with torch.enable_grad():
            lines = ctx.cut(*inputs)
        made: list[Tensor] = []
        gradients: list[Tensor] = []
        for tile, parts in (part for line in lines for part in line):
            for part, gradient in zip(parts, _gradients(parts, tile.cut(grad, tile.queries, ctx.heads)), strict=True):
                if gradient is not None:
                    made.append(part)
                    gradients.append(gradient)
        wanted = [tensor for tensor in inputs if _needs_grad(tensor)]
        found = iter(torch.autograd.grad(made, wanted, gradients, allow_unused=True))  # type: ignore[arg-type]
        return None, None, *(next(found) if _needs_grad(tensor) else None for tensor in inputs)


def _gradients(inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of `attend`'s arguments, None for those that need none."""
    q, k, v, rows, columns = inputs
    dq, dk, dv, drows, dcolumns = (torch.zeros_like(part) if part.requires_grad else None for part in inputs)
    for n, s in _blocks(q, k):
        weights = _weights(q[n, s], k[n], rows[n, s], columns[n, s])
        if dv is not None:
            dv[n].baddbmm_(weights.transpose(1, 2), grad[n, s])
        dweights = torch.bmm(grad[n, s], v[n].transpose(1, 2))
        dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
        if dq is not None:
            dq[n, s].baddbmm_(dscores, k[n], alpha=_scale(q))
        if dk is not None:
            dk[n].baddbmm_(dscores.transpose(1, 2), q[n, s], alpha=_scale(q))
        grid = dscores.unflatten(-1, (rows.shape[-1], columns.shape[-1]))
        if drows is not None:
            torch.sum(grid, -1, out=drows[n, s])
        if dcolumns is not None:
            torch.sum(grid, -2, out=dcolumns[n, s])
    return dq, dk, dv, drows, dcolumns


def _attend_blocks(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    out = torch.empty(*q.shape[:-1], v.shape[-1], dtype=v.dtype, device=v.device)
    for n, s in _blocks(q, k):
        torch.bmm(_weights(q[n, s], k[n], rows[n, s], columns[n, s]), v[n], out=out[n, s])
    return out


def _weights(q: Tensor, k: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    bias = rows.unsqueeze(-1) + columns.unsqueeze(-2)
    return bias.flatten(-2).baddbmm_(q, k.transpose(1, 2), alpha=_scale(q)).softmax(-1)


def _scale(q: Tensor) -> float:
    return q.shape[-1] ** -0.5


def _blocks(q: Tensor, k: Tensor):
    """Yield slices of heads and of queries whose scores fit the cache."""
    heads, queries, keys = q.shape[0], q.shape[1], k.shape[1]
    scores = _BLOCK_BYTES // q.element_size()
    step_queries = min(queries, max(1, scores // keys))
    step_heads = max(1, scores // (keys * queries)) if step_queries == queries else 1
    for first in range(0, heads, step_heads):
        for start in range(0, queries, step_queries):
            yield slice(first, min(heads, first + step_heads)), slice(start, min(queries, start + step_queries))
