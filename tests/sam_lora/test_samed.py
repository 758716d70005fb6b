"""SAMed is SAM plus updates of queries and values, and trains what it says it trains."""

import pytest
import torch
from published_networks import segment_with, stock_sam
from segment_anything.modeling.image_encoder import Attention

from sam_lora import SAMed
from sam_lora.lora import adapted_layers

SMALL = {"variant": "small", "image_size": 128}


def count(network, *parts: str, lora: bool | None = None) -> int:
    return sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if name.startswith(parts) and lora in (None, ".lora_" in name)
    )


@pytest.mark.parametrize(
    ("variant", "encoder", "total", "updates"),
    [
        ("vit_b", 86_672_640, 91_438_805, 147_456),
        ("vit_l", 304_296_960, 309_063_125, 393_216),
        ("vit_h", 632_049_408, 636_815_573, 655_360),
    ],
)
def test_parameters_are_as_many_as_published(variant, encoder, total, updates):
    with torch.device("meta"):
        network = SAMed(1, 9, variant=variant, image_size=256)  # eight organs and background
    assert count(network, "image_encoder.", lora=False) == encoder
    assert count(network, "", lora=False) == total
    assert count(network, "", lora=True) == updates
    if variant == "vit_b":  # published as trainable; of the prompt encoder only 256 are used, of the rating none
        assert count(network, "prompt_encoder.", "mask_decoder.") + updates == 4_913_621


@pytest.mark.parametrize(("decoder", "trained"), [("full", 4_773_760), ("lora", 1_506_048)])
def test_small_variant_trains_a_third_of_the_parameters(decoder, trained):
    with torch.device("meta"):
        network = SAMed(1, 9, decoder=decoder)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trained


