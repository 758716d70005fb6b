"""Every setting of the field in the bundle crf reaches the layer that is built; sampler and base are as documented."""

from pathlib import Path

import numpy as np
import pytest
import torch
from base_files import write_enet_run

from nnunet_ext.networks.crf import CrfsegField
from nnunet_ext.networks.mean_field import MeanFieldCRF

OTHERS = {
    "smoothness_weight": 1.75,
    "smoothness_mm": 2.5,
    "smoothness_window": 7,
    "appearance_weight": 0.625,
    "appearance_mm": 3.5,
    "appearance_intensity": 0.25,
    "appearance_window": 3,
    "iterations": 2,
}
"""A value of each number that is not its default."""
TERM = {"appearance_weight": 0.5}  # without any weight there is no such term


@pytest.fixture(scope="session")
def crf(bundle_of):
    return bundle_of("crf")


@pytest.fixture
def training(crf, tiny_phantom, workspace):
    """Return the parser of a training on an ENet, with some settings."""

    def parser(**settings):
        options = {"dataset_dir": str(tiny_phantom), "cache_dir": "cache", "num_workers": 0, **settings}
        return crf.workflow("train", **{"base_checkpoint": str(write_enet_run(tiny_phantom)), **options}).parser

    return parser


def settings_of(field: MeanFieldCRF) -> dict[str, float]:
    """Read back what a field was built with; of a term that is absent, only its weight."""
    found = {"iterations": field.iterations}
    for name, term in (("smoothness", field.smoothness), ("appearance", field.appearance)):
        found[f"{name}_weight"] = 0.0 if term is None else term.weight().item()
        if term is not None:
            (bandwidth,) = set(term.bandwidths_mm().tolist())
            found |= {f"{name}_mm": bandwidth, f"{name}_window": 2 * term.radius + 1}
    if field.appearance is not None:
        found["appearance_intensity"] = field.appearance.intensity_bandwidth().item()
    return found


def defaults(crf) -> dict[str, float]:
    """Return what stands in train.json; bandwidths of null are one voxel and two."""
    voxels = {"smoothness_mm": 1.0, "appearance_mm": 2.0}
    return {name: voxels[name] if crf.train[name] is None else crf.train[name] for name in OTHERS}


@pytest.mark.parametrize("name", OTHERS)
def test_each_setting_reaches_the_layer_and_changes_nothing_else(crf, training, name):
    given = {**TERM, name: OTHERS[name]}
    field = training(**given).get_parsed_content("network").crf
    assert type(field) is MeanFieldCRF
    expected = {**defaults(crf), **given}
    assert OTHERS[name] != defaults(crf)[name]
    assert settings_of(field) == pytest.approx(expected, rel=1e-5)


def test_without_settings_the_layer_has_the_smoothness_term_alone(crf, training):
    field = training().get_parsed_content("network").crf
    expected = {name: value for name, value in defaults(crf).items() if not name.startswith("appearance_")}
    assert settings_of(field) == pytest.approx({**expected, "appearance_weight": 0.0}, rel=1e-5)


@pytest.mark.parametrize("kind", ["exact", "crfseg"])
def test_layer_is_of_its_kind_with_the_settings_of_that_kind(training, kind):
    package = pytest.importorskip("crfseg", reason="needs crfseg (pip install -e '.[dev]')")
    given = {"iterations": 2, "smoothness_weight": 2.0, "smoothness_mm": 1.5, "smoothness_window": 5}
    network = training(kind=kind, **given).get_parsed_content("network").eval().cpu()
    theirs = package.CRF(2, n_iter=2, smoothness_weight=2.0, smoothness_theta=1.5, filter_size=5)
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        same = torch.allclose(network(image), theirs(network.base(image)))
    assert same == (kind == "crfseg")


def test_model_that_was_trained_with_crfseg_predicts_with_it(crf, training, tiny_phantom):
    pytest.importorskip("crfseg", reason="needs crfseg (pip install -e '.[dev]')")
    few = {"iterations_per_epoch": 1, "batch_size": 2, "max_epochs": 1, "val_interval": 1, "num_workers": 0}
    options = {**few, "dataset_dir": str(tiny_phantom), "cache_dir": "cache", "amp": False, "output_dir": "run"}
    crf.run("train", **options, kind="crfseg", base_checkpoint=str(write_enet_run(tiny_phantom)))
    given = {"dataset_dir": str(tiny_phantom), "ckpt_dir": "run"}
    parser = crf.workflow("inference", workflow_type="infer", **given).parser
    assert type(parser.get_parsed_content("network").crf) is CrfsegField


def test_sampler_is_adaptive_by_default(training):
    """In the first epoch it leaves every slice without a label out, in the last it keeps all."""
    parser = training(max_epochs=4)
    dataset = parser.get_parsed_content("train::dataset")
    dataset.has_foreground = np.arange(len(dataset)) % 2 == 0  # the phantom has labels in every slice
    sampler = parser.get_parsed_content("train::sampler")
    shares = []
    for epoch in (1, 4):
        sampler.set_epoch(epoch)
        shares.append(bool(dataset.has_foreground[list(sampler)].all()))
    assert shares == [True, False]


def test_on_the_phantom_without_a_base_the_log_says_that_a_small_one_is_trained(training, caplog):
    few = {"base_epochs": 1, "iterations_per_epoch": 1, "batch_size": 2, "image_size": [32, 32]}
    base = training(base_checkpoint="runs/enet", **few).get_parsed_content("base_model")
    (line,) = [record.getMessage() for record in caplog.records if "NO TRAINED NETWORK" in record.getMessage()]
    assert "on the phantom, a small ENet is trained first, into cache/demo_enet/" in line
    assert "bundles/enet/train.json" in line and "bundles/enet/demo.json" in line
    assert base.network == "enet"
    assert Path(base.checkpoint).parts[:2] == ("cache", "demo_enet")
    caplog.clear()
    again = training(base_checkpoint="runs/enet", **few).get_parsed_content("base_model")
    assert again.checkpoint == base.checkpoint
    assert "NO TRAINED NETWORK" not in caplog.text


def test_options_of_slices_are_written_as_they_were_given(training):
    """A run that goes on is told apart by their text."""
    options = training().get_parsed_content("network_options")
    assert list(options)[:5] == ["base", "base_options", "regions", "kind", "iterations"]
    assert (options["smoothness_mm"], options["appearance_mm"]) == (1.0, 2.0)
