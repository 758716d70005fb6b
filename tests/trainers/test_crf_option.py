"""`crf=` puts a mean-field CRF behind any network under nnU-Net: in 2D and 3D, in training and in prediction."""

import json

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.errors import OptionError
from nnunet_ext.networks.crf import RefinedNetwork
from nnunet_ext.options import parse_settings
from nnunet_ext.recipe import resolve
from nnunet_ext.trainers.CustomTrainer import CustomTrainer

SHORT = ("epochs=1", "iterations_per_epoch=1", "val_iterations_per_epoch=1", "batch_size=2")
GENESIS = ("network=genesisunet3d", "network.base_channels=4", "patch_size=8,16,16")


def train_stock(folders, configuration: str) -> str:
    """Train nnU-Net's own trainer for one step; return its checkpoint."""
    folders.configure("stock", "network=planned", "batch_size=2", configuration=configuration)
    trainer = folders.trainer(nnUNetTrainer, "stock")
    trainer.num_epochs = trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    return f"{trainer.output_folder}/checkpoint_final.pth"


def start(folders, *settings: str, configuration: str = "2d") -> CustomTrainer:
    folders.configure("with_crf", *SHORT, *settings, configuration=configuration)
    trainer = folders.trainer(CustomTrainer, "with_crf")
    trainer.initialize()
    trainer._load_pretrained()
    return trainer


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_trained_checkpoint_of_nnunet_is_the_base_and_only_its_last_layer_changes(folders, configuration):
    file = train_stock(folders, configuration)
    settings = ("network=planned", "crf=last", "crf.appearance_weight=0.5", "crf.appearance_window=3")
    trainer = start(folders, *settings, f"init=nnunet:{file}", configuration=configuration)
    weights = torch.load(file, map_location="cpu", weights_only=False)["network_weights"]
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    assert all(torch.equal(before[f"base.{name}"], value) for name, value in weights.items())
    patch = trainer.configuration_manager.patch_size
    assert trainer.network.spacing_mm == tuple(trainer.configuration_manager.spacing)
    assert len(trainer.network.spacing_mm) == len(patch)
    images, labels = torch.randn(2, 2, *patch), torch.randint(0, 3, (2, 1, *patch)).float()
    targets = [labels[(..., *(slice(None, None, round(1 / s)) for s in scale))] for scale in scales(trainer)]
    trainer.network.train()
    trainer.train_step({"data": images, "target": targets})
    changed = {name for name, v in trainer.network.state_dict().items() if not torch.equal(v, before[name])}
    of_crf = {name for name in before if name.startswith("crf.")}
    assert len(of_crf) == 5
    assert of_crf < changed
    assert "base.decoder.seg_layers.0.weight" in {name for name in before if name not in of_crf}
    assert all(name.startswith("base.decoder.seg_layers.") for name in changed - of_crf)


def scales(trainer: CustomTrainer) -> list[list[float]]:
    return trainer._get_deep_supervision_scales()


@pytest.mark.parametrize(
    ("settings", "configuration"),
    [(("network=enet", "network.input_scale=1"), "2d"), (("network=planned",), "3d_fullres")],
)
def test_training_and_prediction_have_the_same_network(folders, tmp_path, settings, configuration):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folders.configure("with_crf", *SHORT, *settings, "crf=all", "crf.iterations=2", configuration=configuration)
    folders.train("CustomTrainer", "with_crf")
    model, output = folders.model("CustomTrainer", "with_crf"), tmp_path / "out"
    output.mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    predictor.predict_from_files_sequential(str(folders.raw / "Dataset990_Cubes" / "imagesTs"), str(output))
    assert (output / "cube_05.nii.gz").is_file()
    assert isinstance(predictor.network, RefinedNetwork)
    assert predictor.network.crf.iterations == 2
    saved = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert {name for name in saved if name.startswith("crf.")} == {
        f"crf.{n}" for n in predictor.network.crf.state_dict()
    }
    assert all(torch.equal(predictor.network.state_dict()[name], value) for name, value in saved.items())


def test_of_several_outputs_the_finest_is_refined_and_the_others_can_be_switched_off(folders):
    trainer = start(folders, "network=planned", "crf=all")
    network, images = trainer.network.eval(), torch.randn(1, 2, *trainer.configuration_manager.patch_size)
    with torch.no_grad():
        outputs, own = network(images), network.base(images)
        assert torch.equal(outputs[0], network.crf(own[0], images, network.spacing_mm))
        assert not torch.equal(outputs[0], own[0])
        assert torch.equal(outputs[1], own[1])
        trainer.set_deep_supervision_enabled(False)
        assert torch.equal(network(images), outputs[0])