def test_only_what_the_loss_depends_on_trains():
    network = SAMed(1, 4, **SMALL)
    frozen = {
        name for name, p in network.named_parameters() if not p.requires_grad and name.startswith("mask_decoder.")
    }
    assert {name.split(".")[1] for name in frozen} == {"iou_prediction_head"}
    prompt = [name for name, p in network.prompt_encoder.named_parameters() if p.requires_grad]
    assert prompt == ["no_mask_embed.weight"]
    trained = {name for name, p in network.image_encoder.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in network.image_encoder.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize("options", [{}, {"decoder": "lora"}, {"dora": True}, {"init": "pissa"}, {"rslora": True}])
def test_lora_is_the_identity_at_initialisation(options):
    x = torch.randn(2, 1, 128, 128)
    torch.manual_seed(5)
    adapted = SAMed(1, 4, **SMALL, **options).eval()
    torch.manual_seed(5)
    plain = SAMed(1, 4, **SMALL, tuning="decoder").eval()
    frozen = {name.replace(".base_layer.", "."): v for name, v in adapted.state_dict().items() if ".lora_" not in name}
    if options.get("init") == "pissa":
        for name, layer in adapted_layers(adapted).items():
            frozen[f"{name}.weight"] = layer.get_base_layer().weight + layer.get_delta_weight("default")
    plain.load_state_dict(frozen)
    with torch.no_grad():
        torch.testing.assert_close(adapted(x), plain(x), rtol=1e-4, atol=1e-5)


def test_updates_change_queries_and_values_but_never_keys():
    """Plain LoRA on the fused layer has as many parameters and would change keys too."""
    network = SAMed(1, 4, **SMALL)
    for layer in adapted_layers(network).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(1, 8, 8, 192)
    for block in network.image_encoder.blocks:
        qkv = block.attn.qkv
        changed = [
            not torch.equal(projected, getattr(part, "base_layer", part)(x))
            for projected, part in zip(qkv(x), (qkv.q_proj, qkv.k_proj, qkv.v_proj), strict=True)
        ]
        assert changed == [True, False, True]


def test_updates_sit_in_the_encoder_only_unless_the_decoder_has_them_too():
    assert {name.split(".")[0] for name in adapted_layers(SAMed(1, 4, **SMALL))} == {"image_encoder"}
    fast = SAMed(1, 4, **SMALL, decoder="lora")
    inside = [name for name in adapted_layers(fast) if name.startswith("mask_decoder.")]
    assert len(inside) == 2 * (2 * 3 + 1)  # queries and values of three attentions in two layers, and of the last one
    trained = {n for n, p in fast.mask_decoder.transformer.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)


def test_each_block_may_have_its_own_rank():
    network = SAMed(1, 4, **SMALL, block_ranks=(0, 2, 4, 8))
    ranks = {name.split(".")[2]: layer.r["default"] for name, layer in adapted_layers(network).items()}
    assert ranks == {"1": 2, "2": 4, "3": 8}
    assert {layer.scaling["default"] for layer in adapted_layers(network).values()} == {1.0}


@pytest.mark.parametrize(
    ("options", "scale"),
    [({}, 1.0), ({"alpha": 8.0}, 2.0), ({"rslora": True}, 1.0), ({"rslora": True, "alpha": 4.0}, 2.0)],
)
def test_updates_are_scaled_by_alpha_over_rank(options, scale):
    network = SAMed(1, 4, **SMALL, rank=4, **options)
    assert {layer.scaling["default"] for layer in adapted_layers(network).values()} == {scale}


@pytest.mark.parametrize("tuning", ["decoder", "all"])
def test_tuning_says_what_trains(tuning):
    network = SAMed(1, 4, **SMALL, tuning=tuning)
    assert all(p.requires_grad == (tuning == "all") for p in network.image_encoder.parameters())
    assert not adapted_layers(network)


def test_nothing_is_kept_for_blocks_before_the_first_update():
    def kept(block_ranks) -> int:
        network = SAMed(1, 2, **SMALL, block_ranks=block_ranks)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            network.image_encoder(torch.randn(1, 3, 128, 128))
        return sum(sizes)

    assert kept((0, 0, 0, 4)) < 0.4 * kept((4, 4, 4, 4))


def test_checkpointing_keeps_less_and_gives_equal_gradients():
    x = torch.randn(1, 1, 128, 128)
    kept, grads = [], []
    for checkpointing in (False, True):
        torch.manual_seed(5)
        network = SAMed(1, 2, **SMALL, checkpointing=checkpointing)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            output = network(x)
        output.square().mean().backward()
        kept.append(sum(sizes))
        grads.append([p.grad for p in network.parameters() if p.requires_grad])
    assert kept[1] < 0.6 * kept[0]
    for first, second in zip(*grads, strict=True):
        torch.testing.assert_close(first, second)


def test_low_resolution_logits_are_those_before_stretching():
    network = SAMed(1, 3, **SMALL, low_resolution=True)
    x = torch.randn(1, 1, 50, 40)
    low = network.train()(x)
    assert low.shape == (1, 3, 32, 32)
    full = network.eval()(x)
    assert full.shape == (1, 3, 50, 40)
    stretched = torch.nn.functional.interpolate(low, (50, 40), mode="bilinear", align_corners=False)
    torch.testing.assert_close(full, stretched)


@pytest.mark.parametrize("size", [64, (64, 128)])
def test_canvas_may_be_any_multiple_of_16(size):
    assert SAMed(1, 2, variant="small", image_size=size)(torch.randn(1, 1, 50, 40)).shape == (1, 2, 50, 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100}, r"image_size \(H, W\) must be multiples of 16, got \(100, 100\); take \(96, 96\)"),
        ({"variant": "vit_x"}, "variant must be one of vit_b, vit_l, vit_h, small, got 'vit_x'"),
        ({"tuning": "none"}, "tuning must be one of lora, decoder, all, got 'none'"),
        ({"rank": 0}, "rank must be >= 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"block_ranks": (4, 4)}, "block_ranks must have 4 numbers, one a block, got 2"),
        ({"block_ranks": (0, 0, 0, 0)}, "block_ranks must have a rank > 0"),
        ({"init": "zero"}, "init must be one of default, gaussian, pissa, got 'zero'"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SAMed(1, 2, **{**SMALL, **options})


def test_wrong_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="image must have 2 channels, got 1"):
        SAMed(2, 2, **SMALL)(torch.randn(1, 1, 128, 128))


def test_one_channel_is_seen_as_three_equal_ones_and_others_start_as_their_mean():
    network = SAMed(1, 2, **SMALL).eval()
    mixed = SAMed(4, 2, **SMALL).eval()
    mixed.load_state_dict(network.state_dict(), strict=False)
    x = torch.randn(1, 1, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(mixed(x.expand(-1, 4, -1, -1)), network(x), rtol=1e-4, atol=1e-5)


def test_stock_modules_give_the_same_masks():
    """With the tokens of a stock SAM of as many masks."""
    stock = stock_sam()
    network = SAMed(1, 4, **SMALL, tuning="decoder").eval()
    state = {}
    for name, value in stock.state_dict().items():
        head, fused, end = name.partition(".attn.qkv.")
        parts = zip("qkv", value.chunk(3), strict=True) if fused else ()
        state |= {f"{head}.attn.qkv.{part}_proj.{end}": piece for part, piece in parts} if fused else {name: value}
    state = {name: value for name, value in state.items() if not name.startswith("pixel_")}
    network.load_state_dict(state)
    assert isinstance(stock.image_encoder.blocks[0].attn, Attention)
    x = torch.randn(2, 1, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(network(x), segment_with(stock, x), rtol=1e-4, atol=1e-5)
