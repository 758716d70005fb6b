import pytest
import torch
from torch.nn import functional as F

from nnunet_ext.networks import GenesisUNet3D
from nnunet_ext.networks._weights import read_weights

SMALL = {"base_channels": 4}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def trained_for_one_step() -> GenesisUNet3D:
    """Return a network whose running statistics are not the initial ones."""
    network = GenesisUNet3D(2, 3, **SMALL)
    network.train()(torch.randn(2, 2, 16, 16, 16))
    return network.eval()


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A file in the layout of `Genesis_Chest_CT.pt`, with random weights of a small network.

    The authors name PyTorch 1.3, which wrote no archives yet.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        state = GenesisUNet3D(1, 1, **SMALL).state_dict()
    file = tmp_path_factory.mktemp("weights") / "Genesis_Chest_CT.pt"
    content = {f"module.{name}": value for name, value in state.items()}
    whole = {"epoch": 1, "state_dict": content, "optimizer_state_dict": {"param_groups": [{"lr": 1.0}]}}
    torch.save(whole, file, _use_new_zipfile_serialization=False)
    return file


def test_parameters_and_tensors_are_those_of_the_released_model():
    with torch.device("meta"):
        network = GenesisUNet3D(1, 1)
    assert sum(p.numel() for p in network.parameters()) == 19_073_665
    assert len(network.state_dict()) == 106
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["down_tr64.ops.0.conv1.weight"] == (32, 1, 3, 3, 3)
    assert shapes["up_tr256.ops.0.conv1.weight"] == (256, 768, 3, 3, 3)
    assert shapes["out_tr.final_conv.weight"] == (1, 64, 1, 1, 1)


@pytest.mark.parametrize("size", [(17, 20, 33), (5, 7, 3), (1, 1, 1), (8, 8, 8)])
def test_other_sizes_equal_the_volume_continued_to_multiples_of_eight(size):
    network = trained_for_one_step()
    x = torch.randn(1, 2, *size)
    target = [-(-n // 8) * 8 for n in size]
    target[2] += 8 if max(target) == 8 else 0
    pads = [pad for n, wanted in zip(reversed(size), reversed(target), strict=True) for pad in (0, wanted - n)]
    d, h, w = size
    with torch.no_grad():
        logits = network(x)
        assert logits.shape == (1, 3, *size)
        torch.testing.assert_close(logits, network(F.pad(x, pads, mode="replicate"))[..., :d, :h, :w])


def test_script_gives_equal_logits():
    network = trained_for_one_step()
    scripted = torch.jit.script(network)
    for size in ((16, 16, 16), (9, 20, 17)):
        x = torch.randn(2, 2, *size)
        with torch.no_grad():
            expected = network(x)
            for _ in range(3):  # the second and third call run what the profiling executor made of the first
                torch.testing.assert_close(scripted(x), expected)


def test_released_weights_fill_all_but_the_last_layer(released):
    network = GenesisUNet3D(1, 5, **SMALL)
    report = network.load_pretrained(released)
    assert len(report.loaded) == 104
    assert report.fresh == ["out_tr.final_conv.weight", "out_tr.final_conv.bias"]
    assert (report.adapted, report.unexpected) == ([], [])
    assert str(report) == "104 loaded, 0 adapted, 2 fresh (out_tr.final_conv), 0 unexpected"
    found = read_weights(released)
    assert all(torch.equal(value, found[name]) for name, value in network.state_dict().items() if name in report.loaded)


def test_encoder_alone_leaves_the_decoder_as_it_was(released):
    network = GenesisUNet3D(1, 5, **SMALL)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    report = network.load_pretrained(released, parts="encoder")
    assert len(report.loaded) == 8 * 7  # 8 convolutions: weight, bias, and five of the normalisation
    assert {name.split("_")[0] for name in report.loaded} == {"down"}
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in report.fresh)


def test_one_input_channel_is_divided_among_several(released):
    one, three = GenesisUNet3D(1, 2, **SMALL).eval(), GenesisUNet3D(3, 2, **SMALL).eval()
    one.load_pretrained(released)
    assert three.load_pretrained(released).adapted == ["down_tr64.ops.0.conv1.weight"]
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(three.down_tr64(x.repeat(1, 3, 1, 1, 1)), one.down_tr64(x))


def write(content, tmp_path):
    torch.save(content, tmp_path / "file.pt")
    return tmp_path / "file.pt"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"down_tr64.ops.0.conv1.weight": torch.zeros(9)}, r"must have the shape \(4, 1, 3, 3, 3\), got \(9,\)"),
        ({"something": torch.zeros(1)}, "down_tr64.ops.0.conv1.weight is missing; .* and 101 more; it holds something"),
        ({"epoch": 3}, "must hold a state dict"),
        ([1, 2], "must hold a state dict, holds a list"),
        (GenesisUNet3D(1, 2, **SMALL), "Python objects beside tensors, which could run code"),
    ],
)
def test_file_that_does_not_fit_is_refused_and_changes_nothing(content, message, tmp_path):
    network = GenesisUNet3D(1, 2, **SMALL)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        network.load_pretrained(write(content, tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_file_with_nan_is_refused(tmp_path):
    state = GenesisUNet3D(1, 1, **SMALL).state_dict()
    state["up_tr64.up_conv.bias"][0] = float("nan")
    with pytest.raises(ValueError, match=r"up_tr64\.up_conv\.bias must be finite, holds NaN or infinity"):
        GenesisUNet3D(1, 2, **SMALL).load_pretrained(write(state, tmp_path))


def test_file_of_another_width_is_refused(released):
    with pytest.raises(ValueError, match=r"must have the shape \(8, 1, 3, 3, 3\), got \(4, 1, 3, 3, 3\)"):
        GenesisUNet3D(1, 2, base_channels=8).load_pretrained(released)


def test_missing_file_and_unknown_part_are_named(released, tmp_path):
    network = GenesisUNet3D(1, 2, **SMALL)
    with pytest.raises(ValueError, match=r"nowhere\.pt: no such file"):
        network.load_pretrained(tmp_path / "nowhere.pt")
    with pytest.raises(ValueError, match="parts must be one of all, encoder, got 'decoder'"):
        network.load_pretrained(released, parts="decoder")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels must be an integer >= 1, got 0"),
        ({"num_classes": 0}, "num_classes must be an integer >= 1, got 0"),
        ({"base_channels": 3}, "base_channels must be an even number >= 2, got 3"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GenesisUNet3D(**{"in_channels": 1, "num_classes": 2, **arguments})
