"""An adapter folder restores the network, by this project and by peft."""

import json

import pytest
import torch
from peft import PeftModel
from published_networks import ADAPTED, disturb, small

from sam_lora import SAM2UNet, SAMed
from sam_lora.adapter_folder import load_adapter, restore_base, save_adapter, sha256_of
from sam_lora.checkpoint_file import CheckpointError
from sam_lora.sam2_checkpoint import load_sam2
from sam_lora.sam_checkpoint import load_sam


@pytest.fixture
def trained(sam_file, tmp_path):
    """A function that builds, trains (so to say) and saves an adapted SAMed."""

    def make(**options) -> SAMed:
        network = small(**options)
        load_sam(network, sam_file)
        disturb(network)
        save_adapter(network, tmp_path / "adapter", sam_file, options)
        return network

    return make


@pytest.mark.parametrize("options", ADAPTED)
def test_saved_and_loaded_adapter_gives_equal_logits(trained, sam_file, tmp_path, options):
    network = trained(**options)
    other = small(**options)
    load_sam(other, sam_file)
    load_adapter(other, tmp_path / "adapter", sam_file)
    x = torch.randn(1, 1, 128, 128)
    with torch.no_grad():
        assert torch.equal(network(x), other(x))


@pytest.mark.parametrize("options", ADAPTED)
def test_peft_loads_the_folder(trained, sam_file, tmp_path, options):
    network = trained(**options)
    base = small(tuning="decoder")
    load_sam(base, sam_file)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    x = torch.randn(1, 1, 128, 128)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), network(x), rtol=1e-5, atol=1e-6)


def test_sam2unet_with_lora_is_loaded_by_peft_too(sam2_file, tmp_path):
    options = {"variant": "tiny", "image_size": 64}
    network = SAM2UNet(1, 3, tuning="lora", **options).eval()
    load_sam2(network, sam2_file)
    disturb(network)
    save_adapter(network, tmp_path / "adapter", sam2_file, options)
    base = SAM2UNet(1, 3, tuning="decoder", **options).eval()
    load_sam2(base, sam2_file)
    x = torch.randn(1, 1, 64, 64)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), network(x), rtol=1e-5, atol=1e-6)


def test_frozen_weights_are_not_in_the_folder(trained, tmp_path):
    network = trained()
    size = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    rating = sum(p.numel() for p in network.mask_decoder.iou_prediction_head.parameters())
    assert size < 4 * (trainable + rating) + 50_000


def test_folder_says_what_it_was_trained_on(trained, sam_file, tmp_path):
    trained(rank=2)
    record = restore_base(tmp_path / "adapter")
    assert record == {"file": "sam_small.pth", "sha256": sha256_of(sam_file), "options": {"rank": 2}}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 2
    assert config["base_model_name_or_path"] == "sam_small.pth"


def test_another_base_is_refused(trained, sam, tmp_path):
    trained()
    torch.save({**sam.state_dict(), "x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"was trained on sam_small.pth of another content"):
        load_adapter(small(), tmp_path / "adapter", tmp_path / "other.pth")


def test_base_from_no_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="they came from no file: save the model"):
        save_adapter(small(), tmp_path / "adapter", None, {})
    assert not (tmp_path / "adapter").exists()


def test_network_without_updates_has_no_adapter(sam_file, tmp_path):
    with pytest.raises(CheckpointError, match="needs updates"):
        save_adapter(small(tuning="decoder"), tmp_path / "adapter", sam_file, {})


@pytest.mark.parametrize("options", [{"rank": 8}, {"decoder": "lora"}, {"block_ranks": (4, 4, 4, 0)}])
def test_adapter_of_another_shape_is_refused(trained, tmp_path, options):
    trained()
    with pytest.raises(CheckpointError, match="see rank"):
        load_adapter(small(**options), tmp_path / "adapter")
