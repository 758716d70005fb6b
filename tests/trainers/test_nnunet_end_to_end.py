"""Training, resuming, validating, predicting and comparing by nnU-Net's own functions and commands."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from nnunet_ext.trainers.CustomTrainer import CustomTrainer

SHORT = ("iterations_per_epoch=2", "val_iterations_per_epoch=1", "batch_size=4")
ENET = ("network=enet", "network.input_scale=1", "optimizer=adam", "learning_rate=0.001")


def load(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=False)


@pytest.fixture(scope="module")
def trained_once(planned, tmp_path_factory):
    """Three models of fold 0: two configurations of CustomTrainer, and one of them by the preset."""
    folders = planned.copy(tmp_path_factory.mktemp("trained"))
    with folders.active():
        folders.configure("2d_a", "epochs=2", *SHORT, *ENET)
        folders.configure("2d_b", "epochs=1", *SHORT, *ENET, "mirror=false")
        folders.train("CustomTrainer", "2d_a", export_validation_probabilities=True)
        folders.train("CustomTrainer", "2d_b", export_validation_probabilities=True)
        folders.train("nnUNetTrainerENet", "2d_b", export_validation_probabilities=True)
    return folders


@pytest.fixture
def trained(trained_once):
    with trained_once.active():
        yield trained_once


def test_validation_writes_probabilities_and_the_model_its_options(trained):
    model = trained.model("CustomTrainer", "2d_a")
    saved = json.loads((model / "plans.json").read_text())["configurations"]["2d_a"]
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    probabilities = sorted((model / "fold_0" / "validation").glob("*.npz"))
    assert saved["nnunet_ext"]["network_options"]["input_scale"] == 1
    assert len(summary["metric_per_case"]) == len(probabilities) > 0
    assert np.load(probabilities[0])["probabilities"].shape[0] == 3


def test_validation_can_be_repeated(trained):
    validation = trained.model("CustomTrainer", "2d_a") / "fold_0" / "validation"
    before = json.loads((validation / "summary.json").read_text())["foreground_mean"]
    for path in validation.iterdir():
        path.unlink()
    trained.train("CustomTrainer", "2d_a", only_run_validation=True, export_validation_probabilities=True)
    assert json.loads((validation / "summary.json").read_text())["foreground_mean"] == pytest.approx(before)


def test_prediction_writes_labels_and_probabilities_that_nnunet_evaluates(trained, tmp_path):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(trained.model("CustomTrainer", "2d_a")), (0,))
    images, references = (trained.raw / "Dataset990_Cubes" / name for name in ("imagesTs", "labelsTs"))
    predictor.predict_from_files_sequential(str(images), str(tmp_path), save_probabilities=True)
    assert predictor.network.input_scale == 1
    reference = sitk.ReadImage(str(references / "cube_05.nii.gz"))
    prediction = sitk.ReadImage(str(tmp_path / "cube_05.nii.gz"))
    probabilities = np.load(tmp_path / "cube_05.npz")["probabilities"]
    assert prediction.GetSize() == reference.GetSize()
    assert prediction.GetSpacing() == reference.GetSpacing()
    np.testing.assert_array_equal(probabilities.argmax(0), sitk.GetArrayFromImage(prediction))
    dataset_json, plans_json = str(tmp_path / "dataset.json"), str(tmp_path / "plans.json")
    summary = tmp_path / "summary.json"
    compute_metrics_on_folder2(str(references), str(tmp_path), dataset_json, plans_json, str(summary), num_processes=1)
    assert set(json.loads(summary.read_text())["mean"]) == {"1", "2"}


@pytest.mark.parametrize(
    ("trainers", "configurations"),
    [(["CustomTrainer"], ["2d_a", "2d_b"]), (["CustomTrainer", "nnUNetTrainerENet"], ["2d_b"])],
)
def test_nnunet_finds_the_best_of_several(trained, trainers, configurations):
    from nnunetv2.evaluation.find_best_configuration import (
        dumb_trainer_config_plans_to_trained_models_dict,
        find_best_configuration,
    )

    models = dumb_trainer_config_plans_to_trained_models_dict(trainers, configurations, ["nnUNetPlans"])
    result = find_best_configuration("Dataset990_Cubes", models, folds=(0,), num_processes=1)
    assert len(result["all_results"]) == 3  # two models and their ensemble


def test_an_interrupted_training_continues(folders):
    folders.configure("2d_long", "epochs=4", "schedule=constant", "warmup_epochs=3", *SHORT, *ENET)
    folders.interrupt("2d_long", epoch=2)
    fold = folders.model("CustomTrainer", "2d_long") / "fold_0"
    interrupted = load(fold / "checkpoint_latest.pth")
    assert interrupted["current_epoch"] == 2

    folders.train("CustomTrainer", "2d_long", continue_training=True)
    finished = load(fold / "checkpoint_final.pth")
    log, earlier = finished["logging"], interrupted["logging"]
    assert finished["current_epoch"] == 4
    assert log["lrs"] == pytest.approx([0.00025, 0.0005, 0.00075, 0.001])  # 0.001 * (epoch + 1) / (3 + 1)
    assert log["train_losses"][:2] == earlier["train_losses"]
    assert not (fold / "checkpoint_latest.pth").exists()
    assert finished["optimizer_state"]["state"][0]["step"] == 8  # 4 epochs of 2 iterations


def test_the_command_nnunetv2_train_finds_and_trains_the_preset(folders):
    folders.configure("2d_a", "epochs=1", *SHORT, *ENET)
    folders.run_command("nnUNetv2_train 990 2d_a 0 -tr nnUNetTrainerENet -device cpu", workers=0)
    assert (folders.model("nnUNetTrainerENet", "2d_a") / "fold_0" / "checkpoint_final.pth").is_file()


@pytest.mark.slow
def test_all_commands_of_nnunet(raw_folders, tmp_path):
    run, dataset_dir = raw_folders.run_command, raw_folders.raw / "Dataset990_Cubes"
    run("nnUNetv2_plan_and_preprocess -d 990 -c 2d -npfp 1 -np 1")
    for name in ("2d_a", "2d_b"):
        settings = " ".join(("epochs=2", *SHORT, *ENET))
        run(f"{Path(sys.executable).name} -m nnunet_ext configure -d 990 -c 2d --name {name} --set {settings}")
        for more in ("--npz", "--npz --c", "--npz --val"):
            run(f"nnUNetv2_train 990 {name} 0 -tr CustomTrainer -device cpu {more}")
    output = tmp_path / "predictions"
    model = "-d 990 -c 2d_a -f 0 -tr CustomTrainer -device cpu -npp 1 -nps 1 --save_probabilities"
    run(f"nnUNetv2_predict -i {dataset_dir / 'imagesTs'} -o {output} {model}")
    files = f"-djfile {output / 'dataset.json'} -pfile {output / 'plans.json'} -np 1"
    run(f"nnUNetv2_evaluate_folder {dataset_dir / 'labelsTs'} {output} {files}")
    best = run("nnUNetv2_find_best_configuration 990 -c 2d_a 2d_b -tr CustomTrainer -f 0 -np 1")
    assert "***All results:***" in best
    assert (output / "cube_05.npz").is_file()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", ["t", "f"])
def test_training_runs_on_cuda_with_and_without_compile(folders, monkeypatch, compiled):
    monkeypatch.setenv("nnUNet_compile", compiled)
    folders.configure("2d_cuda", "epochs=1", "gradient_clip=1", *SHORT, *ENET)
    trainer = folders.trainer(CustomTrainer, "2d_cuda", device="cuda")
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("train_losses", step=-1))
