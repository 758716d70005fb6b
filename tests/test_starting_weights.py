"""What stays as it was loaded behind a CRF must have been trained, all of it."""

import pytest
import torch

from nnunet_ext.crf_option import refined
from nnunet_ext.errors import OptionError
from nnunet_ext.initial_weights import load_starting_weights
from nnunet_ext.networks import GenesisUNet3D
from nnunet_ext.networks.crf import RefinedNetwork
from nnunet_ext.recipe import resolve


@pytest.fixture
def donor(tmp_path):
    """A trained network, and its file."""
    network = GenesisUNet3D(1, 3, base_channels=2)
    torch.save(network.state_dict(), tmp_path / "model_best.pt")
    return network, tmp_path / "model_best.pt"


def start(crf: str, **given: str) -> RefinedNetwork:
    given = {"network": "genesisunet3d", "network_options": {"base_channels": 2}, "crf": crf, **given}
    options = resolve(given, patch_size=(16, 16, 16))
    base = GenesisUNet3D(1, 3, base_channels=2)
    last = GenesisUNet3D.last_layers
    network = refined(base, crf, options.crf_options, (1.0, 1.0, 1.0), last, "genesisunet3d")
    load_starting_weights(network, options, lambda *_, **__: None)
    return network


@pytest.mark.parametrize("given", [{}, {"init": "genesis:{}"}, {"init": "genesis-encoder:{}"}, {"pretrained": "{}"}])
@pytest.mark.parametrize("crf", ["crf", "last"])
def test_frozen_network_is_not_started_from_some_of_its_weights(donor, crf, given):
    """Its last layer would stay random, or stand behind layers that do."""
    with pytest.raises(OptionError, match=rf"crf={crf} keeps network genesisunet3d as .*; set init=nnunet:FILE"):
        start(crf, **{name: value.format(donor[1]) for name, value in given.items()})


@pytest.mark.parametrize("crf", ["crf", "last", "all"])
def test_network_behind_a_crf_starts_from_all_of_its_weights(donor, crf):
    network, file = donor
    for name, value in start(crf, init=f"nnunet:{file}").base.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])


def test_network_that_trains_behind_a_crf_may_start_from_some_of_its_weights(donor):
    network, file = donor
    state, wanted = start("all", init=f"genesis:{file}").base.state_dict(), network.state_dict()
    equal = {name for name, value in wanted.items() if torch.equal(value, state[name])}
    assert {name for name in wanted if not name.startswith("out_tr.")} <= equal
    assert "out_tr.final_conv.weight" not in equal
