"""A 2D network sees every slice of a volume exactly once, whatever the batches."""

import pytest
import torch

from nnunet_ext.bundle import ResizedSliceInferer


def identity(x: torch.Tensor) -> torch.Tensor:
    return x


@pytest.mark.parametrize("batch_size", [1, 3, 7, 14, 100])
def test_identity_network_gives_back_the_input_at_equal_size(batch_size):
    volumes = torch.rand(2, 3, 7, 16, 24)
    assert torch.equal(ResizedSliceInferer((16, 24), batch_size)(volumes, identity), volumes)


def test_slices_reach_the_network_in_order_in_batches_of_at_most_the_size_asked_for():
    seen = []

    def network(x):
        seen.append(x[:, 0, 0, 0])
        return x

    depth = torch.arange(7.0).view(1, 1, 7, 1, 1).expand(1, 1, 7, 8, 8)
    ResizedSliceInferer((8, 8), batch_size=3)(depth, network)
    assert [len(batch) for batch in seen] == [3, 3, 1]
    assert torch.cat(seen).tolist() == list(range(7))


def test_network_sees_its_canvas_and_logits_come_back_at_input_size():
    def network(x):
        assert x.shape[1:] == (2, 32, 40)
        return torch.cat([x, x[:, :1]], dim=1)

    assert ResizedSliceInferer((32, 40), 4)(torch.rand(2, 2, 5, 17, 33), network).shape == (2, 3, 5, 17, 33)


def test_smooth_slices_survive_the_way_to_the_canvas_and_back():
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 50), torch.linspace(0, 2, 36), indexing="ij")
    volume = (rows.sin() * columns.cos()).view(1, 1, 1, 50, 36)
    assert (ResizedSliceInferer((128, 128), 4)(volume, identity) - volume).abs().max() < 0.02


def test_logits_are_float32_whatever_the_network_gives():
    inferer = ResizedSliceInferer((8, 8), 4)
    assert inferer(torch.rand(1, 1, 2, 8, 8), lambda x: x.half()).dtype == torch.float32


def test_logits_lie_on_the_output_device():
    logits = ResizedSliceInferer((8, 8), 4, output_device="cpu")(torch.rand(1, 1, 2, 8, 8), identity)
    assert logits.device.type == "cpu"


def test_further_arguments_reach_the_network():
    logits = ResizedSliceInferer((8, 8), 4)(torch.ones(1, 1, 2, 8, 8), lambda x, a, b=0: x * a + b, 2, b=3)
    assert (logits == 5).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_logits_of_a_volume_stay_off_the_gpu_if_asked():
    logits = ResizedSliceInferer((8, 8), 4, output_device="cpu")(torch.rand(1, 1, 2, 8, 8).cuda(), identity)
    assert logits.device.type == "cpu"
