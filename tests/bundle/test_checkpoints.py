"""How weights are found and come into a network."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from nnunet_ext.bundle import find_checkpoint, load_checkpoint
from nnunet_ext.errors import UserError


def touch(path, seconds=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({}, path)
    os.utime(path, (seconds, seconds))
    return str(path)


def test_a_checkpoint_file_is_taken_as_it_is(tmp_path):
    file = touch(tmp_path / "any.pt")
    assert find_checkpoint(file) == file


def test_a_runs_folder_gives_its_best_model(tmp_path):
    file = touch(tmp_path / "run" / "model_best.pt", 1)
    touch(tmp_path / "run" / "older" / "model_best.pt", 2)
    assert find_checkpoint(tmp_path / "run") == file


def test_a_folder_of_runs_gives_the_newest_best_model(tmp_path):
    touch(tmp_path / "runs" / "b" / "fold_0" / "model_best.pt", 1)
    newest = touch(tmp_path / "runs" / "a" / "fold_1" / "model_best.pt", 2)
    touch(tmp_path / "runs" / "c" / "checkpoint_last.pt", 3)
    assert find_checkpoint(tmp_path / "runs") == newest


def test_a_run_of_the_same_data_set_comes_before_newer_ones(tmp_path, caplog):
    for seconds, name in ((1, "Dataset004_A"), (2, "Dataset005_B")):
        touch(tmp_path / name / "model_best.pt", seconds)
        (tmp_path / name / "plans.json").write_text(json.dumps({"dataset_name": name}))
    assert find_checkpoint(tmp_path, dataset_dir="data/Dataset004_A") == str(tmp_path / "Dataset004_A/model_best.pt")
    assert not caplog.text
    assert find_checkpoint(tmp_path, dataset_dir="data/other") == str(tmp_path / "Dataset005_B/model_best.pt")
    assert "no run was trained on other" in caplog.text


@pytest.mark.parametrize(
    ("trained_as", "written"),
    [
        *(("Dataset004_A", written) for written in (".", "../Dataset004_A/", "../linked", "../linked/")),
        *(("linked", written) for written in ("../linked", "../linked/")),
    ],
)
def test_a_data_set_is_known_however_its_folder_is_written(tmp_path, monkeypatch, caplog, trained_as, written):
    data, runs = tmp_path / "data" / "Dataset004_A", tmp_path / "runs"
    data.mkdir(parents=True)
    (tmp_path / "data" / "linked").symlink_to(data)
    for seconds, name in ((1, trained_as), (2, "Dataset005_B")):
        touch(runs / name / "model_best.pt", seconds)
        (runs / name / "plans.json").write_text(json.dumps({"dataset_name": name}))
    monkeypatch.chdir(data)
    assert find_checkpoint(runs, dataset_dir=written) == str(runs / trained_as / "model_best.pt")
    assert not caplog.text


def test_the_packaged_model_is_taken_when_there_is_no_run(tmp_path):
    packaged = touch(tmp_path / "bundle" / "models" / "model.pt")
    assert find_checkpoint(tmp_path / "runs", tmp_path / "bundle") == packaged


@pytest.mark.parametrize(
    ("content", "reason"), [(b"hello, not weights", "it is damaged, or no file of torch.save"), (b"", "it is damaged")]
)
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path, content, reason):
    file = tmp_path / "model_best.pt"
    file.write_bytes(content)
    for place in (file, tmp_path):
        with pytest.raises(UserError, match=rf"ckpt_dir: .*model_best\.pt: must be a state dict.*\({reason}"):
            find_checkpoint(place)


def test_no_checkpoint_is_an_error_that_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(UserError, match="train first") as error:
        find_checkpoint(tmp_path / "runs", tmp_path / "bundle")
    assert str(tmp_path / "runs") in str(error.value)
    assert str(tmp_path / "bundle" / "models" / "model.pt") in str(error.value)


def adapter(run, seconds=1):
    return str(Path(touch(run / "adapter" / "adapter_model.safetensors", seconds)).parent)


def test_an_adapter_is_the_runs_best_model_where_no_whole_one_is(tmp_path):
    folder = adapter(tmp_path / "run")
    assert find_checkpoint(tmp_path / "run") == find_checkpoint(folder) == folder
    whole = touch(tmp_path / "run" / "model_best.pt", 0)
    assert find_checkpoint(tmp_path / "run") == whole


def test_adapters_and_whole_models_are_chosen_by_age_and_data_set(tmp_path):
    touch(tmp_path / "a" / "model_best.pt", 1)
    newest = adapter(tmp_path / "b", 2)
    assert find_checkpoint(tmp_path) == newest
    touch(tmp_path / "c" / "model_best.pt", 3)
    for name in "abc":
        (tmp_path / name / "plans.json").write_text(json.dumps({"dataset_name": f"Dataset004_{name}"}))
    assert find_checkpoint(tmp_path, dataset_dir="data/Dataset004_b") == newest


def test_a_packaged_adapter_is_taken_when_there_is_no_run(tmp_path):
    packaged = adapter(tmp_path / "bundle" / "models")
    assert find_checkpoint(tmp_path / "runs", tmp_path / "bundle") == packaged


def test_an_adapter_is_refused_by_a_network_that_has_none(tmp_path):
    with pytest.raises(UserError, match="is an adapter; Linear takes whole models only"):
        load_checkpoint(nn.Linear(2, 2), adapter(tmp_path))


@pytest.mark.parametrize("nested", [False, True])
def test_a_whole_model_is_loaded_strictly(tmp_path, nested):
    network, other = nn.Linear(2, 2), nn.Linear(2, 2)
    state = network.state_dict()
    torch.save({"network": state, "epoch": 3} if nested else state, tmp_path / "model.pt")
    load_checkpoint(other, tmp_path / "model.pt")
    assert torch.equal(other.weight, network.weight)
    with pytest.raises(UserError, match=r"model.pt: must be the weights of this network \(Conv2d\)"):
        load_checkpoint(nn.Conv2d(2, 2, 3), tmp_path / "model.pt")


def test_a_run_without_its_description_is_left_out_with_a_warning(tmp_path, caplog):
    touch(tmp_path / "a" / "model_best.pt", 1)
    (tmp_path / "a" / "plans.json").write_text(json.dumps({"dataset_name": "Dataset004_A"}))
    adapter(tmp_path / "b", 2)
    assert find_checkpoint(tmp_path, dataset_dir="data/Dataset004_A") == str(tmp_path / "a" / "model_best.pt")
    assert "b is left out: it has no plans.json" in caplog.text


def test_inside_an_adapter_folder_its_name_is_still_known(tmp_path, monkeypatch):
    folder = adapter(tmp_path / "run")
    monkeypatch.chdir(folder)
    assert find_checkpoint(".") == folder
