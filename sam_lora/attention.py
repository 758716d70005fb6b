"""SAM's attention with decomposed relative positions, exact, without the (tokens x tokens) bias in memory."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BLOCK_BYTES = 4 * 2**20
"""Scores held at once on a CPU: about what its cache holds."""


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

    Same result and same parameters as `segment_anything`'s attention, with `qkv` split in three.

    Args:
        dim: Width of the tokens.
        num_heads: Attention heads; divides `dim`.
        size: Rows and columns (H, W) that the tables of positions are for.
        bias: Whether query, key and value have a bias.

    Source:
        Kirillov et al. 2023, arXiv:2304.02643 (ViT of Li et al. 2022, arXiv:2203.16527, with the decomposed
        positions of Li et al. 2021, arXiv:2112.01526).
    """

    def __init__(self, dim: int, num_heads: int, size: tuple[int, int], bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.qkv = SplitQKV(dim, bias)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size[0] - 1, self.head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size[1] - 1, self.head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended tokens, shape (B, H, W, dim), of tokens of that shape."""
        batch, height, width, _ = x.shape
        attended = attend(*self._scored_parts(x))
        attended = attended.unflatten(0, (batch, self.num_heads)).transpose(1, 2)
        return self.proj(attended.reshape(batch, height, width, -1))

    def spread(self, x: Tensor, shares: Tensor) -> Tensor:
        """Return what each token gets if the queries pass on their shares as they attend.

        Args:
            x: Tokens, shape (B, H, W, dim).
            shares: Of each query, shape (B * heads, 1, H * W).

        Returns:
            Shape (B * heads, 1, H * W).
        """
        q, k, _, rows, columns = self._scored_parts(x)
        spread = torch.zeros_like(shares)
        for n, s in _blocks(q, k):
            weights = _scores(q[n, s], k[n], rows[n, s], columns[n, s]).softmax(-1)
            spread[n] += shares[n, :, s] @ weights
        return spread

    def _scored_parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return scaled queries, keys, values, and the queries' scores with rows and columns: see `attend`."""
        _, height, width, _ = x.shape
        q, k, v = (self._heads(part) for part in self.qkv(x))
        # One product a head and row (or column): (.., H, W, d) with the table of offsets (H, H, d).
        image = q.unflatten(1, (height, width))
        rows = torch.einsum("nhwd,hkd->nhwk", image, _offsets(self.rel_pos_h, height).to(q.dtype)).flatten(1, 2)
        columns = torch.einsum("nhwd,wkd->nhwk", image, _offsets(self.rel_pos_w, width).to(q.dtype)).flatten(1, 2)
        return q * self.head_dim**-0.5, k, v, rows, columns

    def _heads(self, x: Tensor) -> Tensor:
        """Return (B, H, W, heads * d) as (B * heads, H * W, d)."""
        return x.flatten(1, 2).unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2).flatten(0, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return softmax(q k' + rows + columns) v, where a key's row and column choose the entry of the two terms.

    On a CPU in single precision the scores are made block by block, and made again for the gradient. Elsewhere the
    two terms become further entries of query and key (the key's are one-hot), so that a fused kernel applies.

    Args:
        q: Scaled queries, shape (N, H * W, d).
        k: Keys, shape (N, H * W, d).
        v: Values, shape (N, H * W, d).
        rows: Score of each query with each row of keys, shape (N, H * W, H).
        columns: Score of each query with each column of keys, shape (N, H * W, W).

    Returns:
        Shape (N, H * W, d).
    """
    exporting = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if q.device.type != "cpu" or q.dtype != torch.float32 or exporting:
        return _attend_fused(q, k, v, rows, columns)
    if torch.is_grad_enabled() and any(part.requires_grad for part in (q, k, v, rows, columns)):
        return _BlockAttention.apply(q, k, v, rows, columns)
    return _attend_blocks(q, k, v, rows, columns)[0]


def _offsets(table: Tensor, size: int) -> Tensor:
    """Return the positions of each pair (query, key) of an axis, shape (size, size, d), from (2 size - 1, d)."""
    index = torch.arange(size, device=table.device)
    return table[index[:, None] - index[None, :] + size - 1]


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
    """Attention whose scores are made again for the gradient; only their logarithmic sums are kept."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:  # type: ignore[override]
        out, log_sums = _attend_blocks(q, k, v, rows, columns)
        ctx.save_for_backward(q, k, v, rows, columns, out, log_sums)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        q, k, v, rows, columns, out, log_sums = ctx.saved_tensors
        inputs = zip((q, k, v, rows, columns), ctx.needs_input_grad, strict=True)
        dq, dk, dv, drows, dcolumns = (torch.zeros_like(part) if need else None for part, need in inputs)
        grad = grad.contiguous()
        delta = (grad * out).sum(-1, keepdim=True)
        for n, s in _blocks(q, k):
            scores = _scores(q[n, s], k[n], rows[n, s], columns[n, s])
            weights = scores.sub_(log_sums[n, s]).exp_()
            if dv is not None:
                dv[n].baddbmm_(weights.transpose(1, 2), grad[n, s])
            dscores = torch.bmm(grad[n, s], v[n].transpose(1, 2)).sub_(delta[n, s]).mul_(weights)
            if dq is not None:
                dq[n, s] = torch.bmm(dscores, k[n])
            if dk is not None:
                dk[n].baddbmm_(dscores.transpose(1, 2), q[n, s])
            grid = dscores.unflatten(-1, (rows.shape[-1], columns.shape[-1]))
            if drows is not None:
                drows[n, s] = grid.sum(-1)
            if dcolumns is not None:
                dcolumns[n, s] = grid.sum(-2)
        return dq, dk, dv, drows, dcolumns


def _attend_blocks(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Return the attended values, and the logarithm of each query's sum of exponentials, shape (N, H * W, 1)."""
    out = torch.empty_like(v)
    log_sums = q.new_empty(*q.shape[:-1], 1)
    for n, s in _blocks(q, k):
        scores = _scores(q[n, s], k[n], rows[n, s], columns[n, s])
        highest = scores.amax(-1, keepdim=True)
        weights = scores.sub_(highest).exp_()
        sums = weights.sum(-1, keepdim=True)
        out[n, s] = torch.bmm(weights, v[n]).div_(sums)
        log_sums[n, s] = sums.log_().add_(highest)
    return out, log_sums


def _scores(q: Tensor, k: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    scores = torch.bmm(q, k.transpose(1, 2))
    grid = scores.view(*scores.shape[:2], rows.shape[-1], columns.shape[-1])
    grid.add_(rows.unsqueeze(-1)).add_(columns.unsqueeze(-2))
    return scores


def _blocks(q: Tensor, k: Tensor):
    """Yield slices of heads and of queries whose scores fit the cache."""
    heads, queries, keys = q.shape[0], q.shape[1], k.shape[1]
    scores = _BLOCK_BYTES // q.element_size()
    step_queries = min(queries, max(1, scores // keys))
    step_heads = max(1, scores // (keys * queries)) if step_queries == queries else 1
    for first in range(0, heads, step_heads):
        for start in range(0, queries, step_queries):
            yield slice(first, min(heads, first + step_heads)), slice(start, min(queries, start + step_queries))
