"""Train methods on fold 0 of a data set with the same minutes on CPUs, score them, and print one table.

Each cell (method, data set, minutes) is a JSON file with its commands and per-case scores; cells that exist are not
run again; one that was interrupted starts anew. `--table` prints what there is.

The length of a training is fixed before it starts: a short trial measures seconds per iteration, and the number of
iterations that fits the minutes is trained. Every method gets the same number of threads (`--threads`) and, under
nnU-Net, one worker that augments. Run it on an idle machine, at most one cell a core.
"""

import argparse
import csv
import datetime
import json
import math
import os
import platform
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from nnunet_ext.atomic import write_json

RESULTS = Path("bundles/enet/docs/results")
TRIAL_ITERATIONS = 20
NNUNET = {
    # name: (trainer, options of `configure`)
    "nnunet-enet": ("nnUNetTrainerENet", ["network=enet", "batch_size=8"]),
    "nnunet-stock-2d": ("CustomTrainer", ["network=planned", "batch_size=8"]),
}
# nnU-Net takes every core on a CPU, whatever OMP_NUM_THREADS says
NNUNET_TRAIN = """
import multiprocessing, os
multiprocessing.cpu_count = lambda: int(os.environ["OMP_NUM_THREADS"])
from nnunetv2.run.run_training import run_training_entry
run_training_entry()
"""
METHODS = ["bundle-enet", *NNUNET]


