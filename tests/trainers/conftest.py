"""A tiny data set in nnU-Net's folders, planned and preprocessed once by nnU-Net itself."""

import json
import multiprocessing.pool
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from nnunet_ext.configure import configure
from nnunet_ext.options import parse_settings

REPOSITORY = Path(__file__).resolve().parents[2]
DATASET = "Dataset990_Cubes"
ENVIRONMENT = {
    "nnUNet_extTrainer": str(REPOSITORY / "nnunet_ext" / "trainer_path"),
    "nnUNet_n_proc_DA": "0",
    "nnUNet_def_n_proc": "1",
    "nnUNet_compile": "f",
}


class NnunetFolders:
    """nnU-Net's three folders, and shortcuts to what the tests do with them."""

    def __init__(self, root: Path) -> None:
        self.raw, self.preprocessed, self.results = (root / name for name in ("raw", "preprocessed", "results"))
        for folder in (self.raw, self.preprocessed, self.results):
            folder.mkdir(parents=True, exist_ok=True)
        self.plans_path = self.preprocessed / DATASET / "nnUNetPlans.json"

    @property
    def environment(self) -> dict[str, str]:
        folders = {"raw": self.raw, "preprocessed": self.preprocessed, "results": self.results}
        return {**{f"nnUNet_{name}": str(path) for name, path in folders.items()}, **ENVIRONMENT}

    def copy(self, root: Path) -> "NnunetFolders":
        copy = NnunetFolders(root / "nnunet")
        shutil.copytree(self.raw, copy.raw, dirs_exist_ok=True)
        shutil.copytree(self.preprocessed, copy.preprocessed, dirs_exist_ok=True)
        return copy

    @contextmanager
    def active(self) -> Iterator[None]:
        """Set nnU-Net's environment to these folders, and let its process pools be thread pools.

        Each new process would import torch for seconds. Torch gets one thread: the tensors are tiny.
        """
        import torch

        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        pools = SimpleNamespace(Pool=multiprocessing.pool.ThreadPool)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(multiprocessing, "get_context", lambda _=None: pools)
            yield
        torch.set_num_threads(num_threads)

    def plans(self) -> dict:
        return json.loads(self.plans_path.read_text())

    def dataset_json(self) -> dict:
        return json.loads((self.preprocessed / DATASET / "dataset.json").read_text())

    def configure(self, name: str, *settings: str, configuration: str = "2d", **options) -> dict:
        return dict(configure("990", configuration, name, parse_settings(settings), **options).entry)

    def model(self, trainer: str, configuration: str) -> Path:
        return self.results / DATASET / f"{trainer}__nnUNetPlans__{configuration}"

    def trainer(self, trainer_class: type, configuration: str = "2d", plans: dict | None = None, device="cpu", fold=0):
        import torch

        plans = {**(plans or self.plans()), "continue_training": False}
        return trainer_class(plans, configuration, fold, self.dataset_json(), torch.device(device))

    def train(self, trainer: str, configuration: str, **kwargs) -> None:
        import torch
        from nnunetv2.run.run_training import run_training

        run_training("990", configuration, 0, trainer, device=torch.device("cpu"), **kwargs)

    def interrupt(self, configuration: str, epoch: int) -> None:
        """Train as `CustomTrainer` does, and press Ctrl-C after some epochs."""
        from nnunet_ext.trainers.CustomTrainer import CustomTrainer

        finish_epoch = CustomTrainer.on_epoch_end

        def stop(trainer):
            finish_epoch(trainer)
            if trainer.current_epoch == epoch:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(CustomTrainer, "on_epoch_end", stop)
            self.train("CustomTrainer", configuration)

    def run_command(self, command: str, workers: int = 1) -> str:
        """Run an installed command in a process of its own; return what it printed."""
        program, *words = command.split()
        # passive waiting: the threads of two processes would spin against each other on small machines
        more = {"nnUNet_n_proc_DA": str(workers), "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(
            [str(Path(sys.executable).parent / program), *words],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment, **more},
            cwd=self.raw,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def write_cubes(dataset_dir: Path, num_training: int = 5, num_test: int = 1) -> None:
    """Write noisy cubes of two labels in two channels, nnU-Net raw."""
    generator = np.random.default_rng(0)
    for index in range(num_training + num_test):
        split = "Tr" if index < num_training else "Ts"
        label = np.zeros((6, 40, 36), np.uint8)
        for value in (1, 2):
            row, column = generator.integers(2, 24, 2)
            label[1:5, row : row + 10, column : column + 10] = value
        for channel in range(2):
            image = label * (50.0 + 30 * channel) + generator.normal(0, 10, label.shape)
            write_image(
                image.astype(np.float32), dataset_dir / f"images{split}" / f"cube_{index:02d}_{channel:04d}.nii.gz"
            )
        write_image(label, dataset_dir / f"labels{split}" / f"cube_{index:02d}.nii.gz")
    content = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "left": 1, "right": 2},
        "numTraining": num_training,
        "file_ending": ".nii.gz",
    }
    (dataset_dir / "dataset.json").write_text(json.dumps(content))


def write_image(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 3.0))
    sitk.WriteImage(image, str(path))


@pytest.fixture(scope="session")
def planned(tmp_path_factory) -> NnunetFolders:
    """The tiny data set, planned and preprocessed; read only."""
    folders = NnunetFolders(tmp_path_factory.mktemp("nnunet"))
    write_cubes(folders.raw / DATASET)
    with pytest.MonkeyPatch.context() as patch, folders.active():
        patch.setenv("nnUNet_n_proc_DA", "1")  # the planner sets torch's threads to it

        from nnunetv2.experiment_planning.plan_and_preprocess_api import (
            extract_fingerprints,
            plan_experiments,
            preprocess,
        )

        extract_fingerprints([990], num_processes=1, check_dataset_integrity=True)
        plan_experiments([990])
        preprocess([990], configurations=("2d", "3d_fullres"), num_processes=(1, 1))
    return folders


@pytest.fixture
def raw_folders(tmp_path) -> NnunetFolders:
    """The tiny data set as it was before planning, for the real commands."""
    folders = NnunetFolders(tmp_path / "nnunet")
    write_cubes(folders.raw / DATASET)
    return folders


@pytest.fixture
def folders(planned, tmp_path) -> Iterator[NnunetFolders]:
    """A copy of the planned data set that the test may change, with nnU-Net's environment set."""
    copy = planned.copy(tmp_path)
    with copy.active():
        yield copy


@pytest.fixture
def partial_folders(folders):
    """The cubes, of which nobody annotated `right` in every second case."""
    for root in (folders.raw, folders.preprocessed):
        file = next(root.glob("*/dataset.json"))
        content = json.loads(file.read_text())
        content["unannotated_labels"] = {f"cube_{number:02d}": ["right"] for number in (0, 2, 4)}
        file.write_text(json.dumps(content))
    return folders
