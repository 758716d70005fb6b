"""An exported CRF carries the network that it refines: its weights, and its code."""

import json
import sys
import zipfile

import numpy as np
import pytest
import torch
from base_files import write_enet_run
from export_bundle import ROOT, export_bundle
from monai.bundle import ConfigWorkflow
from monai.data import get_track_meta, set_track_meta
from test_export_runs import UPSTREAM_COMMAND, read_logits, run_isolated

from nnunet_ext.bundle import ModelCard, read_model_card
from nnunet_ext.networks import build_network

BASES = {
    "enet": {},
    "genesisunet3d": {"base_channels": 4, "patch_depth": 16},
    "samed": {"variant": "small", "tuning": "lora", "lora_rank": 2},
}
"""What the bundles write into the description of a model."""

BUILT_WITH = {
    "genesisunet3d": {"spatial_dims": 3, "base_channels": 4},
    "samed": {"variant": "small", "image_size": (64, 64), "rank": 2},
}


@pytest.fixture(scope="module", params=sorted(BASES))
def base(request, images_dir, tmp_path_factory):
    """A trained network on the data set of the images."""
    run = write_enet_run(images_dir.parent, (64, 64))
    if request.param == "enet":
        return run / "model_best.pt"
    folder, options = tmp_path_factory.mktemp(request.param), BASES[request.param]
    card = read_model_card(run / "model_best.pt")
    card = ModelCard(card.dataset_json, card.dataset_name, card.preprocessing, card.image_size, options)
    card.write(folder)
    torch.manual_seed(4)
    network = build_network(request.param, 1, card.num_outputs, **BUILT_WITH[request.param])
    torch.save(network.state_dict(), folder / "model_best.pt")
    return folder / "model_best.pt"


@pytest.fixture(scope="module")
def untrained(base, images_dir, tmp_path_factory):
    """The output of mode inference: the whole model, and the logits of the repository's bundle."""
    folder, track_meta, search_path = tmp_path_factory.mktemp("untrained"), get_track_meta(), list(sys.path)
    workflow = ConfigWorkflow(
        config_file=str(ROOT / "bundles" / "crf" / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        images_dir=str(images_dir),
        mode="inference",
        base_checkpoint=str(base),
        crf_options={"appearance_weight": 0.5},
        output_dir=str(folder),
        device=torch.device("cpu"),
        amp=False,
        save_logits=True,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    set_track_meta(track_meta)
    sys.path[:] = search_path
    return folder


def test_export_runs_on_its_own_with_the_code_of_its_base(base, untrained, images_dir, tmp_path):
    archive = export_bundle("crf", tmp_path / "crf.zip", checkpoint=untrained / "untrained" / "model.pt")
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path)
    key = json.loads((tmp_path / "crf/models/plans.json").read_text())["nnunet_ext"]["network_options"]["base"]
    modules = {path.stem for path in tmp_path.glob("crf/crf_bundle/*/networks/*.py")}
    assert key in modules
    assert not {"enet", "samed", "sam2unet", "genesisunet3d"} - {key} & modules
    (tmp_path / "elsewhere").mkdir()
    arguments = ["run", "--config_file", tmp_path / "crf/configs/inference.json", "--images_dir", images_dir]
    arguments += ["--output_dir", "predictions", "--save_logits", "True"]
    run_isolated(UPSTREAM_COMMAND, arguments, cwd=tmp_path / "elsewhere")
    np.testing.assert_array_equal(read_logits(tmp_path / "elsewhere/predictions"), read_logits(untrained))
