"""What every network of the project promises; a network is tested by being in the folder."""

import ast
import importlib.util
import inspect
import sys
from pathlib import Path

import pytest
import torch
from small_networks import small_options

from nnunet_ext.networks import available, build_network

SIZES = {2: (32, 48), 3: (16, 32, 24)}
ODD_SIZES = {2: (37, 45), 3: (17, 19, 21)}
CASES = [
    pytest.param(key, dims, id=f"{key}-{dims}d") for key, info in available().items() for dims in info.spatial_dims
]
each_network = pytest.mark.parametrize(("key", "dims"), CASES)


def build(key: str, in_channels: int, num_classes: int, dims: int) -> torch.nn.Module:
    """Build a network in the small size that it names for CPUs, if it names one."""
    return build_network(key, in_channels, num_classes, spatial_dims=dims, **small_options(key, dims))


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def images(dims: int, batch: int = 2, channels: int = 1, sizes: dict = SIZES) -> torch.Tensor:
    return torch.randn(batch, channels, *sizes[dims])


@pytest.mark.parametrize("key", available())
def test_network_can_be_imported_and_says_what_it_is(key):
    info = available()[key]
    assert info.error == ""
    assert info.summary
    assert info.load().spatial_dims == info.spatial_dims


@pytest.mark.parametrize("key", available())
def test_options_have_defaults(key):
    info = available()[key]
    options = info.options()
    assert inspect.Parameter.empty not in options.values()
    with torch.device("meta"):
        build_network(key, 1, 2, spatial_dims=info.spatial_dims[0], **options)


@each_network
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (2, 5), (3, 1), (7, 14), (20, 3)])
def test_logits_have_a_channel_a_class_and_the_size_of_the_image(key, dims, channels, classes):
    network = build(key, channels, classes, dims).eval()
    logits = network(images(dims, channels=channels))
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, classes, *SIZES[dims])
    assert logits.dtype == torch.float32


@each_network
def test_odd_sizes_give_logits_of_that_size_or_a_documented_error(key, dims):
    network = build(key, 1, 3, dims).eval()
    try:
        logits = network(images(dims, sizes=ODD_SIZES))
    except ValueError as error:
        assert "multiple" in str(error)
        assert str(ODD_SIZES[dims][0]) in str(error)
    else:
        assert logits.shape == (2, 3, *ODD_SIZES[dims])


@each_network
def test_gradient_reaches_every_trainable_parameter(key, dims):
    network = build(key, 2, 3, dims).train()
    with torch.no_grad():
        for parameter in network.parameters():  # what starts as zero, such as half of a LoRA, blocks its other half
            parameter += 0.01 * torch.randn_like(parameter)
    network(images(dims, channels=2)).square().mean().backward()
    trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert trainable
    assert [name for name, p in trainable.items() if p.grad is None or not p.grad.any()] == []


@each_network
def test_training_takes_a_batch_of_one(key, dims):
    network = build(key, 1, 2, dims).train()
    network(images(dims, batch=1)).mean().backward()


@each_network
def test_state_dict_round_trip_gives_equal_logits(key, dims, tmp_path):
    network = build(key, 1, 3, dims)
    network.train()(images(dims))  # so that running statistics differ from their initial values
    torch.save(network.state_dict(), tmp_path / "model.pt")
    other = build(key, 1, 3, dims)
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True), strict=True)
    x = images(dims)
    with torch.no_grad():
        assert torch.equal(network.eval()(x), other.eval()(x))


@each_network
@pytest.mark.parametrize("value", [0.0, 1.0, -1000.0])
def test_constant_image_gives_finite_logits_and_gradients_in_a_batch(key, dims, value):
    network = build(key, 1, 3, dims)
    x = images(dims)
    x[0] = value  # a batch of nothing else has no variance to normalise by: its gradients may overflow
    assert network.eval()(x).isfinite().all()
    logits = network.train()(x)
    assert logits.isfinite().all()
    if value:  # a batch of zeros leaves no variance in any layer: batch normalisation's true gradient is not finite
        logits.mean().backward()
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


@each_network
@pytest.mark.parametrize("training", [True, False])
def test_logits_fit_half_precision_sums_after_initialisation(key, dims, training):
    network = build(key, 1, 3, dims).train(training)
    assert network(images(dims)).abs().max() < 6000


@each_network
def test_eval_is_deterministic_and_independent_of_batch_mates(key, dims):
    network = build(key, 1, 3, dims).eval()
    x = images(dims, batch=3)
    with torch.no_grad():
        together, again = network(x), network(x)
        alone = network(x[:1])
    assert torch.equal(together, again)
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


@each_network
@pytest.mark.parametrize("training", [True, False])
def test_input_is_not_modified(key, dims, training):
    network = build(key, 1, 3, dims).train(training)
    x = images(dims)
    before = x.clone()
    network(x)
    assert torch.equal(x, before)


@each_network
def test_returned_logits_can_be_changed_in_place(key, dims):
    network = build(key, 1, 3, dims).eval()
    x = images(dims)
    with torch.inference_mode():
        first = network(x)
        expected = first.clone()
        first += 1000
        assert torch.equal(network(x), expected)


@each_network
def test_bfloat16_autocast_stays_near_full_precision(key, dims):
    network = build(key, 1, 3, dims).eval()
    x = images(dims)
    with torch.no_grad():
        full = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x)
    assert half.isfinite().all()
    assert (half.float() - full).abs().max() < 0.1 * max(1.0, float(full.abs().max()))
    with torch.autocast("cpu", torch.bfloat16):
        loss = network.train()(x).float().square().mean()
    loss.backward()
    assert loss.isfinite()


@each_network
def test_few_steps_overfit_one_image(key, dims):
    network = build(key, 1, 2, dims).train()
    size = SIZES[dims]
    centred = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    target = (sum(axis**2 for axis in centred) < 0.4).long()[None]
    x = target[:, None] + 0.3 * torch.randn(1, 1, *size)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        logits = network(x)
        torch.nn.functional.cross_entropy(logits, target).backward()
        optimizer.step()
    predicted = logits.argmax(1)
    dice = 2 * (predicted * target).sum() / (predicted + target).sum()
    assert dice > 0.9


@pytest.mark.parametrize("package", ["nnunet_ext.networks"])
def test_networks_import_torch_and_the_standard_library_only(package):
    """Walks the source, so that an import inside a function is found too."""
    folder = Path(importlib.util.find_spec(package).origin).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level <= 1, f"{path}: line {node.lineno} imports from outside the package"
                names = [node.module] if node.level == 0 else []
            else:
                continue
            for name in names:
                top = name.split(".")[0]
                assert top == "torch" or top in sys.stdlib_module_names, f"{path}: line {node.lineno} imports {name}"
