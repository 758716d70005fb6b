"""Train methods on fold 0 of a data set with the same minutes on CPUs, score them, and print one table.

Each cell (method, data set, minutes) is a JSON file with its commands and per-case scores; cells that exist are not
run again; one that was interrupted starts anew. `--table` prints what there is.

The length of a training is fixed before it starts: a short trial measures seconds per iteration, and the number of
iterations that fits the minutes is trained. Run it on an idle machine.
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
METHODS = ["bundle-enet", *NNUNET]


class Cell:
    """One method on one data set for a number of minutes.

    Args:
        method: One of `METHODS`.
        dataset_dir: nnU-Net raw data set, in `$nnUNet_raw`.
        minutes: Training time.
        work: Folder for runs and predictions.
        options: More options of the bundle, such as `--image_size`.
    """

    def __init__(self, method: str, dataset_dir: Path, minutes: float, work: Path, options: list[str]) -> None:
        self.method = method
        self.dataset_dir = dataset_dir
        self.minutes = minutes
        self.work = work / dataset_dir.name / f"{method}-{minutes:g}min"
        self.options = options
        self.commands: list[str] = []
        self.file = RESULTS / f"{dataset_dir.name}-{method}-{minutes:g}min.json"

    def run(self) -> None:
        """Measure, train, predict the validation cases, score, and write the JSON file."""
        shutil.rmtree(self.work, ignore_errors=True)  # of a run that was interrupted, whose minutes nobody counted
        train = self._train_bundle if self.method == "bundle-enet" else self._train_nnunet
        # the first epoch starts workers and warms caches up: only the difference to a second one counts
        seconds = [train(epochs, TRIAL_ITERATIONS, f"trial{epochs}")["training_s"] for epochs in (1, 2)]
        seconds_per_iteration = max(seconds[1] - seconds[0], 1e-3) / TRIAL_ITERATIONS
        iterations = max(TRIAL_ITERATIONS, int(self.minutes * 60 / seconds_per_iteration))
        epochs = max(1, round(iterations / 50))
        self.commands = []
        result = train(epochs, iterations // epochs, "run")
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
                "training_s": round(result["training_s"], 1),
                "date": datetime.date.today().isoformat(),
                "hardware": f"{platform.machine()}, {os.cpu_count()} cores, no GPU",
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
        # ignite reports the time of an epoch with the validation inside it, which the next line counts alone
        total = _engine_seconds(log)
        return {"training_s": total, "predictions": output / "validation"}

    def _train_nnunet(self, epochs: int, iterations: int, name: str) -> dict:
        trainer, options = NNUNET[self.method]
        number = str(int(re.match(r"Dataset(\d+)", self.dataset_dir.name)[1]))  # type: ignore[index]
        configuration = f"2d_{self.method.replace('-', '_')}_{self.minutes:g}_{name}"
        length = [f"epochs={epochs}", f"iterations_per_epoch={iterations}", "val_iterations_per_epoch=1"]
        configure = [sys.executable, "-m", "nnunet_ext", "configure", "-d", number, "-c", "2d"]
        self._call(*configure, "--name", configuration, "--set", *options, *length)
        results = Path(os.environ["nnUNet_results"]) / self.dataset_dir.name  # noqa: SIM112
        fold = results / f"{trainer}__nnUNetPlans__{configuration}" / "fold_0"
        shutil.rmtree(fold.parent, ignore_errors=True)
        log = self._call("nnUNetv2_train", number, configuration, 0, "-tr", trainer, "-device", "cpu")
        seconds = [float(match) for match in re.findall(r"Epoch time: ([\d.]+) s", log)]
        return {"training_s": sum(seconds), "predictions": fold / "validation"}

    def _call(self, *words: object) -> str:
        command = [str(word) for word in words]
        places = {sys.executable: "python", f"{self.dataset_dir.parent}/": "$nnUNet_raw/", f"{Path.cwd()}/": ""}
        shown = shlex.join(command)
        for place, name in places.items():  # the file says what was run, not where
            shown = shown.replace(place, name)
        self.commands.append(shown)
        print("$ " + self.commands[-1], flush=True)
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "log.txt").open("a", encoding="utf-8") as log:
            start = log.tell()
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, env=environment)
        return (self.work / "log.txt").read_text(encoding="utf-8", errors="replace")[start:]


def _engine_seconds(log: str) -> float:
    """Return the seconds that the trainer ran, less those of its validations."""
    times = [
        sum(float(part) * factor for part, factor in zip(match.split(":"), (3600, 60, 1), strict=True))
        for match in re.findall(r"Engine run finished. Time taken: ([\d:.]+)", log)
    ]
    return times[-1] - sum(times[:-1])


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
    parser.add_argument("--work", type=Path, default=Path("runs/compare"), help="folder of runs and predictions")
    parser.add_argument("--bundle-options", nargs=argparse.REMAINDER, default=[], help="more options of the bundle")
    parser.add_argument("--table", action="store_true", help="only print the table")
    args = parser.parse_args()
    if not args.table:
        if args.dataset_dir is None:
            parser.error("--dataset-dir: needed, unless --table is given")
        for method in args.methods:
            cell = Cell(method, args.dataset_dir.absolute(), args.minutes, args.work.resolve(), args.bundle_options)
            if not cell.file.exists():
                start = time.monotonic()
                cell.run()
                print(f"{method}: {(time.monotonic() - start) / 60:.1f} minutes in all", flush=True)
    print_table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
