"""Every folder of bundles/, and a way to run its configurations inside this process on a tiny data set."""

import contextlib
import json
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

import monai
import pytest
import torch
from base_files import write_base_file, write_enet_run
from monai.bundle import ConfigWorkflow

from nnunet_ext.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.name for path in (REPOSITORY / "bundles").iterdir() if (path / "configs").is_dir())
CONFIGS = [
    (name, path.stem)
    for name in BUNDLES
    for path in sorted((REPOSITORY / "bundles" / name / "configs").glob("*.json"))
    if path.stem != "metadata"
]
OVERLAYS = [(name, config) for name, config in CONFIGS if config not in ("train", "inference")]
WORKFLOWS = ("demo", "evaluate", "multi_gpu_train", "pretrain", "multi_gpu_pretrain")
VARIATIONS = [pair for pair in OVERLAYS if pair[1] not in WORKFLOWS]

TINY = {
    "max_epochs": 1,
    "iterations_per_epoch": 10,
    "batch_size": 2,
    "image_size": [32, 32],
    "val_interval": 1,
    "num_workers": 0,
    "amp": False,
}


class Bundle:
    """A bundle's files, and its workflows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root = REPOSITORY / "bundles" / name
        self.configs = self.root / "configs"
        self.train = json.loads((self.configs / "train.json").read_text())
        demo = json.loads((self.configs / "demo.json").read_text())
        demo.pop("output_dir")
        self.tiny = MappingProxyType({**demo, **TINY})
        """Overrides for a training of seconds: the demo's small network, and less of everything."""
        self.small = {key: demo[key] for key in ("variant", "base_channels") if key in demo}
        """Overrides for a small network that is trained as `train.json` says."""

    def files(self, *names: str) -> list[str]:
        """Return the paths that people type: those of the links at the bundle's root."""
        return [f"bundles/{self.name}/{name}.json" for name in names]

    def with_base(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Add a trained network to what a training is told, for a bundle that refines one; it has random weights."""
        if "base_checkpoint" not in self.train or "base_checkpoint" in overrides or "dataset_dir" not in overrides:
            return overrides
        base = write_enet_run(overrides["dataset_dir"], overrides.get("image_size", (32, 32)))
        return {**overrides, "base_checkpoint": str(base)}

    def workflow(self, *names: str, workflow_type: str = "train", **overrides: Any) -> ConfigWorkflow:
        """Initialize a workflow of some configurations; nothing has run yet."""
        overrides = self.with_base(overrides) if workflow_type == "train" else overrides
        workflow = ConfigWorkflow(
            config_file=self.files(*names), logging_file=False, workflow_type=workflow_type, **overrides
        )
        workflow.initialize()
        return workflow

    def run(self, *names: str, workflow_type: str = "train", **overrides: Any) -> ConfigWorkflow:
        """Run a workflow from initialize to finalize."""
        with self.readable_errors():
            workflow = self.workflow(*names, workflow_type=workflow_type, **overrides)
            workflow.run()
            workflow.finalize()
        return workflow

    @staticmethod
    @contextlib.contextmanager
    def readable_errors():
        """Raise the error of the user behind "Failed to evaluate ConfigExpression", as the command prints it."""
        try:
            yield
        except RuntimeError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, UserError):
                cause = cause.__cause__
            raise cause or error from error


@contextlib.contextmanager
def restored_process():
    """Restore what a workflow changes for the whole process."""
    track_meta, path, threads = monai.data.get_track_meta(), list(sys.path), torch.get_num_threads()
    generator = torch.get_rng_state()
    try:
        yield
    finally:
        monai.data.set_track_meta(track_meta)
        monai.utils.set_determinism(None)
        sys.path[:] = path
        torch.set_num_threads(threads)
        torch.set_rng_state(generator)


@contextlib.contextmanager
def working_directory(folder: Path):
    """Work in a folder that looks like the repository's root, and collects what bundles write by default."""
    (folder / "bundles").symlink_to(REPOSITORY / "bundles")
    with contextlib.chdir(folder), restored_process():
        yield folder


def pytest_generate_tests(metafunc) -> None:
    """Give each test every bundle, and one that asks for such a file of a bundle every one of each."""
    for argument, pairs in (("config_name", CONFIGS), ("overlay", OVERLAYS), ("variation", VARIATIONS)):
        if argument in metafunc.fixturenames:
            ids = ["-".join(pair) for pair in pairs]
            metafunc.parametrize(("bundle", argument), pairs, indirect=["bundle"], ids=ids, scope="session")
            return
    if "bundle" in metafunc.fixturenames:
        metafunc.parametrize("bundle", BUNDLES, indirect=True, scope="session")


@pytest.fixture(scope="session")
def bundle(request) -> Bundle:
    """Each bundle of the repository."""
    return Bundle(request.param)


@pytest.fixture(scope="session")
def bundle_of():
    """Return the bundle of a name."""
    return Bundle


@pytest.fixture(scope="session")
def genesis() -> Bundle:
    """The bundle with a pre-training."""
    return Bundle("models_genesis")


@pytest.fixture
def workspace(tmp_path):
    """The working directory of a test that runs workflows."""
    with working_directory(tmp_path) as folder:
        yield folder


class Trained:
    """A finished tiny training."""

    def __init__(self, folder: Path, dataset_dir: Path) -> None:
        self.folder = folder
        self.options = {
            "dataset_dir": str(dataset_dir),
            "output_dir": str(folder / "run"),
            "cache_dir": str(folder / "cache"),
        }
        self.ckpt_dir = folder / "run"


@pytest.fixture(scope="session")
def trained(bundle, tiny_phantom, tmp_path_factory) -> Trained:
    """The bundle, trained for ten iterations; read only."""
    folder = tmp_path_factory.mktemp(f"trained_{bundle.name}")
    run = Trained(folder, tiny_phantom)
    with working_directory(folder):
        bundle.run("train", **bundle.tiny, **run.options)
    return run


@pytest.fixture(scope="session", params=[name for name in BUNDLES if "checkpoint_content" in Bundle(name).train])
def adaptable(request) -> Bundle:
    """Each bundle that can leave frozen weights out, in a small size, with the tuning of its train.json."""
    bundle = Bundle(request.param)
    changes = {"tuning": bundle.train["tuning"], "iterations_per_epoch": 3}
    bundle.tiny = MappingProxyType({**bundle.tiny, **changes})
    return bundle


@pytest.fixture(scope="session")
def base_file(adaptable, tmp_path_factory) -> Path:
    """The weights that its small network starts from."""
    return write_base_file(adaptable.name, tmp_path_factory.mktemp("base") / "base.pt")


@pytest.fixture(scope="session")
def adapted(adaptable, base_file, tiny_phantom, tmp_path_factory) -> Trained:
    """One epoch with adapters as checkpoints, so that best and last weights are the same; read only."""
    folder = tmp_path_factory.mktemp(f"adapted_{adaptable.name}")
    run = Trained(folder, tiny_phantom)
    run.options |= {"pretrained": str(base_file), "checkpoint_content": "adapter"}
    with working_directory(folder):
        adaptable.run("train", **{**adaptable.tiny, **run.options})
    return run
