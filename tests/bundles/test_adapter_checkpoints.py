"""Runs whose best model is an adapter alone: they evaluate, predict and continue as those with whole models do."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from base_files import write_base_file
from test_bundle_resume import assert_equal_states, state, train

from nnunet_ext.errors import UserError


@pytest.fixture
def bundle(adaptable):
    return adaptable


@pytest.fixture
def trained(adapted):
    return adapted


@pytest.fixture
def moved_base(base_file):
    """The base file is elsewhere for the time of a test."""
    elsewhere = base_file.with_name("elsewhere") / "renamed.pt"
    elsewhere.parent.mkdir(exist_ok=True)
    base_file.rename(elsewhere)
    yield elsewhere
    elsewhere.rename(base_file)


def predict(bundle, trained, ckpt_dir, output_dir, **options) -> dict[str, np.ndarray]:
    options |= {"dataset_dir": trained.options["dataset_dir"], "output_dir": output_dir, "save_logits": True}
    bundle.run("inference", workflow_type="infer", ckpt_dir=str(ckpt_dir), amp=False, **options)
    return read_logits(output_dir)


def read_logits(folder) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path)["logits"] for path in sorted(Path(folder).glob("*.npz"))}


def assert_equal_logits(a, b) -> None:
    assert a.keys() == b.keys() != set()
    for case, logits in a.items():
        np.testing.assert_array_equal(logits, b[case])


def test_run_leaves_no_whole_best_model(trained):
    names = {path.name for path in trained.ckpt_dir.iterdir()}
    assert {"adapter", "checkpoint_last.pt", "dataset.json", "plans.json"} <= names
    assert "model_best.pt" not in names


def test_inference_from_the_run_equals_that_of_the_whole_model(bundle, trained, workspace):
    whole = predict(bundle, trained, trained.ckpt_dir / "checkpoint_last.pt", "whole")
    assert_equal_logits(predict(bundle, trained, trained.ckpt_dir, "adapted"), whole)


def test_evaluation_of_the_run_predicts_and_explains(bundle, trained, workspace):
    options = {**bundle.tiny, **trained.options, "ckpt_dir": str(trained.ckpt_dir), "save_logits": True}
    bundle.run("train", "evaluate", **{**options, "output_dir": "adapted", "explain": True})
    bundle.run(
        "train", "evaluate", **{**options, "output_dir": "whole", "ckpt_dir": f"{trained.ckpt_dir}/checkpoint_last.pt"}
    )
    logits = [
        {path.stem: np.load(path)["logits"] for path in Path(f"{run}/validation").glob("*.npz")}
        for run in ("adapted", "whole")
    ]
    assert_equal_logits(*logits)
    assert {path.stem for path in Path("adapted/explanations").glob("*.png")} == logits[0].keys()


def test_moved_base_file_is_an_error_that_says_what_to_do(bundle, trained, moved_base, workspace):
    with pytest.raises(UserError, match=r"base\.pt \(SHA-256 .*missing; .*--pretrained FILE, or fetch it: .*download"):
        predict(bundle, trained, trained.ckpt_dir, "predictions")


def test_moved_base_file_can_be_named(bundle, trained, moved_base, workspace):
    whole = predict(bundle, trained, trained.ckpt_dir / "checkpoint_last.pt", "whole")
    assert_equal_logits(predict(bundle, trained, trained.ckpt_dir, "adapted", pretrained=str(moved_base)), whole)
    options = {**bundle.tiny, **trained.options, "pretrained": str(moved_base), "output_dir": "evaluated"}
    bundle.run("train", "evaluate", **{**options, "ckpt_dir": str(trained.ckpt_dir)})
    assert list(Path("evaluated/validation").glob("*.nii.gz"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained": "none"}, "adapter needs frozen weights that came from a file.*--checkpoint_content whole"),
        ({"tuning": "all"}, "nothing is frozen"),
        ({"checkpoint_content": "half"}, "must be whole or adapter, got 'half'"),
    ],
)
def test_what_could_not_be_restored_is_refused_at_the_start(bundle, trained, workspace, changes, message):
    options = {**bundle.tiny, **trained.options, "output_dir": "run", **changes}
    with pytest.raises(UserError, match=f"checkpoint_content: .*{message}"):
        bundle.run("train", **options)
    assert not list(Path("run").glob("*.pt"))


def test_run_does_not_continue_on_another_base_file(bundle, trained, workspace):
    shutil.copytree(trained.ckpt_dir, "run")
    other = write_base_file(bundle.name, Path("other.pt"), seed=8)
    options = {**bundle.tiny, **trained.options, "output_dir": "run", "max_epochs": 2, "pretrained": str(other)}
    with pytest.raises(UserError, match=r"frozen weights came from a file of SHA-256 .*the same --pretrained"):
        bundle.run("train", **options)


def test_interrupted_run_ends_with_the_same_weights(bundle, base_file, workspace, tiny_phantom):
    options = {"checkpoint_content": "adapter", "pretrained": str(base_file), "max_epochs": 2}
    train(bundle, tiny_phantom, "whole", **options)
    train(bundle, tiny_phantom, "parts", interrupt_at=5, **options)
    train(bundle, tiny_phantom, "parts", **options)
    assert_equal_states(state("whole"), state("parts"))
    weights = [Path(run, "adapter", "adapter_model.safetensors").read_bytes() for run in ("whole", "parts")]
    assert weights[0] == weights[1]
