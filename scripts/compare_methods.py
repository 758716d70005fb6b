"""Train methods on fold 0 of data sets for the same CPU minutes, score them, and print one table.

Each cell (method, data set, minutes) is a JSON file with its commands and per-case scores; cells that exist are not
run again; one that was interrupted goes on from its last checkpoint. `--table` prints what there is, and which cells
were not run; `--labels` one line for each label.

The model of the last epoch is scored, in both runners: the best one of a bundle is chosen on the very cases that are
scored. The length of a training is fixed before it starts: a short trial measures CPU seconds per iteration (workers
included), and as many iterations as fit the minutes are trained. So several cells may run side by side, as long as
none gets more than its one thread. `cpu_s` in the file says what the training then took, with its start, decoding and
validations; null where it was interrupted.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compared_methods import METHODS
from compared_results import by_label, cell_file, overview, read_scores
from measured_commands import run_measured

from nnunet_ext.atomic import write_json

SEED = 0
BUNDLE_LAST = "checkpoint_last.pt"
# nnU-Net takes every core on a CPU, whatever OMP_NUM_THREADS says
NNUNET_TRAIN = """
import multiprocessing, os
multiprocessing.cpu_count = lambda: int(os.environ["OMP_NUM_THREADS"])
from nnunetv2.run.run_training import run_training_entry
run_training_entry()
"""
# a bundle's second epoch: from the end of the first to the start of the evaluator, whose bar comes a whole case later
BUNDLE_TRIAL = {"first": r"Epoch\[1\] Complete", "last": r"Epoch\[1\] Complete[\s\S]*Engine run resuming"}


class Cell:
    """One method on one data set for a number of minutes.

    Args:
        name: One of `METHODS`.
        dataset_dir: nnU-Net raw data set, in `$nnUNet_raw`.
        minutes: Training time.
        work: Folder for runs and predictions.
        threads: CPU threads of each training.
    """

    def __init__(self, name: str, dataset_dir: Path, minutes: float, work: Path, threads: int) -> None:
        self.name = name
        self.method = METHODS[name]
        self.dataset_dir = dataset_dir
        self.minutes = minutes
        self.work = work / dataset_dir.name / f"{name}-{minutes:g}min"
        self.threads = threads
        self.options = list(self.method.options)
        self.commands: list[str] = []
        self.cpu_s: float | None = 0.0
        self.trial = self.work.parent / f"trial-{name}.json"
        self.file = cell_file(name, dataset_dir.name, minutes)

    def run(self) -> None:
        """Measure, train, predict the validation cases, score, and write the JSON file."""
        train = self._train_nnunet if self.method.trainer else self._train_bundle
        minutes = self.minutes
        if self.method.base:
            minutes /= 2
            base = Cell(self.method.base, self.dataset_dir, minutes, self.work.parents[1], self.threads)
            model = str(base.fitted())
            self.options = [option.replace("{base}", model) for option in self.options]
        cost = self._cost()
        epochs, iterations = _length(minutes, cost)
        self.commands, self.cpu_s = (base.commands, base.cpu_s) if self.method.base else ([], 0.0)
        predictions = train(epochs, iterations)
        scores = self.work / "scores"
        self._call(
            *(sys.executable, "-m", "evaluation.test3d", "--predictions", predictions, "--source", "labels"),
            *("--references", self.dataset_dir / "labelsTr", "--output", scores),
        )
        write_json(
            self.file,
            {
                "method": self.name,
                "dataset": self.dataset_dir.name,
                "fold": 0,
                "seed": SEED,
                "cpu_minutes": self.minutes,
                "iterations": epochs * iterations,
                "cpu_s_per_iteration": cost,
                "cpu_s": None if self.cpu_s is None else round(self.cpu_s, 1),
                "date": datetime.date.today().isoformat(),
                "hardware": f"{platform.machine()}, {self.threads} thread(s), no GPU",
                "commands": self.commands,
                "scores": read_scores(scores / "metrics.csv"),
            },
        )

    def fitted(self) -> Path:
        """Train alone, and return the model of the last epoch."""
        epochs, iterations = _length(self.minutes, self._cost())
        self.commands, self.cpu_s = [], 0.0
        if self.method.trainer:
            return self._train_nnunet(epochs, iterations, predict=False).parent / "checkpoint_final.pth"
        return self._train_bundle(epochs, iterations, predict=False) / BUNDLE_LAST

    def _cost(self) -> float:
        """Return CPU seconds per iteration, of a trial or of an earlier cell of other minutes."""
        if not self.trial.exists():
            train = self._train_nnunet if self.method.trainer else self._train_bundle
            train(2, self.method.trial_iterations, trial=True)
            write_json(self.trial, {"cpu_s_per_iteration": round(self.cpu_s / self.method.trial_iterations, 4)})
        return json.loads(self.trial.read_text())["cpu_s_per_iteration"]

    def _train_bundle(self, epochs: int, iterations: int, trial: bool = False, predict: bool = True) -> Path:
        """Train by the bundle; return the folder of the predictions, or of the run."""
        output = self.work / ("trial" if trial else "run")
        if trial:
            shutil.rmtree(output, ignore_errors=True)
        train = f"bundles/{self.method.bundle}/train.json"
        evaluate = f"['{train}','bundles/{self.method.bundle}/evaluate.json']"
        run = [sys.executable, "-m", "monai.bundle", "run", "--config_file"]
        common = ["--dataset_dir", self.dataset_dir, "--fold", 0, "--seed", SEED, "--output_dir", output]
        common += ["--cache_dir", self.work.parent / "cache", *self.options]
        interval = 3 if trial else max(1, epochs // 4)
        length = ["--max_epochs", epochs, "--iterations_per_epoch", iterations, "--val_interval", interval]
        marks = {**BUNDLE_TRIAL, "stop": True} if trial else {}
        started = (output / BUNDLE_LAST).exists()
        self._count(self._call(*run, train, *common, *length, **marks), started)
        if trial or not predict:
            return output
        self._call(*run, evaluate, *common, "--ckpt_dir", output / BUNDLE_LAST)
        return output / "validation"

    def _train_nnunet(self, epochs: int, iterations: int, trial: bool = False, predict: bool = True) -> Path:
        number = str(int(re.match(r"Dataset(\d+)", self.dataset_dir.name)[1]))  # type: ignore[index]
        parent = self.method.configuration
        configuration = f"{parent}_{self.name.replace('-', '_')}_{self.minutes:g}_{'trial' if trial else 'run'}"
        length = [f"epochs={epochs}", f"iterations_per_epoch={iterations}", "val_iterations_per_epoch=1"]
        length.append(f"seed={SEED}")
        configure = [sys.executable, "-m", "nnunet_ext", "configure", "-d", number, "-c", parent]
        results = Path(os.environ["nnUNet_results"]) / self.dataset_dir.name  # noqa: SIM112
        fold = results / f"{self.method.trainer}__nnUNetPlans__{configuration}" / "fold_0"
        if trial:
            shutil.rmtree(fold.parent, ignore_errors=True)
        self._call(*configure, "--name", configuration, "--set", *self.options, *length, "save_every=1")
        train = [
            sys.executable,
            "-c",
            NNUNET_TRAIN,
            number,
            configuration,
            0,
            "-tr",
            self.method.trainer,
            "-device",
            "cpu",
        ]
        finished = (fold / "checkpoint_final.pth").exists()
        started = finished or (fold / "checkpoint_latest.pth").exists()
        # predictions of the validation cases, which nnU-Net makes after the last epoch, are no part of the training
        marks = {"first": r": Epoch 1\b", "stop": True} if trial else {}
        more = ["--c"] if started else []
        cpu_s = self._call(*train, more=more, needed=predict or not finished, last="Training done", **marks)
        self._count(cpu_s, started)
        return fold / "validation"

    def _count(self, cpu_s: float, started: bool) -> None:
        """Add what a training took; of one that went on from a checkpoint, the part before it is not known."""
        self.cpu_s = None if started or self.cpu_s is None else self.cpu_s + cpu_s

    def _call(self, *words: object, more: Sequence[str] = (), needed: bool = True, **marks: Any) -> float:
        """Write a command down and run it, if needed, with more words that only continue what it has begun.

        Return its CPU seconds between the marks, see `run_measured`.
        """
        command = [str(word) for word in words]
        places = {sys.executable: "python", f"{self.dataset_dir.parent}/": "$nnUNet_raw/", f"{Path.cwd()}/": ""}
        if results := os.environ.get("nnUNet_results"):  # noqa: SIM112
            places[f"{results}/"] = "$nnUNet_results/"
        shown = shlex.join(command).replace(shlex.join([sys.executable, "-c", NNUNET_TRAIN]), "nnUNetv2_train")
        for place, name in places.items():  # the file says what was run, not where
            shown = shown.replace(place, name)
        self.commands.append(shown)
        if not needed:
            return 0.0
        print("$ " + shown, flush=True)
        return run_measured([*command, *more], self.work / "log.txt", self.threads, **marks)


def _length(minutes: float, cost: float) -> tuple[int, int]:
    """Return the number of epochs and of iterations in each that fit the minutes."""
    epochs = max(1, round(minutes * 60 / cost / 50))
    return epochs, int(minutes * 60 / cost / epochs)


def main() -> int:
    """Run the cells that were asked for.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset-dirs", nargs="+", type=Path, help="raw data sets in $nnUNet_raw, planned and preprocessed"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes of training")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a training")
    parser.add_argument("--work", type=Path, default=Path("runs/compare"), help="folder of runs and predictions")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--labels", action="store_true", help="only print a line for each label of every cell")
    args = parser.parse_args()
    if args.labels:
        print(by_label())
        return 0
    if not args.table:
        if not args.dataset_dirs:
            parser.error("--dataset-dirs: needed, unless --table or --labels is given")
        for dataset_dir in args.dataset_dirs:
            for method in args.methods:
                cell = Cell(method, dataset_dir.absolute(), args.minutes, args.work.resolve(), args.threads)
                if not cell.file.exists():
                    start = time.monotonic()
                    cell.run()
                    print(f"{method}: {(time.monotonic() - start) / 60:.1f} minutes in all", flush=True)
    print(overview(args.minutes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
