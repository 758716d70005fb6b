"""Exported bundles at work in processes that can't see this repository, from a folder that is neither's."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from export_bundle import ROOT, export_bundle
from monai.bundle import ConfigWorkflow
from monai.data import get_track_meta, set_track_meta

from nnunet_ext.networks import ENet

# The project may be installed for development, so that leaving its folder doesn't hide it.
ISOLATION = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"nnunet_ext", "sam_lora", "evaluation"}:
            raise ModuleNotFoundError(f"{name} must not be imported by an exported bundle", name=name)

sys.meta_path.insert(0, Refuse())
"""

UPSTREAM_COMMAND = """
import runpy
sys.argv = ["monai.bundle", *sys.argv[1:]]
runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""

HOST = """
import json
from pathlib import Path
from monai.bundle import ckpt_export, create_workflow, verify_net_in_out

enet, second, images_dir = map(Path, sys.argv[1:])
sys.path += [str(enet), str(second)]
files = {"config_file": str(enet / "configs/inference.json"), "meta_file": str(enet / "configs/metadata.json")}
verify_net_in_out(net_id="network_def", device="cpu", any=40, **files)
ckpt_export(net_id="network_def", ckpt_file=str(enet / "models/model.pt"), filepath="model.ts", **files)
missing = {}
for folder in (enet, second):
    config_file = str(folder / "configs/inference.json")
    options = {"images_dir": str(images_dir), "output_dir": f"predictions/{folder.name}", "save_logits": True}
    workflow = create_workflow(config_file=config_file, workflow_type="infer", **options)
    missing[f"{folder.name} inference"] = workflow.check_properties()
    workflow.run()
    workflow.finalize()
options = {"dataset_dir": str(images_dir.parent), "fold": "all", "image_size": [64, 64], "num_workers": 0}
train = [str(second / "configs" / f"{part}.json") for part in ("train", "evaluate")]
for config_file in (train[:1], train):
    workflow = create_workflow(config_file=config_file, workflow_type="train", **options)
    missing[f"second {len(config_file)}"] = workflow.check_properties()
code = {name: str(module.__file__) for name, module in sys.modules.items() if "nnunet_ext" in name}
Path("report.json").write_text(json.dumps({"missing": missing, "code": code}))
"""


@pytest.fixture(scope="module")
def other_weights(make_weights):
    return make_weights(seed=2)


@pytest.fixture(scope="module")
def unzipped(weights, other_weights, tmp_path_factory):
    """Folder with ENet, exported under two names with different weights."""
    archives, folder = tmp_path_factory.mktemp("archives"), tmp_path_factory.mktemp("unzipped")
    for name, checkpoint in (("enet", weights), ("second", other_weights)):
        with zipfile.ZipFile(export_bundle("enet", archives / f"{name}.zip", checkpoint=checkpoint, name=name)) as file:
            file.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def repository_logits(weights, other_weights, images_dir, tmp_path_factory):
    """Logits of the repository's bundle, for both weights."""
    track_meta, search_path = get_track_meta(), list(sys.path)
    logits = {}
    for name, checkpoint in (("enet", weights), ("second", other_weights)):
        folder = tmp_path_factory.mktemp("expected")
        workflow = ConfigWorkflow(
            config_file=str(ROOT / "bundles" / "enet" / "configs" / "inference.json"),
            workflow_type="infer",
            logging_file=False,
            images_dir=str(images_dir),
            ckpt_dir=str(checkpoint),
            output_dir=str(folder),
            device=torch.device("cpu"),
            amp=False,
            save_logits=True,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
        logits[name] = read_logits(folder)
    set_track_meta(track_meta)
    sys.path[:] = search_path
    return logits


def read_logits(folder):
    (file,) = folder.glob("*.npz")
    return np.load(file)["logits"]


def run_isolated(code, arguments, cwd, **environment):
    """Run code in a process that cannot import the project and has no GPU, as the expected logits had none."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = {**inherited, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment}
    command = [sys.executable, "-P", "-c", ISOLATION + code, *map(str, arguments)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-6000:]
    return result.stdout + result.stderr


def test_upstream_command_runs_inference_from_any_folder(unzipped, images_dir, repository_logits, tmp_path):
    config_file = unzipped / "enet" / "configs" / "inference.json"
    arguments = ["run", "--config_file", config_file, "--images_dir", images_dir]
    run_isolated(UPSTREAM_COMMAND, [*arguments, "--output_dir", "predictions", "--save_logits", "True"], cwd=tmp_path)
    np.testing.assert_array_equal(read_logits(tmp_path / "predictions"), repository_logits["enet"])
    assert [path.name for path in tmp_path.iterdir()] == ["predictions"]


def test_two_bundles_work_in_one_process(unzipped, weights, images_dir, repository_logits, tmp_path):
    run_isolated(HOST, [unzipped / "enet", unzipped / "second", images_dir], cwd=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["missing"] == {"enet inference": [], "second inference": [], "second 1": [], "second 2": []}
    assert all(file.startswith(str(unzipped)) for file in report["code"].values()), report["code"]
    assert {"enet_bundle.nnunet_ext.networks.enet", "second_bundle.nnunet_ext.networks.enet"} <= set(report["code"])
    for name, expected in repository_logits.items():
        np.testing.assert_array_equal(read_logits(tmp_path / "predictions" / name), expected)
    assert not np.array_equal(repository_logits["enet"], repository_logits["second"])

    network, image = ENet(1, 5).eval(), torch.randn(2, 1, 40, 48)
    network.load_state_dict(torch.load(weights, weights_only=True))
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts").eval()(image), network(image))