class Cell:
    """One method on one data set for a number of minutes.

    Args:
        method: One of `METHODS`.
        dataset_dir: nnU-Net raw data set, in `$nnUNet_raw`.
        minutes: Training time.
        work: Folder for runs and predictions.
        options: More options of the bundle, such as `--image_size`.
        threads: CPU threads of each training.
    """

    def __init__(
        self, method: str, dataset_dir: Path, minutes: float, work: Path, options: list[str], threads: int
    ) -> None:
        self.method = method
        self.dataset_dir = dataset_dir
        self.minutes = minutes
        self.work = work / dataset_dir.name / f"{method}-{minutes:g}min"
        self.options = options
        self.threads = threads
        self.commands: list[str] = []
        self.trial = self.work.parent / f"trial-{method}.json"
        self.file = RESULTS / f"{dataset_dir.name}-{method}-{minutes:g}min.json"

    def run(self) -> None:
        """Measure, train, predict the validation cases, score, and write the JSON file."""
        shutil.rmtree(self.work, ignore_errors=True)  # of a run that was interrupted, whose minutes nobody counted
        train = self._train_bundle if self.method == "bundle-enet" else self._train_nnunet
        # the first epoch starts workers and warms caches up: only the difference to a second one counts
        if not self.trial.exists():  # of an earlier cell of other minutes
            seconds = train(2, TRIAL_ITERATIONS, "trial")["epochs_s"]
            write_json(self.trial, {"s_per_iteration": seconds[1] / TRIAL_ITERATIONS})
        iterations = int(self.minutes * 60 / json.loads(self.trial.read_text())["s_per_iteration"])
        epochs = max(1, round(iterations / 50))
        self.commands = []
        result = train(epochs, iterations // epochs, "run")
        training_s = sum(result["epochs_s"])
        scores = self.work / "scores"
        self._call(
            *(sys.executable, "-m", "evaluation.test3d", "--predictions", result["predictions"], "--source", "labels"),
            *("--references", self.dataset_dir / "labelsTr", "--output", scores),
        )
        write_json(
            self.file,
            {
                "method": self.method,
                "dataset": self.dataset_dir.name,
                "fold": 0,
                "minutes": self.minutes,
                "iterations": epochs * (iterations // epochs),
                "training_s": round(training_s, 1),
                "date": datetime.date.today().isoformat(),
                "hardware": f"{platform.machine()}, {self.threads} of {os.cpu_count()} cores, no GPU",
                "commands": self.commands,
                "scores": read_scores(scores / "metrics.csv"),
            },
        )

    def _train_bundle(self, epochs: int, iterations: int, name: str) -> dict:
        output = self.work / name
        configs = "['bundles/enet/train.json','bundles/enet/evaluate.json']"
        run = [sys.executable, "-m", "monai.bundle", "run", "--config_file"]
        common = ["--dataset_dir", self.dataset_dir, "--fold", 0, "--output_dir", output]
        common += ["--cache_dir", self.work.parent / "cache", *self.options]
        length = ["--max_epochs", epochs, "--iterations_per_epoch", iterations, "--val_interval", max(1, epochs // 4)]
        log = self._call(*run, "bundles/enet/train.json", *common, *length)
        if name == "run":
            self._call(*run, configs, *common)
        return {"epochs_s": _trainer_epochs(log), "predictions": output / "validation"}

    def _train_nnunet(self, epochs: int, iterations: int, name: str) -> dict:
        trainer, options = NNUNET[self.method]
        number = str(int(re.match(r"Dataset(\d+)", self.dataset_dir.name)[1]))  # type: ignore[index]
        configuration = f"2d_{self.method.replace('-', '_')}_{self.minutes:g}_{name}"
        length = [f"epochs={epochs}", f"iterations_per_epoch={iterations}", "val_iterations_per_epoch=1"]
        configure = [sys.executable, "-m", "nnunet_ext", "configure", "-d", number, "-c", "2d"]
        results = Path(os.environ["nnUNet_results"]) / self.dataset_dir.name  # noqa: SIM112
        fold = results / f"{trainer}__nnUNetPlans__{configuration}" / "fold_0"
        shutil.rmtree(fold.parent, ignore_errors=True)  # of an earlier run with other options
        self._call(*configure, "--name", configuration, "--set", *options, *length)
        # a trial needs no predictions of the validation cases, which nnU-Net makes after the last epoch
        until = "Training done" if name == "trial" else None
        train = [sys.executable, "-c", NNUNET_TRAIN]
        log = self._call(*train, number, configuration, 0, "-tr", trainer, "-device", "cpu", until=until)
        seconds = [float(match) for match in re.findall(r"Epoch time: ([\d.]+) s", log)]
        return {"epochs_s": seconds, "predictions": fold / "validation"}

    def _call(self, *words: object, until: str | None = None) -> str:
        """Run a command, at most until its output holds a text; return the output."""
        command = [str(word) for word in words]
        places = {sys.executable: "python", f"{self.dataset_dir.parent}/": "$nnUNet_raw/", f"{Path.cwd()}/": ""}
        shown = shlex.join(command).replace(shlex.join([sys.executable, "-c", NNUNET_TRAIN]), "nnUNetv2_train")
        for place, name in places.items():  # the file says what was run, not where
            shown = shown.replace(place, name)
        self.commands.append(shown)
        print("$ " + self.commands[-1], flush=True)
        self.work.mkdir(parents=True, exist_ok=True)
        file = self.work / "log.txt"
        limits = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(self.threads), "nnUNet_n_proc_DA": "1"}
        with file.open("a", encoding="utf-8") as log:
            start = log.tell()
            run = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **limits}, start_new_session=True
            )
            try:
                while run.poll() is None:
                    if until and until in _read(file, start):
                        return _read(file, start)
                    time.sleep(0.5)
            finally:
                if run.poll() is None:
                    os.killpg(run.pid, signal.SIGKILL)
                    run.wait()
        if run.returncode != 0:
            raise SystemExit(f"{shown}\nended with exit code {run.returncode}; see {file}")
        return _read(file, start)


def _read(file: Path, start: int) -> str:
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read().decode("utf-8", errors="replace")


def _trainer_epochs(log: str) -> list[float]:
    """Return the seconds of each epoch of a MONAI trainer, without the validations inside it."""
    seconds: list[float] = []
    depth, validations = 0, 0.0
    for event, clock in re.findall(r"(Engine run resuming|Epoch\[\d+\] Complete|Engine run finished)(.*)", log):
        parts = re.findall(r"Time taken: (\d+):(\d+):([\d.]+)", clock) or [(0, 0, 0)]
        taken = sum(float(part) * unit for part, unit in zip(parts[0], (3600, 60, 1), strict=True))
        if event.startswith("Engine run resuming"):
            depth += 1
        elif event.startswith("Epoch") and depth == 1:
            seconds.append(taken - validations)
            validations = 0.0
        elif event == "Engine run finished":
            depth -= 1
            validations += taken if depth == 1 else 0.0
    return seconds


def read_scores(file: Path) -> dict[str, dict[str, dict[str, float | str]]]:
    """Read Dice and HD95 of each label and case.

    Args:
        file: `metrics.csv`.

    Returns:
        label -> metric -> case -> value; values that are not finite as text.
    """
    scores: dict[str, dict[str, dict[str, float | str]]] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["metric"] in ("dice", "hd95_mm"):
                value = float(row["value"])
                kept = round(value, 4) if math.isfinite(value) else row["value"]
                scores.setdefault(row["label_name"], {}).setdefault(row["metric"], {})[row["case"]] = kept
    return scores


def print_table() -> None:
    """Print every cell there is as a Markdown table."""
    print("| data set | method | minutes | iterations | label | Dice | HD95 mm | cases | missed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for file in sorted(RESULTS.glob("*.json")):
        cell = json.loads(file.read_text(encoding="utf-8"))
        for label, metrics in cell["scores"].items():
            dice = [float(value) for value in metrics["dice"].values()]
            finite = [float(v) for v in metrics["hd95_mm"].values() if math.isfinite(float(v))]
            distance = f"{statistics.fmean(finite):.2f}" if finite else "–"
            missed = sum(math.isinf(float(v)) for v in metrics["hd95_mm"].values())
            mean = statistics.fmean(value for value in dice if not math.isnan(value))
            print(
                f"| {cell['dataset']} | {cell['method']} | {cell['training_s'] / 60:.1f} | {cell['iterations']} "
                f"| {label} | {mean:.3f} | {distance} | {len(dice)} | {missed} |"
            )


def main() -> int:
    """Run the cells that were asked for.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-dir", type=Path, help="raw data set in $nnUNet_raw, planned and preprocessed (2d)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--minutes", type=float, default=10.0, help="training minutes a method")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a training")
    parser.add_argument("--work", type=Path, default=Path("runs/compare"), help="folder of runs and predictions")
    parser.add_argument("--bundle-options", nargs=argparse.REMAINDER, default=[], help="more options of the bundle")
    parser.add_argument("--table", action="store_true", help="only print the table")
    args = parser.parse_args()
    if not args.table:
        if args.dataset_dir is None:
            parser.error("--dataset-dir: needed, unless --table is given")
        for method in args.methods:
            dataset_dir, work = args.dataset_dir.absolute(), args.work.resolve()
            cell = Cell(method, dataset_dir, args.minutes, work, args.bundle_options, args.threads)
            if not cell.file.exists():
                start = time.monotonic()
                cell.run()
                print(f"{method}: {(time.monotonic() - start) / 60:.1f} minutes in all", flush=True)
    print_table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
