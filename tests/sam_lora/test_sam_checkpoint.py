"""SAM's and SAMed's files load strictly, with a report, and go back to Meta's layout."""

import pytest
import torch
from published_networks import ADAPTED, disturb, segment_with, small, stock_sam

from sam_lora import SAMed
from sam_lora.checkpoint_file import CheckpointError
from sam_lora.lora import adapted_layers
from sam_lora.sam_checkpoint import load_sam, load_samed_lora, merged, to_meta_layout


@pytest.mark.parametrize("options", ADAPTED)
def test_loaded_sam_gives_sams_masks(sam, sam_file, options):
    network = small(**options)
    load_sam(network, sam_file)
    for name in ("mask_tokens", "output_hypernetworks_mlps"):  # fresh, because they depend on the classes
        getattr(network.mask_decoder, name).load_state_dict(getattr(sam.mask_decoder, name).state_dict())
    x = torch.randn(2, 1, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(network(x), segment_with(sam, x), rtol=1e-4, atol=1e-5)


def test_report_names_what_is_fresh_and_what_is_unexpected(sam, tmp_path):
    torch.save({**sam.state_dict(), "extra.weight": torch.zeros(1)}, tmp_path / "w.pth")
    report = load_sam(small(tuning="decoder"), tmp_path / "w.pth")
    assert report.unexpected == ["extra.weight"]
    assert {name.split(".")[1] for name in report.fresh} == {
        "mask_tokens",
        "output_hypernetworks_mlps",
        "iou_prediction_head",
    }
    assert report.resized == []
    assert "1 unexpected (extra.weight)" in str(report)


def test_positions_are_resized_in_the_global_blocks_only(sam, sam_file):
    network = small(image_size=256, tuning="decoder")
    report = load_sam(network, sam_file)
    tables = {f"image_encoder.blocks.{block}.attn.rel_pos_{axis}" for block in (1, 3) for axis in "hw"}
    assert set(report.resized) == {"image_encoder.pos_embed", *tables}
    expected = torch.nn.functional.interpolate(
        sam.image_encoder.pos_embed.permute(0, 3, 1, 2), (16, 16), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(network.image_encoder.pos_embed, expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_prefix_of_a_wrapper_is_no_obstacle(sam, tmp_path, prefix):
    torch.save({prefix + name: value for name, value in sam.state_dict().items()}, tmp_path / "w.pth")
    assert load_sam(small(tuning="decoder"), tmp_path / "w.pth").unexpected == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv.weight": torch.zeros(1)}, r"must be SAM small \(4 blocks of width 192\), holds something else"),
        ({"image_encoder.trunk.pos_embed": torch.zeros(1)}, "holds SAM2"),
        ({"w_a_000": torch.zeros(4, 8)}, "holds a LoRA file of SAMed, rank 4"),
    ],
)
def test_file_of_another_model_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        load_sam(small(), tmp_path / "w.pth")


def test_other_size_is_refused_by_name(sam_file):
    with torch.device("meta"):
        network = SAMed(1, 4, variant="vit_b", image_size=128, tuning="decoder")
    with pytest.raises(CheckpointError, match=r"must be SAM vit_b .12 blocks of width 768., holds SAM small"):
        load_sam(network, sam_file)


def test_missing_weights_are_an_error(sam, tmp_path):
    state = {name: value for name, value in sam.state_dict().items() if not name.startswith("image_encoder.neck.")}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"lacks 6 of SAM's weights, such as image_encoder.neck.0.weight"):
        load_sam(small(), tmp_path / "w.pth")


@pytest.mark.parametrize("options", ADAPTED)
def test_merged_network_equals_the_adapted_one(sam_file, options):
    network = small(**options)
    load_sam(network, sam_file)
    disturb(network)
    x = torch.randn(1, 1, 128, 128)
    plain = merged(network)
    assert not adapted_layers(plain)
    with torch.no_grad():
        assert (plain(x) - network(x)).abs().max() < 1e-5


def test_metas_layout_runs_in_metas_modules(sam_file):
    network = small()
    load_sam(network, sam_file)
    disturb(network)
    stock = stock_sam()
    stock.load_state_dict(to_meta_layout(network), strict=False)
    assert set(to_meta_layout(network)) == set(stock.state_dict())
    x = torch.randn(1, 1, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(segment_with(stock, x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", ADAPTED)
def test_loading_keeps_the_parameters_that_an_optimiser_holds(sam_file, options):
    network = small(**options)
    before = dict(network.named_parameters())
    load_sam(network, sam_file)
    after = dict(network.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


def test_positions_of_the_decoder_follow_loaded_weights(sam_file):
    network = small(tuning="decoder")
    x = torch.randn(1, 1, 128, 128)
    with torch.no_grad():
        network(x)  # now they are cached
        load_sam(network, sam_file)
        again = small(tuning="decoder")
        again.load_state_dict(network.state_dict())
        assert torch.equal(network(x), again(x))


def lora_file(network: SAMed, file, rank: int = 4):
    """A file as the original SAMed saves it."""
    layers = adapted_layers(network)
    state = {}
    number = 0
    for block in range(4):
        for part in ("q_proj", "v_proj"):
            layer = layers[f"image_encoder.blocks.{block}.attn.qkv.{part}"]
            state[f"w_a_{number:03d}"] = torch.randn(rank, layer.in_features)
            state[f"w_b_{number:03d}"] = torch.randn(layer.out_features, rank)
            number += 1
    kept = ("prompt_encoder.", "mask_decoder.")
    state |= {n: torch.randn_like(v) for n, v in network.state_dict().items() if n.startswith(kept)}
    torch.save(state, file)
    return state


def test_lora_file_of_samed_lands_on_queries_and_values_in_turn(tmp_path):
    network = small()
    state = lora_file(network, tmp_path / "epoch_159.pth")
    report = load_samed_lora(network, tmp_path / "epoch_159.pth")
    assert report.unexpected == []
    assert all(name.startswith("image_encoder.") and ".lora_" not in name for name in report.fresh)
    values = network.image_encoder.blocks[1].attn.qkv.v_proj  # fourth update: block 1, values
    torch.testing.assert_close(values.get_delta_weight("default"), state["w_b_003"] @ state["w_a_003"])
    assert torch.equal(network.mask_decoder.mask_tokens.weight, state["mask_decoder.mask_tokens.weight"])


def test_lora_file_of_another_rank_or_number_of_classes_is_refused(tmp_path):
    lora_file(small(), tmp_path / "w.pth", rank=2)
    with pytest.raises(CheckpointError, match="rank must be 4, got 2; build the network with rank=2"):
        load_samed_lora(small(), tmp_path / "w.pth")
    lora_file(SAMed(1, 6, variant="small", image_size=128), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="see num_classes"):
        load_samed_lora(small(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="updates for 6 layers, got 8"):
        load_samed_lora(small(block_ranks=(0, 4, 4, 4)), tmp_path / "w.pth")
