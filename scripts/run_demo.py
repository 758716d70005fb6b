"""The demo: one method, both upstream runners, the same phantom folds, one evaluation, one table."""

import argparse
import csv
import hashlib
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

from nnunet_ext.data.phantom import write_phantom

DATASET = "Dataset900_ThoraxPhantom"
TRAINER = "nnUNetTrainerENet"
SETTINGS = ["network=enet", "epochs=14", "iterations_per_epoch=25", "val_iterations_per_epoch=2", "batch_size=8"]
SETTINGS += ["mirror=false"]
FOLD = 0


def main() -> int:
    """Run all steps; a step whose result exists is skipped.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder of everything the demo makes")
    root = parser.parse_args().output.resolve()
    start = time.monotonic()
    try:
        demo = Demo(root)
        demo.make_data()
        predictions = {"ENet (monai.bundle)": demo.run_bundle(), "ENet (nnU-Net)": demo.run_nnunet()}
        scores = {method: demo.score(folder) for method, folder in predictions.items()}
    except subprocess.CalledProcessError as error:
        print(f"\nthis step failed (exit code {error.returncode}): {shlex.join(error.cmd)}", file=sys.stderr)
        print("scripts/demo again goes on with this step", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; scripts/demo again continues where this one stopped", file=sys.stderr)
        return 130
    print_table(scores, demo.num_test_cases())
    print(f"\nfinished in {(time.monotonic() - start) / 60:.1f} minutes")
    demo.print_places(predictions, scores)
    return 0


class Demo:
    """The steps of the demo, each in its own folder under one root.

    Args:
        root: Folder of the demo.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dataset_dir = root / "raw" / DATASET
        # other settings, say of a newer version, get runs of their own beside the old ones
        configs = sorted(Path("bundles/enet/configs").glob("*.json"))
        settings = b"".join(path.read_bytes() for path in configs) + " ".join(SETTINGS).encode()
        version = hashlib.sha256(settings).hexdigest()[:6]
        self.configuration = f"2d_demo_{version}"
        self.bundle_dir = root / f"bundle_{version}"
        self.preprocessed = root / "preprocessed" / DATASET
        self.trained = root / "results" / DATASET / f"{TRAINER}__nnUNetPlans__{self.configuration}"
        self.environment = {
            "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin take a busy machine's cores from those that compute
            **os.environ,
            "nnUNet_raw": str(root / "raw"),
            "nnUNet_preprocessed": str(root / "preprocessed"),
            "nnUNet_results": str(root / "results"),
            "nnUNet_extTrainer": self._trainer_path(),
            "nnUNet_n_proc_DA": "1",
            "nnUNet_def_n_proc": "2",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def make_data(self) -> None:
        """Write the phantom and let nnU-Net plan and preprocess it, which also fixes the folds."""
        self._title("data: a thorax phantom with 4 organs, 10 training and 3 test cases")
        write_phantom(self.dataset_dir, num_training=10, num_test=3)
        if not (self.preprocessed / "finished").exists():
            self._run("nnUNetv2_plan_and_preprocess", "-d", "900", "-c", "2d", "-np", "2", "-npfp", "2")
            (self.preprocessed / "finished").touch()
        self._python(
            "nnunet_ext", "configure", "-d", "900", "-c", "2d", "--name", self.configuration, "--set", *SETTINGS
        )

    def run_bundle(self) -> Path:
        """Train and predict by `monai.bundle`.

        Returns:
            The prediction folder.
        """
        self._title("ENet by monai.bundle")
        predictions = self.bundle_dir / "predictions"
        data = ("--dataset_dir", self.dataset_dir)
        self._python(
            *("monai.bundle", "run", "--config_file", "['bundles/enet/train.json','bundles/enet/demo.json']", *data),
            *("--fold", FOLD, "--output_dir", self.bundle_dir, "--cache_dir", self.root / "cache"),
        )
        self._python(
            *("monai.bundle", "run", "--config_file", "bundles/enet/inference.json", *data),
            *("--ckpt_dir", self.bundle_dir, "--output_dir", predictions),
        )
        return predictions

    def run_nnunet(self) -> Path:
        """Train and predict by `nnUNetv2_train` and `nnUNetv2_predict`.

        Returns:
            The prediction folder.
        """
        self._title("ENet by nnU-Net")
        fold, predictions = self.trained / f"fold_{FOLD}", self.root / f"nnunet_predictions_{self.configuration}"
        device = "cuda" if self._has_gpu() else "cpu"
        model = ("-tr", TRAINER, "-device", device)
        if not (fold / "validation" / "summary.json").exists():
            resumable = any((fold / f"checkpoint_{name}.pth").exists() for name in ("latest", "best", "final"))
            resume = ["--c"] if resumable else []
            self._run("nnUNetv2_train", "900", self.configuration, FOLD, *model, *resume)
        self._run(
            *("nnUNetv2_predict", "-i", self.dataset_dir / "imagesTs", "-o", predictions, "-d", "900"),
            *("-c", self.configuration, "-f", FOLD, *model, "-npp", "1", "-nps", "1", "--continue_prediction"),
        )
        return predictions

    def score(self, predictions: Path) -> Path:
        """Score a prediction folder.

        Args:
            predictions: The folder.

        Returns:
            Folder with `metrics.csv` and `summary.json`.
        """
        self._title(f"scores of {predictions.relative_to(self.root)}")
        output = self.root / "scores" / predictions.relative_to(self.root)
        self._python(
            *("evaluation.test3d", "--predictions", predictions, "--references", self.dataset_dir / "labelsTs"),
            *("--output", output, "--dataset-json", self.dataset_dir / "dataset.json", "--source", "labels"),
        )
        return output

    def num_test_cases(self) -> int:
        """Return how many cases were held out."""
        return len(list((self.dataset_dir / "labelsTs").glob("*.nii.gz")))

    def print_places(self, predictions: dict[str, Path], scores: dict[str, Path]) -> None:
        """Say where everything lies.

        Args:
            predictions: Prediction folder of each method.
            scores: Score folder of each method.
        """
        for method in predictions:
            print(f"  {method}: predictions {_short(predictions[method])}, scores {_short(scores[method])}")
        print(
            f"  logs: {_short(self.bundle_dir / 'tensorboard')} (tensorboard --logdir), {_short(self.trained)}/fold_0"
        )

    def _python(self, *words: object) -> None:
        self._run(sys.executable, "-m", *words)

    def _run(self, *words: object) -> None:
        command = [str(word) for word in words]
        print("$ " + shlex.join(_short(word) for word in command), flush=True)
        subprocess.run(command, env=self.environment, check=True)

    def _title(self, text: str) -> None:
        print(f"\n=== {text}", flush=True)

    @staticmethod
    def _trainer_path() -> str:
        return subprocess.run(
            [sys.executable, "-m", "nnunet_ext", "path"], check=True, capture_output=True, text=True
        ).stdout.strip()

    @staticmethod
    def _has_gpu() -> bool:
        import torch

        return torch.cuda.is_available()


def print_table(scores: dict[str, Path], num_cases: int) -> None:
    """Print method by label: mean Dice and HD95 with the number of cases they stand for.

    Args:
        scores: Score folder of each method.
        num_cases: Held-out cases.
    """
    print(f"\n=== mean over {num_cases} held-out phantom cases, after a few minutes of training (not converged)")
    print(f"{'method':<22}{'label':<14}{'Dice':>7}{'n':>4}{'HD95 mm':>10}{'n':>4}")
    for method, folder in scores.items():
        values: dict[tuple[str, str], list[float]] = {}
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                values.setdefault((row["label_name"], row["metric"]), []).append(float(row["value"]))
        for label in dict.fromkeys(label for label, _ in values):
            dice, n_dice = _finite_mean(values[label, "dice"])
            distance, n_distance = _finite_mean(values[label, "hd95_mm"])
            print(f"{method:<22}{label:<14}{dice:>7.3f}{n_dice:>4}{distance:>10.2f}{n_distance:>4}")


def _finite_mean(values: list[float]) -> tuple[float, int]:
    finite = [value for value in values if math.isfinite(value)]
    return (statistics.fmean(finite) if finite else math.nan), len(finite)


def _short(path: str | Path) -> str:
    here = Path(path)
    return os.path.relpath(here) if here.is_absolute() and here.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
