"""Every bundle trains, evaluates and predicts on a tiny data set, inside this process."""

import json
import multiprocessing.pool
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nnunet_ext.bundle.losses import LOSSES
from nnunet_ext.errors import UserError


def label_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_train_has_every_property(bundle, trained, workspace):
    assert bundle.workflow("train", **bundle.tiny, **trained.options).check_properties() == []


def test_evaluate_has_every_property(bundle, trained, workspace):
    assert bundle.workflow("train", "evaluate", **bundle.tiny, **trained.options).check_properties() == []


def test_inference_has_every_property(bundle, trained, workspace):
    options = {"dataset_dir": trained.options["dataset_dir"], "ckpt_dir": str(trained.ckpt_dir)}
    workflow = bundle.workflow("inference", workflow_type="infer", output_dir="predictions", **options)
    assert workflow.check_properties() == []


def test_training_leaves_best_and_last_model_with_their_description(trained):
    names = {path.name for path in trained.ckpt_dir.iterdir()}
    assert {"model_best.pt", "checkpoint_last.pt", "dataset.json", "plans.json", "tensorboard"} <= names
    weights = torch.load(trained.ckpt_dir / "model_best.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())


def test_training_writes_nothing_outside_its_folders(trained):
    assert {path.name for path in trained.folder.iterdir()} == {"bundles", "cache", "run"}


def test_tensorboard_holds_loss_metric_labels_and_pictures(trained):
    events = EventAccumulator(str(trained.ckpt_dir / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    scalars, images = events.Tags()["scalars"], events.Tags()["images"]
    assert "train_loss" in scalars
    assert "val_mean_dice" in scalars
    assert {f"dice/{name}" for name in ("esophagus", "heart", "trachea", "aorta")} <= set(scalars)
    assert len(images) == 1  # fold 0 of five cases validates one


def evaluate(bundle, trained, output_dir: str, **options) -> Path:
    bundle.run(
        *("train", "evaluate"),
        **{**bundle.tiny, **trained.options, "ckpt_dir": str(trained.ckpt_dir), "output_dir": output_dir, **options},
    )
    return Path(output_dir) / "validation"


def test_evaluation_predicts_the_validation_cases_of_the_fold(bundle, trained, workspace):
    from nnunet_ext.data import fold_cases, open_dataset

    predictions = evaluate(bundle, trained, "evaluated")
    fold = fold_cases(open_dataset(trained.options["dataset_dir"]), 0)
    assert sorted(path.name for path in predictions.glob("*.nii.gz")) == [f"{c.name}.nii.gz" for c in fold.val]
    for case in fold.val:
        image, label = nib.load(case.images[0]), nib.load(predictions / f"{case.name}.nii.gz")
        assert np.allclose(image.affine, label.affine, atol=1e-4)
        assert image.shape == label.shape


def test_evaluation_takes_canvas_and_normalisation_of_the_trained_model(bundle, trained, workspace):
    same = evaluate(bundle, trained, "same")
    other = evaluate(bundle, trained, "other", image_size=[64, 64], slice_axis=2)
    for path in same.glob("*.nii.gz"):
        assert np.array_equal(label_of(path), label_of(other / path.name))


@pytest.fixture
def varied(bundle, variation, tiny_phantom, workspace) -> dict:
    """The options of a tiny training with an overlay of settings of the bundle's own, which has run."""
    train, content = (json.loads((bundle.configs / f"{name}.json").read_text()) for name in ("train", variation))
    given = {**bundle.tiny, "tuning": train.get("tuning")}  # the demo trains all, as it starts from random weights
    options = {key: value for key, value in given.items() if key in train and key not in content}
    options |= {"dataset_dir": str(tiny_phantom), "cache_dir": "cache", "max_epochs": 1, "val_interval": 1}
    bundle.run("train", variation, **options, output_dir="varied")
    return options


def test_variation_trains_evaluates_and_predicts(bundle, variation, varied, workspace):
    content = json.loads((bundle.configs / f"{variation}.json").read_text())
    saved = json.loads(Path("varied/plans.json").read_text())["nnunet_ext"]["network_options"]
    chosen = content.keys() & saved.keys()
    assert {key: saved[key] for key in chosen} == {key: content[key] for key in chosen}
    for names in (("train", "evaluate"), ("train", variation, "evaluate")):
        bundle.run(*names, **varied, ckpt_dir="varied", output_dir="-".join(names))
    first, second = (sorted(Path(folder).glob("validation/*.nii.gz")) for folder in ("train-evaluate", "-".join(names)))
    assert len(first) == len(second) == 1
    assert np.array_equal(label_of(first[0]), label_of(second[0])), "evaluation takes the network of the checkpoint"
    options = {"dataset_dir": varied["dataset_dir"], "ckpt_dir": "varied", "output_dir": "predicted", "amp": False}
    bundle.run("inference", workflow_type="infer", **options)
    assert len(list(Path("predicted").glob("*.nii.gz"))) == 2


def test_bundle_trains_with_each_loss_that_it_names(bundle, tiny_phantom, workspace):
    default = bundle.train["loss_name"]
    options = {"dataset_dir": str(tiny_phantom), "cache_dir": "cache", **bundle.tiny}
    name = next(name for name in LOSSES if name != default)
    bundle.run("train", **options, loss_name=name, output_dir=name)
    assert Path(name, "model_best.pt").is_file()
    with pytest.raises(UserError, match=f"other settings .*loss_name: {name} -> {default}"):
        bundle.run("train", **options, loss_name=default, output_dir=name)


def test_variation_combines_with_the_demo(bundle, variation, tiny_phantom, workspace):
    demo = json.loads((bundle.configs / "demo.json").read_text())
    workflow = bundle.workflow("train", variation, "demo", dataset_dir=str(tiny_phantom), cache_dir="cache")
    assert workflow.check_properties() == []
    assert {key: workflow.parser.get_parsed_content(key) for key in demo} == demo


def predict(bundle, trained, output_dir: str, **options) -> Path:
    bundle.run(
        "inference",
        workflow_type="infer",
        **{
            "dataset_dir": trained.options["dataset_dir"],
            "ckpt_dir": str(trained.ckpt_dir),
            "output_dir": output_dir,
            "amp": False,
            **options,
        },
    )
    return Path(output_dir)


@pytest.fixture
def predictions(bundle, trained, workspace) -> Path:
    return predict(bundle, trained, "predictions", save_probabilities=True, save_logits=True)


def test_inference_writes_nnunets_prediction_folder(predictions, tiny_phantom):
    cases = ("thorax_005", "thorax_006")
    files = {f"{case}.{ending}" for case in cases for ending in ("nii.gz", "npz", "pkl")}
    assert {path.name for path in predictions.iterdir()} == files | {"dataset.json", "plans.json", "prediction.json"}
    for case in cases:
        image = sitk.ReadImage(str(tiny_phantom / "imagesTs" / f"{case}_0000.nii.gz"))
        label = sitk.ReadImage(str(predictions / f"{case}.nii.gz"))
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert np.allclose(getattr(image, name)(), getattr(label, name)(), atol=1e-4), name
        assert label.GetPixelID() == sitk.sitkUInt8
        with np.load(predictions / f"{case}.npz") as arrays:
            assert arrays["probabilities"].shape == arrays["logits"].shape == (5, 16, 32, 32)
            assert np.array_equal(arrays["logits"].argmax(0), sitk.GetArrayFromImage(label))
            assert np.abs(arrays["logits"]).max() < 6000


def test_inference_gives_the_same_twice(bundle, trained, predictions):
    again = predict(bundle, trained, "again", save_logits=True, batch_size=5)
    for path in again.glob("*.npz"):
        a, b = (np.load(folder / path.name)["logits"] for folder in (again, predictions))
        assert np.allclose(a, b, atol=1e-4)


def test_inference_skips_what_is_done(bundle, trained, predictions):
    (predictions / "thorax_005.nii.gz").unlink()
    kept = (predictions / "thorax_006.nii.gz").stat().st_mtime_ns
    predict(bundle, trained, str(predictions), save_probabilities=True, save_logits=True)
    assert (predictions / "thorax_005.nii.gz").is_file()
    assert (predictions / "thorax_006.nii.gz").stat().st_mtime_ns == kept
    predict(bundle, trained, str(predictions))  # with nothing left to do


def test_bad_case_is_named_and_the_rest_is_predicted(bundle, trained, workspace, tiny_phantom):
    shutil.copytree(tiny_phantom / "imagesTs", workspace / "images")
    (workspace / "images" / "thorax_005_0000.nii.gz").write_text("no image")
    with pytest.raises(UserError, match=r"1 case\(s\) failed, 1 predicted in predictions:\n  thorax_005: "):
        predict(bundle, trained, "predictions", images_dir="images")
    assert (workspace / "predictions" / "thorax_006.nii.gz").is_file()


def test_predictions_go_through_nnunets_ensemble(bundle, trained, predictions, monkeypatch, tiny_phantom):
    """The second member holds the truth with certainty, the first is nearly undecided: the truth must win."""
    from nnunetv2.ensembling.ensemble import ensemble_folders

    other = Path("other")
    shutil.copytree(predictions, other)
    for path in other.glob("*.npz"):
        truth = sitk.GetArrayFromImage(sitk.ReadImage(str(tiny_phantom / "labelsTs" / f"{path.stem}.nii.gz")))
        np.savez_compressed(path, probabilities=np.eye(5, dtype=np.float32)[truth].transpose(3, 0, 1, 2) * 3)
    # threads for nnU-Net's pool of processes: each new process would import torch for seconds
    pool = SimpleNamespace(Pool=multiprocessing.pool.ThreadPool)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _=None: pool)
    ensemble_folders([str(predictions), str(other)], "ensemble", save_merged_probabilities=True, num_processes=1)
    for case in ("thorax_005", "thorax_006"):
        merged, truth = (nib.load(f / f"{case}.nii.gz") for f in (Path("ensemble"), tiny_phantom / "labelsTs"))
        assert np.allclose(merged.affine, truth.affine, atol=1e-4)
        assert np.array_equal(np.asarray(merged.dataobj), np.asarray(truth.dataobj))


def test_metadata_describes_the_networks_input_and_output(bundle, trained, workspace):
    metadata = json.loads((bundle.configs / "metadata.json").read_text())["network_data_format"]
    workflow = bundle.workflow("train", **bundle.tiny, **trained.options)
    network = workflow.parser.get_parsed_content("network_def").eval()
    channels, classes = metadata["inputs"]["image"]["num_channels"], metadata["outputs"]["pred"]["num_channels"]
    size = (64,) * len(metadata["inputs"]["image"]["spatial_shape"])
    logits = network(torch.zeros(1, channels, *size))
    logits = logits[0] if isinstance(logits, list) else logits  # in training with deep supervision
    assert logits.shape == (1, classes, *size)