@pytest.mark.parametrize("kind", ["exact", "crfseg"])
def test_field_is_of_the_kind_that_is_asked_for_and_no_other(folders, kind):
    package = pytest.importorskip("crfseg", reason="needs crfseg (pip install -e '.[dev]')")
    trainer = start(folders, "network=enet", "network.input_scale=1", "crf=all", f"crf.kind={kind}")
    patch, spacing = trainer.configuration_manager.patch_size, trainer.configuration_manager.spacing
    network, images = trainer.network.eval(), torch.randn(1, 2, *patch)
    with torch.no_grad():
        theirs = package.CRF(2)(network.base(images), torch.tensor([list(spacing)], dtype=torch.float32))
        assert torch.allclose(network(images), theirs) == (kind == "crfseg")


@pytest.mark.parametrize("crf", ["crf", "last"])
def test_volumes_of_models_genesis_name_their_last_layer(folders, tmp_path, crf):
    donor = start(folders, *GENESIS, configuration="3d_fullres").network
    torch.save(donor.state_dict(), tmp_path / "model_best.pt")
    init = f"init=nnunet:{tmp_path / 'model_best.pt'}"
    network = start(folders, *GENESIS, f"crf={crf}", init, configuration="3d_fullres").network
    trained = {name.rsplit(".", 1)[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"crf.smoothness"} | ({"base.out_tr.final_conv"} if crf == "last" else set())
    assert all(torch.equal(network.base.state_dict()[name], value) for name, value in donor.state_dict().items())


def test_weights_of_another_network_are_refused(folders, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "model_best.pt")
    with pytest.raises(
        OptionError, match=r"model_best\.pt must hold .* this very network, enet.*: (\S+, ){2}\S+ and \d+ more$"
    ):
        start(folders, "network=enet", "crf=crf", f"init=nnunet:{tmp_path / 'model_best.pt'}")


def test_regions_for_a_data_set_of_classes_are_refused(folders):
    with pytest.raises(OptionError, match=r"labels of this data set are classes; set crf\.regions=false"):
        start(folders, "network=enet", "crf=all", "crf.regions=true")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"crf": "head"}, "option crf must be one of none, all, crf, last, got 'head'"),
        ({"crf_options": {"iterations": 3}}, r"options crf\.iterations need a CRF; set crf=all"),
        ({"crf": "all", "crf_options": {"width": 3}}, r"the CRF has no option width; its options: crf\.kind, "),
        ({"crf": "all", "crf_options": {"iterations": 0}}, "iterations must be an integer >= 1, got 0"),
        ({"crf": "all", "network": "crf"}, "network=crf has a CRF of its own"),
    ],
)
def test_wrong_option_is_an_error_that_names_it(given, message):
    with pytest.raises(OptionError, match=message):
        resolve({"network": "enet", **given}, patch_size=(64, 64))


def test_bandwidths_that_are_not_given_follow_the_voxels():
    def bandwidths(spacing_mm, **given):
        asked = {"network": "enet", "crf": "all", "crf_options": given}
        options = resolve(asked, patch_size=(64, 64), spacing_mm=spacing_mm).crf_options
        return options["smoothness_mm"], options["appearance_mm"]

    assert bandwidths((4.0, 3.0)) == (3.0, 6.0)
    assert bandwidths((4.0, 3.0), smoothness_mm=1.5) == (1.5, 6.0)
    assert bandwidths(()) == (1.0, 2.0)
    assert bandwidths((0.01, 0.01)) == (0.1, 0.2)  # the CRF has none below 0.05


def test_spacing_of_the_plans_reaches_the_bandwidths_and_stays_in_them(folders):
    plans = folders.plans()
    plans["configurations"]["2d"]["spacing"] = [4.0, 3.0]
    folders.plans_path.write_text(json.dumps(plans))
    entry = folders.configure("2d_crf", "network=enet", "crf=all")
    assert entry["nnunet_ext"]["crf_options"]["smoothness_mm"] == 3.0
    network = start(folders, "network=enet", "crf=all").network
    assert network.spacing_mm == (4.0, 3.0)
    assert network.crf.smoothness.bandwidths_mm().tolist() == pytest.approx([3.0, 3.0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("network=samed", "crf=all", "loss_resolution=low"), "crf=all refines logits of full size; set loss_resolu"),
        (("network=enet", "crf=crf", "crf.smoothness_weight=0"), r"no term; set crf\.smoothness_weight"),
    ],
)
def test_what_cannot_train_is_refused_but_predicts(folders, settings, message):
    with pytest.raises(OptionError, match=message):
        folders.configure("2d_crf", *settings)
    resolve(parse_settings(settings), patch_size=(64, 64))


def test_section_holds_every_option_of_the_field_and_none_without_one():
    assert resolve({"network": "enet"}, patch_size=(64, 64)).section()["crf_options"] == {}
    options = resolve({"network": "enet", "crf": "all", "crf_options": {"iterations": 3}}, patch_size=(64, 64))
    section = options.section()["crf_options"]
    assert (section["iterations"], section["kind"], section["smoothness_weight"]) == (3, "exact", 1.0)
