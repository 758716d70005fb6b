import pytest
import torch
from torch.nn import functional as F

from nnunet_ext.networks import ENet
from nnunet_ext.networks.enet import _max_pool, _unpool

OPTIONS = [{}, {"skip": True}, {"input_scale": 2.0}]


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def trained_for_one_step(**options) -> ENet:
    """Return a network whose running statistics are not the initial ones."""
    network = ENet(2, 4, **options)
    network.train()(torch.randn(2, 2, 32, 32))
    return network.eval()


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_count_matches_the_paper():
    assert count(ENet(3, 5)) == 349_644


def test_parameter_count_of_the_wider_variant():
    assert count(ENet(1, 5, skip=True)) == 398_203


def test_channels_and_classes_change_the_first_and_the_last_convolution_only():
    # First: 16 - C learned maps of C x 3 x 3 weights; last: 16 x K x 3 x 3 weights.
    assert count(ENet(1, 2)) == count(ENet(3, 5)) - 13 * 3 * 9 + 15 * 1 * 9 - 3 * 16 * 9


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("size", [(64, 64), (50, 37), (5, 7), (1, 1)])
def test_script_gives_equal_logits(options, size):
    network = trained_for_one_step(**options)
    scripted = torch.jit.script(network)
    x = torch.randn(2, 2, *size)
    with torch.no_grad():
        expected = network(x)
        for _ in range(3):  # the second and third call run what the profiling executor made of the first
            assert torch.equal(scripted(x), expected)


def onnx_logits(network: ENet, example: torch.Tensor, free: dict, x: torch.Tensor) -> torch.Tensor:
    """Export with the free axes of the input, run with ONNX Runtime on `x`."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    program = torch.onnx.export(
        network, (example,), dynamo=True, dynamic_shapes={"x": free}, verbose=False, optimize=False
    )
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize("options", [{}, pytest.param({"skip": True, "input_scale": 2.0}, marks=pytest.mark.slow)])
def test_onnx_matches_for_another_batch_size(options):
    network = trained_for_one_step(**options)
    x = torch.randn(3, 2, 50, 37)
    logits = onnx_logits(network, x[:2], {0: torch.export.Dim("batch")}, x)
    with torch.no_grad():
        torch.testing.assert_close(logits, network(x), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_onnx_takes_any_multiple_of_eight():
    network = trained_for_one_step()
    height, width = (8 * torch.export.Dim(name, min=2, max=512) for name in ("h", "w"))
    x = torch.randn(1, 2, 128, 96)
    logits = onnx_logits(network, torch.randn(2, 2, 64, 48), {0: torch.export.Dim("batch"), 2: height, 3: width}, x)
    with torch.no_grad():
        torch.testing.assert_close(logits, network(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", OPTIONS)
def test_training_step_repeats_in_deterministic_mode(options):
    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(1)
        network = ENet(1, 3, **options)
        network(torch.randn(2, 1, 37, 50)).square().mean().backward()
        return [p.grad for p in network.parameters()]

    torch.use_deterministic_algorithms(True)
    try:
        assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


def test_pooling_and_unpooling_match_torch_also_for_ties():
    x = torch.randint(0, 3, (2, 3, 8, 6)).float()
    pooled, winners = _max_pool(x)
    expected, indices = F.max_pool2d(x, 2, 2, return_indices=True)
    assert torch.equal(pooled, expected)
    assert torch.equal(_unpool(pooled, winners), F.max_unpool2d(expected, indices, 2, 2))


def test_pooling_gradient_matches_torch():
    ours = torch.randn(2, 3, 8, 6, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    weights = torch.randn(2, 3, 4, 3)
    (_max_pool(ours)[0] * weights).sum().backward()
    (F.max_pool2d(theirs, 2) * weights).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_odd_sizes_equal_the_image_continued_to_a_multiple_of_eight():
    network = trained_for_one_step()
    x = torch.randn(1, 2, 37, 50)
    continued = F.pad(x, (0, 56 - 50, 0, 40 - 37), mode="replicate")
    with torch.no_grad():
        torch.testing.assert_close(network(x), network(continued)[..., :37, :50])


def test_input_scale_equals_enlarging_the_image_and_reducing_the_logits():
    network = trained_for_one_step(input_scale=2.0)
    plain = ENet(2, 4).eval()
    plain.load_state_dict(network.state_dict())
    x = torch.randn(1, 2, 56, 40)
    with torch.no_grad():
        logits = plain(F.interpolate(x, size=(112, 80), mode="bilinear"))
        torch.testing.assert_close(network(x), F.interpolate(logits, size=(56, 40), mode="bilinear"))


def test_default_options_enlarge_small_patches():
    scales = [ENet.default_options(size)["input_scale"] for size in ((56, 40), (96, 64), (128, 128), (512, 512))]
    assert scales == [4.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be an integer >= 1, got 0"),
        ({"num_classes": 0}, "num_classes must be an integer >= 1, got 0"),
        ({"dropout": (0.1, 1.0)}, "dropout must be two rates"),
        ({"input_scale": 0.5}, "input_scale must be a factor >= 1, got 0.5"),
        ({"input_scale": float("nan")}, "input_scale must be a factor >= 1, got nan"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ENet(**{"in_channels": 1, "num_classes": 2, **arguments})
