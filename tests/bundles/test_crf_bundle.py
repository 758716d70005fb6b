"""The bundle crf refines trained networks: found, recognised, frozen, and carried inside its own model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from base_files import write_base_file, write_enet_run

from nnunet_ext.bundle import read_model_card
from nnunet_ext.bundle.base_model import BaseModel, read_base
from nnunet_ext.errors import OptionError, UserError

BASES = ("enet", "models_genesis", "sam2unet", "samed")
LAST = {
    "enet": "base.classifier.",
    "genesisunet3d": "base.out_tr.final_conv.",
    "sam2unet": "base.heads.2.",
    "samed": "base.mask_decoder.output_hypernetworks_mlps.",
}
FEW = {"iterations_per_epoch": 3, "batch_size": 2, "max_epochs": 1, "val_interval": 1, "num_workers": 0, "amp": False}


@pytest.fixture(scope="session")
def crf(bundle_of):
    return bundle_of("crf")


@pytest.fixture(scope="session", params=BASES)
def base_run(bundle_of, request, tiny_phantom, tmp_path_factory) -> Path:
    """A run of each bundle that segments on the phantom, as its own training writes it; read only."""
    base, folder = bundle_of(request.param), tmp_path_factory.mktemp(f"base_{request.param}")
    options = {**base.tiny, **FEW, "dataset_dir": str(tiny_phantom), "output_dir": str(folder / "run")}
    if "tuning" in base.train:
        options["tuning"] = base.train["tuning"]
    base.run("train", **options, cache_dir=str(folder / "cache"))
    return folder / "run"


def train(crf, dataset_dir, output_dir: str, **options) -> Path:
    given = {**FEW, "dataset_dir": str(dataset_dir), "cache_dir": "cache", "output_dir": output_dir, **options}
    crf.run("train", **given)
    return Path(output_dir)


def predict(bundle, dataset_dir, output_dir: str, **options) -> dict[str, np.ndarray]:
    given = {"dataset_dir": str(dataset_dir), "output_dir": output_dir, "save_logits": True, "amp": False, **options}
    bundle.run("inference", workflow_type="infer", **given)
    return {path.stem: np.load(path)["logits"] for path in sorted(Path(output_dir).glob("*.npz"))}


def found_base(crf, **options) -> BaseModel:
    with crf.readable_errors():
        return crf.workflow("train", **options, cache_dir="cache").parser.get_parsed_content("base_model")


@pytest.mark.parametrize("mode", ["crf", "last"])
def test_exactly_what_the_mode_names_changes_and_no_running_statistic(crf, base_run, tiny_phantom, workspace, mode):
    run = train(crf, tiny_phantom, "run", mode=mode, base_checkpoint=str(base_run), learning_rate=0.05)
    before = torch.load(base_run / "model_best.pt", weights_only=True)
    after = torch.load(run / "model_best.pt", weights_only=True)
    assert {name.removeprefix("base.") for name in after if name.startswith("base.")} == set(before)
    changed = {name for name, value in before.items() if not torch.equal(after[f"base.{name}"], value)}
    prefix = LAST[read_base(base_run / "model_best.pt").network]
    last = {name for name in after if name.startswith(prefix)}
    assert {f"base.{name}" for name in changed} == (last if mode == "last" else set())
    assert last
    initial = crf.workflow("train", dataset_dir=str(tiny_phantom), base_checkpoint=str(base_run), cache_dir="cache")
    fresh = initial.parser.get_parsed_content("network_def").state_dict()
    field = {name for name in after if name.startswith("crf.")}
    assert field
    assert not [name for name in field if torch.equal(after[name], fresh[name])]


def test_model_holds_the_base_and_needs_no_other_file(crf, base_run, tiny_phantom, workspace):
    moved = shutil.copytree(base_run, "base")
    run = train(crf, tiny_phantom, "run", base_checkpoint="base")
    card = read_model_card(run / "model_best.pt")
    base = read_base(base_run / "model_best.pt")
    assert (card.network_options["base"], card.network_options["base_options"]) == (base.network, base.options)
    assert (card.preprocessing, card.image_size) == (base.card.preprocessing, base.card.image_size)
    shutil.rmtree(moved)
    assert str(base_run) not in (run / "plans.json").read_text()
    assert len(predict(crf, tiny_phantom, "predictions", ckpt_dir="run")) == 2
    options = {**FEW, "dataset_dir": str(tiny_phantom), "cache_dir": "cache", "output_dir": "run"}
    crf.run("train", "evaluate", **options, base_checkpoint="base")
    assert list(Path("run/validation").glob("*.nii.gz"))


def test_field_of_volumes_knows_the_size_of_voxels_and_sees_patches(bundle_of, crf, tiny_phantom, workspace):
    base = bundle_of("models_genesis")
    options = {**base.tiny, **FEW, "slice_axis": 1, "patch_depth": 8, "image_size": [16, 24], "cache_dir": "cache"}
    base.run("train", **options, dataset_dir=str(tiny_phantom), output_dir="base")
    options = {"dataset_dir": str(tiny_phantom), "base_checkpoint": "base", "cache_dir": "cache", "batch_size": 2}
    parser = crf.workflow("train", **options).parser
    network, data = (parser.get_parsed_content(name) for name in ("network_def", "data"))
    depth, height, width = np.median([volume.spacing_mm for volume in data.train_volumes], axis=0)
    assert depth != height, "or the order of axes is not tested"
    assert network.spacing_mm == (height, depth, width)
    assert network.crf.smoothness.bandwidths_mm().tolist() == pytest.approx([min(depth, height, width)] * 3)
    batch = next(iter(parser.get_parsed_content("train::dataloader")))
    assert batch["image"].shape == (2, 1, 8, 16, 24)
    assert parser.get_parsed_content("train::dataset").separate
    assert tuple(parser.get_parsed_content("validate::inferer").roi_size) == (8, 16, 24)


def test_base_of_volumes_without_spacing_is_warned_of(bundle_of, crf, tiny_phantom, workspace, caplog):
    base = bundle_of("models_genesis")
    base.run("train", **{**base.tiny, **FEW, "cache_dir": "cache"}, dataset_dir=str(tiny_phantom), output_dir="base")
    plans = json.loads(Path("base/plans.json").read_text())
    del plans["nnunet_ext"]["preprocessing"]["spacing_mm"]
    Path("base/plans.json").write_text(json.dumps(plans))
    options = {"dataset_dir": str(tiny_phantom), "base_checkpoint": "base", "cache_dir": "cache"}
    network = crf.workflow("train", **options).parser.get_parsed_content("network_def")
    assert network.spacing_mm is None
    assert network.crf.smoothness.bandwidths_mm().tolist() == pytest.approx([1.0] * 3)
    assert "has no spacing_mm; the CRF takes voxels for mm" in caplog.text


def test_without_training_a_field_of_weight_0_gives_the_logits_of_the_base(
    bundle_of, crf, base_run, tiny_phantom, workspace
):
    key = read_base(base_run / "model_best.pt").network
    base = bundle_of({"genesisunet3d": "models_genesis"}.get(key, key))
    own = predict(base, tiny_phantom, "own", ckpt_dir=str(base_run))
    options = {"mode": "inference", "base_checkpoint": str(base_run)}
    nothing = predict(crf, tiny_phantom, "nothing", **options, crf_options={"smoothness_weight": 0.0})
    refined = predict(crf, tiny_phantom, "refined", **options)
    assert own.keys() == nothing.keys() == refined.keys() != set()
    for case, logits in own.items():
        np.testing.assert_array_equal(nothing[case], logits)
        assert not np.allclose(refined[case], logits)


def test_mode_inference_trains_nothing_but_validates_and_saves(crf, tiny_phantom, workspace):
    base = write_enet_run(tiny_phantom)
    run = train(crf, tiny_phantom, "run", mode="inference", base_checkpoint=str(base), appearance_weight=0.7)
    after = torch.load(run / "model_best.pt", weights_only=True)
    before = torch.load(base / "model_best.pt", weights_only=True)
    assert all(torch.equal(after[f"base.{name}"], value) for name, value in before.items())
    assert {name for name in after if name.startswith("crf.appearance.")}
    assert not (run / "checkpoint_last.pt").exists()
    options = {**FEW, "dataset_dir": str(tiny_phantom), "cache_dir": "cache", "mode": "inference"}
    options |= {"base_checkpoint": str(base), "save_logits": True}
    crf.run("train", "evaluate", **options, output_dir="straight")
    crf.run("train", "evaluate", **options, output_dir="other", iterations=1)
    (one,), (other,) = (list(Path(folder).glob("validation/*.npz")) for folder in ("straight", "other"))
    assert not np.array_equal(np.load(one)["logits"], np.load(other)["logits"]), "the options of the field are ignored"


def test_adapter_without_its_frozen_weights_is_a_base_too(bundle_of, crf, tiny_phantom, workspace):
    base = bundle_of("samed")
    options = {**base.tiny, **FEW, "tuning": "lora", "checkpoint_content": "adapter", "cache_dir": "cache"}
    options["pretrained"] = str(write_base_file("samed", Path("sam.pt")))
    base.run("train", **options, dataset_dir=str(tiny_phantom), output_dir="adapted")
    run = train(crf, tiny_phantom, "run", mode="last", base_checkpoint="adapted", learning_rate=0.01)
    whole = torch.load("adapted/checkpoint_last.pt", weights_only=True)["network"]
    after = torch.load(run / "model_best.pt", weights_only=True)
    changed = {name for name, value in whole.items() if not torch.equal(after[f"base.{name}"], value)}
    assert changed == {name for name in whole if f"base.{name}".startswith(LAST["samed"])}


def test_newest_run_of_the_data_set_and_the_fold_is_the_base(crf, tiny_phantom, workspace):
    ours = write_enet_run(tiny_phantom)
    for name, fold, dataset in (("a", "0", None), ("b", "1", None), ("c", "0", "Dataset001_Other")):
        run = shutil.copytree(ours, f"runs/enet/{name}")
        torch.save({"settings": {"fold": fold}}, f"{run}/checkpoint_last.pt")
        if dataset:
            plans = json.loads(Path(run, "plans.json").read_text())
            Path(run, "plans.json").write_text(json.dumps({**plans, "dataset_name": dataset}))
    options = {"dataset_dir": str(tiny_phantom), "base_checkpoint": "runs/enet"}
    found = {fold: found_base(crf, **options, fold=fold) for fold in (0, 1)}
    assert {fold: base.checkpoint.parent.name for fold, base in found.items()} == {0: "a", 1: "b"}


def test_base_of_another_fold_is_warned_of(crf, tiny_phantom, workspace, caplog):
    run = shutil.copytree(write_enet_run(tiny_phantom), "base")
    torch.save({"settings": {"fold": "3"}}, f"{run}/checkpoint_last.pt")
    found_base(crf, dataset_dir=str(tiny_phantom), base_checkpoint="base")
    assert "was trained on fold 3: it may have seen the cases that validate here, in fold 0" in caplog.text


@pytest.fixture
def mine(tiny_phantom, workspace) -> Path:
    """The user's own data set."""
    root = shutil.copytree(tiny_phantom, workspace / "raw" / "Dataset960_Mine")
    (root / "phantom.json").unlink()
    return root


