"""A training starts from what `init=genesis:FILE` names: the whole network but its last layer, or the encoder."""

import pytest
import torch

from nnunet_ext.errors import OptionError
from nnunet_ext.networks import GenesisUNet3D
from nnunet_ext.recipe import resolve
from nnunet_ext.trainers.CustomTrainer import CustomTrainer
from nnunet_ext.trainers.nnUNetTrainerModelsGenesis import nnUNetTrainerModelsGenesis

SMALL = ("network=genesisunet3d", "network.base_channels=4", "patch_size=8,16,16")


@pytest.fixture
def weights(tmp_path):
    """A pre-trained network of one input channel that restores images, in the layout of the released file."""
    torch.manual_seed(7)
    state = GenesisUNet3D(1, 1, base_channels=4).state_dict()
    file = tmp_path / "Genesis_Chest_CT.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, file)
    return file


@pytest.fixture
def start(folders):
    """A function that brings a 3D trainer of some settings to where its training starts."""

    def make(*settings: str, trainer_class=CustomTrainer, configuration="3d_fullres") -> CustomTrainer:
        folders.configure("small", *settings, configuration=configuration)
        trainer = folders.trainer(trainer_class, "small")
        trainer.initialize()
        trainer._load_pretrained()
        return trainer

    return make


def test_trainer_of_models_genesis_starts_from_the_file(start, weights, capsys):
    trainer = start(*SMALL, f"init=genesis:{weights}", trainer_class=nnUNetTrainerModelsGenesis)
    found = torch.load(weights, weights_only=True)["state_dict"]
    own = trainer.network.state_dict()
    assert torch.equal(own["up_tr64.ops.1.conv1.weight"], found["module.up_tr64.ops.1.conv1.weight"])
    # two input channels: the file's single one is divided
    first = own["down_tr64.ops.0.conv1.weight"]
    assert torch.equal(first.sum(1, keepdim=True), found["module.down_tr64.ops.0.conv1.weight"])
    assert "103 loaded, 1 adapted, 2 fresh (out_tr.final_conv), 0 unexpected" in capsys.readouterr().out


def test_encoder_alone_leaves_a_fresh_decoder(start, weights):
    trainer = start(*SMALL, f"init=genesis-encoder:{weights}")
    found = torch.load(weights, weights_only=True)["state_dict"]
    own = trainer.network.state_dict()
    assert torch.equal(own["down_tr512.ops.1.conv1.weight"], found["module.down_tr512.ops.1.conv1.weight"])
    assert not torch.equal(own["up_tr64.ops.1.conv1.weight"], found["module.up_tr64.ops.1.conv1.weight"])


@pytest.mark.parametrize("method", ["genesis", "genesis-encoder"])
def test_planned_network_starts_from_its_own_pre_training(start, method, tmp_path, capsys):
    donor = start("network=planned").network
    with torch.no_grad():
        for parameter in donor.parameters():
            parameter.fill_(0.25)
    torch.save(donor.state_dict(), tmp_path / "model_best.pt")
    capsys.readouterr()
    own = start("network=planned", f"init={method}:{tmp_path / 'model_best.pt'}").network.state_dict()
    taken = {name for name, value in own.items() if value.is_floating_point() and (value == 0.25).all()}
    decoder = {name for name in own if name.startswith("decoder.") and not name.startswith("decoder.encoder.")}
    expected = set(own) - decoder if method == "genesis-encoder" else {n for n in own if "seg_layers" not in n}
    assert taken == expected
    assert "0 unexpected" in capsys.readouterr().out


def test_without_a_file_random_weights_are_a_loud_warning(start, capsys):
    start(*SMALL)
    assert "WARNING: genesisunet3d starts from RANDOM weights; set init=genesis:FILE" in capsys.readouterr().out


def test_continued_training_does_not_load_the_file_again(folders, weights, monkeypatch):
    short = ("epochs=1", "iterations_per_epoch=1", "val_iterations_per_epoch=1", "batch_size=2")
    folders.configure("small", *SMALL, *short, f"init=genesis:{weights}", configuration="3d_fullres")
    folders.train("nnUNetTrainerModelsGenesis", "small")
    weights.unlink()
    folders.train("nnUNetTrainerModelsGenesis", "small", continue_training=True)
    assert (folders.model("nnUNetTrainerModelsGenesis", "small") / "fold_0" / "checkpoint_final.pth").is_file()


def test_continuing_what_has_no_checkpoint_yet_starts_from_the_file(folders, weights, capsys):
    """As a job does that always passes --c, or was ended in its first epoch."""
    short = ("epochs=1", "iterations_per_epoch=1", "val_iterations_per_epoch=1", "batch_size=2")
    folders.configure("small", *SMALL, *short, f"init=genesis:{weights}", configuration="3d_fullres")
    folders.train("nnUNetTrainerModelsGenesis", "small", continue_training=True)
    assert f"genesis:{weights}: " in capsys.readouterr().out


def test_weights_of_nnunets_own_option_are_kept_and_no_others_wanted(folders, weights, tmp_path, capsys):
    short = ("epochs=1", "iterations_per_epoch=1", "val_iterations_per_epoch=1", "batch_size=2")
    folders.configure("small", *SMALL, *short, configuration="3d_fullres")
    trainer = folders.trainer(CustomTrainer, "small")
    trainer.initialize()
    file = tmp_path / "for_nnunet.pth"
    torch.save({"network_weights": trainer.network.state_dict()}, file)
    folders.train("CustomTrainer", "small", pretrained_weights=str(file))
    out = capsys.readouterr().out
    assert "the weights are those of -pretrained_weights" in out and "RANDOM" not in out
    folders.configure("two", *SMALL, *short, f"init=genesis:{weights}", configuration="3d_fullres")
    with pytest.raises(OptionError, match="option init and -pretrained_weights each name weights"):
        folders.train("CustomTrainer", "two", pretrained_weights=str(file))


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("jigsaw:file.pt", r"option init must be .* or nnunet:FILE, got 'jigsaw:file\.pt'"),
        ("genesis:", "option init must be genesis:FILE"),
        ("genesis", "option init must be genesis:FILE"),
    ],
)
def test_other_forms_are_refused(init, message):
    with pytest.raises(OptionError, match=message):
        resolve({"network": "genesisunet3d", "init": init}, patch_size=(16, 16, 16))


def test_two_sources_of_weights_are_refused():
    given = {"network": "genesisunet3d", "init": "genesis:a.pt", "pretrained": "b.pt"}
    with pytest.raises(OptionError, match="init and pretrained both name weights"):
        resolve(given, patch_size=(16, 16, 16))


def test_missing_file_is_named(start, tmp_path):
    with pytest.raises(OptionError, match=r"init: .*nowhere\.pt: no such file"):
        start(*SMALL, f"init=genesis:{tmp_path / 'nowhere.pt'}")


def test_file_of_another_network_is_refused(start, weights):
    with pytest.raises(OptionError, match=r"init: .*does not fit this network: .* is missing"):
        start("network=planned", f"init=genesis:{weights}")


def test_network_that_takes_no_init_refuses_it(start, weights):
    with pytest.raises(OptionError, match="network enet takes no init"):
        start("network=enet", f"init=genesis:{weights}", configuration="2d")


def test_options_of_a_section_written_before_init_existed_are_taken():
    section = {name: value for name, value in resolve({}, patch_size=(64, 64)).section().items() if name != "init"}
    assert resolve(section, patch_size=(64, 64)).init is None
