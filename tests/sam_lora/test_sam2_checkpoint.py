"""SAM2's and SAM2-UNet's files load strictly and give the published outputs."""

import pytest
import torch
from safetensors.torch import save_file

from sam_lora import SAM2UNet
from sam_lora.checkpoint_file import CheckpointError
from sam_lora.sam2_checkpoint import load_sam2, load_sam2unet


def tiny(channels: int = 3, classes: int = 1, **options) -> SAM2UNet:
    return SAM2UNet(channels, classes, **{"variant": "tiny", "image_size": 128, **options}).eval()


def test_encoder_gives_hieras_outputs_from_metas_file_and_from_transformers_own(hiera, sam2_file, tmp_path):
    native = {f"vision_encoder.backbone.{name}": value.clone() for name, value in hiera.state_dict().items()}
    save_file(native, tmp_path / "model.safetensors")
    x = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        expected = [part.permute(0, 3, 1, 2) for part in hiera(x).intermediate_hidden_states]
    for file in (sam2_file, tmp_path / "model.safetensors"):
        for tuning in ("decoder", "lora"):  # updates start as nothing
            network = tiny(tuning=tuning)
            load_sam2(network, file)
            with torch.no_grad():
                outputs = network.encoder(x)
            for output, reference in zip(outputs, expected, strict=True):
                torch.testing.assert_close(output, reference, rtol=1e-4, atol=1e-5)


def test_report_tells_sam2s_other_parts_from_the_fresh_decoder(sam2_file):
    report = load_sam2(tiny(), sam2_file)
    assert report.unexpected == ["memory_encoder.fuser.weight"]
    assert {name.split(".")[0] for name in report.fresh} == {"encoder", "reductions", "ups", "heads"}
    assert {name.split(".")[1] for name in report.fresh if name.startswith("encoder.")} == {"adapters"}


def test_released_network_gives_the_published_outputs(published, tmp_path):
    torch.save(published.released_state(), tmp_path / "SAM2UNet.pth")
    network = tiny(deep_supervision=True)
    report = load_sam2unet(network, tmp_path / "SAM2UNet.pth")
    assert report.fresh == []
    assert {name.split(".")[0] for name in report.unexpected} == {"up4"}
    x = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        for output, reference in zip(network(x), published(x), strict=True):
            torch.testing.assert_close(output, reference, rtol=1e-4, atol=1e-5)


def test_heads_of_other_classes_stay_fresh(published, tmp_path):
    torch.save(published.released_state(), tmp_path / "SAM2UNet.pth")
    report = load_sam2unet(tiny(classes=5), tmp_path / "SAM2UNet.pth")
    assert {name.split(".")[0] for name in report.fresh} == {"heads"}


@pytest.mark.parametrize("variant", ["small", "base_plus"])
def test_another_size_is_refused_by_name(sam2_file, variant):
    with torch.device("meta"):
        network = SAM2UNet(1, 2, variant=variant, image_size=64)
    with pytest.raises(CheckpointError, match=f"must be of variant {variant} .*, holds 12 blocks of width 96"):
        load_sam2(network, sam2_file)


def test_file_of_another_model_is_refused(sam_file, sam2_file):
    with pytest.raises(CheckpointError, match="must be SAM2 "):
        load_sam2(tiny(), sam_file)
    with pytest.raises(CheckpointError, match="must be SAM2-UNet "):
        load_sam2unet(tiny(), sam2_file)


def test_released_adapters_need_a_network_with_adapters(published, tmp_path):
    torch.save(published.released_state(), tmp_path / "SAM2UNet.pth")
    with pytest.raises(CheckpointError, match="built with tuning=adapter, got lora"):
        load_sam2unet(tiny(tuning="lora"), tmp_path / "SAM2UNet.pth")