def test_missing_base_of_the_users_own_data_is_an_error_that_says_how_to_get_one(crf, mine):
    with pytest.raises(UserError, match=r"runs/enet does not exist; train one: .*enet/train\.json .*_Mine --fold 0"):
        train(crf, mine, "run", base_checkpoint="runs/enet")


def test_base_of_other_labels_or_channels_is_refused(crf, mine):
    base = shutil.copytree(write_enet_run(mine), "base")
    description = json.loads((mine / "dataset.json").read_text())
    names = description["labels"]
    description["labels"] = {"background": 0, **{f"other_{name}": value for name, value in names.items() if value}}
    (mine / "dataset.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"model_best\.pt was trained on .*_Mine with labels .* has .*other_heart"):
        train(crf, mine, "run", base_checkpoint=str(base))


def test_canvas_of_a_network_that_has_a_fixed_one_cannot_be_changed(crf, base_run, tiny_phantom, workspace):
    options = {"dataset_dir": str(tiny_phantom), "base_checkpoint": str(base_run), "image_size": [64, 48]}
    if "image_size" not in read_base(base_run / "model_best.pt").options:
        assert found_base(crf, **options).card.image_size == (64, 48)
        return
    with pytest.raises(OptionError, match=r"is for \[32, 32\], got \[64, 48\]; leave it out"):
        found_base(crf, **options)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "model_best.pt").write_bytes(b"PK"), "must be a state dict, but cannot be read"),
        (lambda run: torch.save({"a": torch.zeros(2)}, run / "model_best.pt"), "but none has its weights"),
        (lambda run: (run / "plans.json").unlink(), "plans.json and dataset.json must lie beside"),
    ],
)
def test_what_is_no_network_of_ours_is_refused(crf, tiny_phantom, workspace, spoil, message):
    base = Path(shutil.copytree(write_enet_run(tiny_phantom), "base"))
    spoil(base)
    with pytest.raises(UserError, match=message):
        train(crf, tiny_phantom, "run", base_checkpoint="base")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "head"}, "mode must be one of inference, crf, last, got 'head'"),
        ({"kind": "dense"}, "kind must be one of exact, crfseg"),
        ({"kind": "crfseg", "appearance_weight": 1.0}, "kind=crfseg has no appearance_weight"),
        ({"smoothness_window": 4}, "smoothness_window must be an odd number"),
    ],
)
def test_wrong_option_is_an_error_that_names_it(crf, tiny_phantom, workspace, options, message):
    with pytest.raises(UserError, match=message):
        train(crf, tiny_phantom, "run", base_checkpoint=str(write_enet_run(tiny_phantom)), **options)


