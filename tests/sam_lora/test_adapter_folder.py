"""An adapter folder restores the network, by this project and by peft."""

import json

import pytest
import torch
from peft import PeftModel
from published_networks import ADAPTED, disturb, small

from sam_lora import SAM2UNet, SAMed
from sam_lora.adapter_folder import BaseFile, find_base, load_adapter, read_base, save_adapter, sha256_of
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
        save_adapter(network, tmp_path / "adapter", BaseFile.of(sam_file), options)
        return network

    return make


@pytest.mark.parametrize("options", [*ADAPTED, {"tuning": "decoder"}, {"image_size": 64}])
def test_adapter_and_base_file_restore_every_weight(trained, sam_file, tmp_path, options):
    network = trained(**options)
    other = small(**options)
    other.restore(tmp_path / "adapter", find_base(tmp_path / "adapter"))
    assert_equal_weights(network, other)


@pytest.mark.parametrize("options", [{"tuning": "adapter"}, {"tuning": "lora"}, {"tuning": "decoder"}])
def test_sam2unet_is_restored_too(sam2_file, tmp_path, options):
    def build() -> SAM2UNet:
        return SAM2UNet(2, 3, variant="tiny", image_size=64, **options)

    network = build()
    network.load_pretrained(sam2_file)
    disturb(network)
    network(torch.randn(2, 2, 64, 64))  # moves the running statistics
    network.save_adapter(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_config.json").is_file() == (options["tuning"] == "lora")
    other = build()
    other.restore(tmp_path / "adapter", other.find_base(tmp_path / "adapter"))
    assert_equal_weights(network, other)


def assert_equal_weights(a, b) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    assert [name for name, value in left.items() if not torch.equal(value, right[name])] == []


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
    save_adapter(network, tmp_path / "adapter", BaseFile.of(sam2_file), options)
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
    record = read_base(tmp_path / "adapter")
    assert record["file"] == "sam_small.pth"
    assert record["path"] == str(sam_file.resolve())
    assert (record["sha256"], record["options"]) == (sha256_of(sam_file), {"rank": 2})
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == 2
    assert config["base_model_name_or_path"] == "sam_small.pth"


@pytest.fixture
def moved(trained, sam_file, tmp_path):
    """An adapter whose base file is no longer where it was."""
    trained()
    record = tmp_path / "adapter" / "base.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "path": "gone/sam_small.pth"}))
    return tmp_path / "adapter"


def test_moved_base_is_found_by_its_content_where_it_is_named(moved, sam_file, tmp_path):
    (tmp_path / "renamed.pth").write_bytes(sam_file.read_bytes())
    assert find_base(moved, [tmp_path / "renamed.pth"]).path == tmp_path / "renamed.pth"
    assert find_base(moved, [tmp_path, sam_file.parent]).path == sam_file  # folders that may hold it


def test_missing_base_is_an_error_that_says_where_it_was_looked_for(moved, tmp_path):
    with pytest.raises(CheckpointError, match=r"SHA-256 [0-9a-f]{64}\), which is missing; looked for ") as error:
        find_base(moved, [tmp_path / "named.pth", tmp_path, tmp_path / "models"])
    looked = str(error.value).partition("looked for ")[2].split(", ")
    places = [tmp_path / "named.pth", tmp_path / "sam_small.pth", tmp_path / "models" / "sam_small.pth"]
    assert looked == [*map(str, places), "gone/sam_small.pth"]


def test_whoever_may_read_the_record_may_read_the_weights(trained, tmp_path):
    trained()
    weights, record = (tmp_path / "adapter" / name for name in ("adapter_model.safetensors", "base.json"))
    assert weights.stat().st_mode == record.stat().st_mode


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_network_on_a_gpu_stays_there_and_gets_the_same_weights(trained, tmp_path):
    network = trained(init="pissa")
    other = small(init="pissa").cuda()
    other.restore(tmp_path / "adapter", find_base(tmp_path / "adapter"))
    assert {parameter.device.type for parameter in other.parameters()} == {"cuda"}
    assert_equal_weights(network, other.cpu())


def test_another_base_is_refused_by_name(moved, sam, tmp_path):
    torch.save({**sam.state_dict(), "x": torch.zeros(1)}, tmp_path / "sam_small.pth")
    with pytest.raises(CheckpointError, match=r"of another content than .*/sam_small\.pth"):
        find_base(moved, [tmp_path])


def test_base_from_no_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="they came from no file: save the model"):
        save_adapter(small(), tmp_path / "adapter", None, {})
    assert not (tmp_path / "adapter").exists()


def test_network_that_trains_every_weight_has_no_adapter(sam_file, tmp_path):
    network = small(tuning="all")
    network.load_pretrained(sam_file)
    assert not network.has_adapter
    with pytest.raises(CheckpointError, match="tuning=all trains every one"):
        network.save_adapter(tmp_path / "adapter")


@pytest.mark.parametrize("options", [{"rank": 8}, {"decoder": "lora"}, {"block_ranks": (4, 4, 4, 0)}])
def test_adapter_of_another_shape_is_refused(trained, tmp_path, options):
    trained()
    with pytest.raises(CheckpointError, match="see rank"):
        load_adapter(small(**options), tmp_path / "adapter")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"file": "sam_small.pth"}'])
def test_damaged_record_is_named(trained, tmp_path, content):
    trained()
    (tmp_path / "adapter" / "base.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"base\.json: must "):
        read_base(tmp_path / "adapter")


def test_leftovers_of_a_killed_run_are_removed(trained, tmp_path):
    (tmp_path / ".adapter-killed").mkdir()
    trained()
    assert not list(tmp_path.glob(".adapter-*"))
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    ]
