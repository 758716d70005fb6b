"""The lean attention is SAM's own, to rounding, and keeps nothing of size tokens x tokens."""

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention, window_partition, window_unpartition

from sam_lora import attention
from sam_lora.attention import RelativeAttention


class WindowedAttention(Attention):
    """SAM's attention with what its block does around it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = (len(self.rel_pos_h) + 1) // 2
        windows, padded = window_partition(x, side)
        return window_unpartition(super().forward(windows), side, padded, (x.shape[1], x.shape[2]))


def twins(
    size: tuple[int, int], windowed: bool = False, dim: int = 48, heads: int = 3
) -> tuple[Attention, RelativeAttention]:
    """SAM's attention and ours with equal weights."""
    stock = (WindowedAttention if windowed else Attention)(dim, heads, use_rel_pos=True, input_size=size)
    torch.nn.init.normal_(stock.rel_pos_h)
    torch.nn.init.normal_(stock.rel_pos_w)
    ours = RelativeAttention(dim, heads, size, windowed)
    state = {name: value for name, value in stock.state_dict().items() if not name.startswith("qkv.")}
    for end in ("weight", "bias"):
        parts = getattr(stock.qkv, end).chunk(3)
        state |= {f"qkv.{part}_proj.{end}": value for part, value in zip("qkv", parts, strict=True)}
    ours.load_state_dict(state)
    return stock, ours


@pytest.fixture(params=["blocks", "fused"])
def way(request, monkeypatch) -> str:
    """Both implementations; blocks so small that heads and queries are cut."""
    monkeypatch.setattr(attention, "_BLOCK_BYTES", 4 * 200)
    monkeypatch.setattr(attention, "_by_blocks", lambda x: request.param == "blocks")
    return request.param


def assert_twins_agree(stock: Attention, ours: RelativeAttention, x: torch.Tensor) -> None:
    """Compare results and all gradients."""
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [network(part) for network, part in zip((stock, ours), inputs, strict=True)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(outputs[0])
    for output in outputs:
        (output * weights).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-5)
    for name in ("rel_pos_h", "rel_pos_w", "proj.weight"):
        torch.testing.assert_close(
            ours.get_parameter(name).grad, stock.get_parameter(name).grad, rtol=1e-4, atol=1e-4, msg=name
        )
    for end in ("weight", "bias"):
        split = torch.cat([ours.get_parameter(f"qkv.{part}_proj.{end}").grad for part in "qkv"])
        torch.testing.assert_close(split, stock.qkv.get_parameter(end).grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(4, 4), (7, 5), (1, 6)])
def test_result_and_gradients_are_sams(size, way):
    assert_twins_agree(*twins(size), torch.randn(2, *size, 48))


@pytest.mark.parametrize("image", [(4, 4), (8, 4), (3, 2), (5, 9), (4, 7)])
def test_windows_are_sams_also_where_the_border_cuts_them(image, way):
    assert_twins_agree(*twins((4, 4), windowed=True), torch.randn(2, *image, 48))


def test_result_without_gradient_is_the_same(way):
    _, ours = twins((6, 6))
    x = torch.randn(1, 6, 6, 48)
    with torch.no_grad():
        quiet = ours(x)
    torch.testing.assert_close(quiet, ours(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", ["q_proj", "k_proj", "v_proj"])
def test_gradients_are_made_only_where_they_are_asked_for(frozen, way):
    _, ours = twins((4, 4), windowed=True)
    ours.rel_pos_w.requires_grad_(False)
    ours.qkv.get_submodule(frozen).requires_grad_(False)
    ours(torch.randn(1, 5, 6, 48)).square().sum().backward()
    idle = {name for name, parameter in ours.named_parameters() if parameter.grad is None}
    assert idle == {"rel_pos_w", f"qkv.{frozen}.weight", f"qkv.{frozen}.bias"}


def test_nothing_of_size_tokens_by_tokens_is_kept_for_the_gradient():
    _, ours = twins((16, 16))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        ours(torch.randn(1, 16, 16, 48, requires_grad=True))
    assert max(kept) < 256 * 256


def test_large_scores_do_not_overflow(way):
    stock, ours = twins((4, 4))
    x = 300 * torch.randn(1, 4, 4, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), stock(x), rtol=1e-3, atol=1e-2)


def test_backward_may_be_called_within_autocast():
    _, ours = twins((4, 4))
    x = torch.randn(1, 4, 4, 48, requires_grad=True)
    ours(x).sum().backward()
    expected, x.grad = x.grad, None
    result = ours(x).sum()
    with torch.autocast("cpu", torch.bfloat16):
        result.backward()
    torch.testing.assert_close(x.grad, expected, rtol=0.1, atol=0.05)  # the layers around it do round