def test_refined_network_is_no_base_again(crf, tiny_phantom, workspace):
    train(crf, tiny_phantom, "run", base_checkpoint=str(write_enet_run(tiny_phantom)))
    with pytest.raises(UserError, match="has a CRF already"):
        train(crf, tiny_phantom, "again", base_checkpoint="run")
    with pytest.raises(UserError, match="need a model of the bundle crf, got one without a CRF"):
        options = {**FEW, "dataset_dir": str(tiny_phantom), "cache_dir": "cache", "output_dir": "evaluated"}
        crf.run("train", "evaluate", **options, ckpt_dir=str(write_enet_run(tiny_phantom)))


def test_run_does_not_continue_on_another_base_or_in_another_mode(crf, tiny_phantom, workspace):
    train(crf, tiny_phantom, "run", base_checkpoint=str(write_enet_run(tiny_phantom)))
    with pytest.raises(UserError, match=r"other settings \(mode: crf -> last\)"):
        train(crf, tiny_phantom, "run", mode="last", base_checkpoint=str(write_enet_run(tiny_phantom)))
    other = shutil.copytree(write_enet_run(tiny_phantom), "other")
    state = torch.load(f"{other}/model_best.pt", weights_only=True)
    torch.save({name: value + 1 for name, value in state.items()}, f"{other}/model_best.pt")
    with pytest.raises(UserError, match=r"other settings \(base: \w+ -> \w+\)"):
        train(crf, tiny_phantom, "run", base_checkpoint=str(other))


def test_prediction_takes_a_run_of_its_mode_and_never_an_untrained_one(crf, tiny_phantom, workspace, caplog):
    base = write_enet_run(tiny_phantom)
    runs = {mode: Path("runs") / f"{mode}_fold_0" for mode in ("last", "crf", "inference")}
    for mode, folder in runs.items():
        train(crf, tiny_phantom, str(folder), mode=mode, base_checkpoint=str(base))
    images = {"dataset_dir": str(tiny_phantom), "ckpt_dir": "runs"}
    for mode in ("crf", "last"):
        parser = crf.workflow("inference", **images, mode=mode).parser
        assert Path(parser.get_parsed_content("checkpoint")) == runs[mode] / "model_best.pt"
    shutil.rmtree(runs["crf"])
    parser = crf.workflow("inference", **images).parser
    assert Path(parser.get_parsed_content("checkpoint")) == runs["last"] / "model_best.pt"
    assert "no run below runs was trained in mode crf" in caplog.text
