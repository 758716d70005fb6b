"""Pre-train without labels, fine-tune with few labelled cases, compare with training from scratch; print one table.

The Models Genesis bundle learns to restore the images of fold 0's training cases. Then it learns to segment from 5 and
from 10 of them: from random weights, from the pre-trained ones, or from their encoder alone, everything else alike.
Each seed draws cases and order anew. Of fold 0's validation cases, some give the learning curve and choose the model,
the others are scored. All runs are the bundle's own commands, within this process.

Each run is a JSON file with its seed, its curve, its scores and the minutes of its training, decoding and validations
included: by the clock, and of the CPU (null where the training was interrupted). What exists is not run
again, what was interrupted goes on from its last epoch. `--table` prints what there is, `--figure` draws the curves.
"""

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from adapt_data import derive
from compared_results import mean_dice, read_scores
from recorded_commands import RecordedCommands
from tensorboard_events import read_curve, read_minutes

from evaluation.paired_tests import compare_pair
from nnunet_ext.atomic import write_json
from nnunet_ext.data.folds import fold_cases
from nnunet_ext.data.raw_dataset import RawDataset, open_dataset
from nnunet_ext.errors import DatasetError

RESULTS = Path("bundles/models_genesis/docs/results")
STARTS = {
    "scratch": ("none", "all"),
    "genesis": ("genesis", "all"),
    "genesis-encoder": ("genesis", "encoder"),
    "masked-cubes": ("masked_cubes", "all"),
    "masked-cubes-encoder": ("masked_cubes", "encoder"),
}
"""Start of the fine-tuning: task of the pre-training, and the parts that are taken over."""
SIZES, SEEDS = (5, 10), (0, 1, 2)
PRETRAINING_SEED = 0
CURVE_CASES = 10
POINTS, EARLY = 10, 3
"""Validations of each training; the one at which the table shows the curve, beside the last."""


class Experiment:
    """A data set, its pre-trainings and its fine-tunings.

    Args:
        dataset: Labelled data set.
        work: Folder of derived data sets, caches and runs.
        network: Options of the bundle that all runs share: patch size, channels, batch size.
        pretraining_steps: Iterations of each pre-training.
        steps: Iterations of each fine-tuning.
    """

    def __init__(self, dataset: RawDataset, work: Path, network: list[str], pretraining_steps: int, steps: int) -> None:
        self.dataset, self.work, self.network = dataset, work / dataset.name, network
        self.pretraining_steps, self.steps = pretraining_steps, steps
        self.few = self.work / "Dataset903_FewLabels"
        self.commands = RecordedCommands({self.work: "WORK", dataset.root.parent: "$nnUNet_raw"})
        fold = fold_cases(dataset, 0)
        train, val = ([case.name for case in cases] for cases in (fold.train, fold.val))
        random.Random(0).shuffle(val)
        orders = [random.Random(seed).sample(train, max(SIZES)) for seed in SEEDS]
        folds = [{"train": order[:size], "val": val[:CURVE_CASES]} for size in SIZES for order in orders]
        self.about = {
            "dataset": dataset.name,
            "cases": {"pretraining": len(train), "curve": CURVE_CASES, "test": len(val) - CURVE_CASES},
        }
        labels = [name for name in dataset.description["labels"] if name != "background"]
        derive(dataset, self.few, labels, folds, val[CURVE_CASES:])

    def run(self, starts: list[str]) -> None:
        """Run what is missing: the pre-trainings, then for each seed and number of cases every start.

        Args:
            starts: Keys of `STARTS`.
        """
        for start in starts:
            self._pretrain(STARTS[start][0])
        for seed in SEEDS:
            for size in SIZES:
                for start in starts:
                    self._finetune(start, size, seed)

    def _pretrain(self, task: str) -> None:
        file = self._file("pretraining", task)
        if task == "none" or self._is_there(file, self.pretraining_steps):
            return
        output = self._pretraining_dir(task)
        length = self._length(self.pretraining_steps)
        taken = self._train(
            output,
            *("bundles/models_genesis/pretrain.json", "--task", task),
            *("--dataset_dir", self.dataset.root, "--fold", 0, "--seed", PRETRAINING_SEED, "--output_dir", output),
            *("--cache_dir", self.work / "cache", *length, *self.network),
        )
        curve = read_curve(output / "tensorboard", "val_restoration_error", self.pretraining_steps // POINTS)
        content = {"task": task, "seed": PRETRAINING_SEED, "steps": self.pretraining_steps}
        self._write(file, {**content, **taken, "restoration_error": curve})

    def _finetune(self, start: str, size: int, seed: int) -> None:
        file = self._file(start, f"{size}cases", seed)
        if self._is_there(file, self.steps):
            return
        task, parts = STARTS[start]
        weights = "none" if task == "none" else self._pretraining_dir(task) / "model_best.pt"
        output = self.work / f"{start}-{size}-{seed}-{self.steps}steps"
        fold = SIZES.index(size) * len(SEEDS) + SEEDS.index(seed)
        taken = self._train(
            output,
            "bundles/models_genesis/train.json",
            *("--dataset_dir", self.few, "--fold", fold, "--seed", seed, "--output_dir", output),
            *("--pretrained", weights, "--transfer", parts, "--cache_dir", self.work / "cache"),
            *("--early_stop_patience", POINTS, *self._length(self.steps), *self.network),
        )
        predictions, scores = output / "test", output / "scores"
        self.commands.run(
            *("monai.bundle", "run", "--config_file", "bundles/models_genesis/inference.json"),
            *("--images_dir", self.few / "imagesTs", "--ckpt_dir", output, "--output_dir", predictions),
        )
        self.commands.run(
            *("evaluation.test3d", "--predictions", predictions, "--source", "labels"),
            *("--references", self.few / "labelsTs", "--require-all", "--output", scores),
        )
        content = {"start": start, "labelled_cases": size, "seed": seed, "steps": self.steps, **taken}
        curve = read_curve(output / "tensorboard", "val_mean_dice", self.steps // POINTS)
        self._write(file, {**content, "curve": curve, "scores": read_scores(scores / "metrics.csv")})

    def _train(self, output: Path, config_file: str, *words: object) -> dict[str, float | None]:
        """Train; return its minutes, of the CPU None if it went on from a checkpoint, whose part is not known."""
        started, before = (output / "checkpoint_last.pt").exists(), _cpu_s()
        self.commands.run("monai.bundle", "run", "--config_file", config_file, *words)
        cpu_minutes = None if started else round((_cpu_s() - before) / 60, 2)
        return {"minutes": read_minutes(output / "tensorboard"), "cpu_minutes": cpu_minutes}

    def _is_there(self, file: Path, steps: int) -> bool:
        """Return whether a run was made before; refuse to take one of another length or network for it."""
        if not file.exists():
            return False
        made = json.loads(file.read_text(encoding="utf-8"))
        had, asked = (made["steps"], made["network"]), (steps, " ".join(self.network))
        if had != asked:
            raise SystemExit(f"{file}: holds a run of (steps, network) {had}, asked: {asked}; move it away")
        return True

    def _length(self, steps: int) -> list[object]:
        return ["--max_epochs", POINTS, "--iterations_per_epoch", steps // POINTS, "--val_interval", 1]

    def _pretraining_dir(self, task: str) -> Path:
        return self.work / f"pretraining-{task}-{self.pretraining_steps}steps"

    def _file(self, *parts: object) -> Path:
        return RESULTS / ("-".join([self.dataset.name, *map(str, parts)]) + ".json")

    def _write(self, file: Path, content: dict[str, Any]) -> None:
        when = {
            "date": datetime.date.today().isoformat(),
            "hardware": f"{platform.machine()}, {torch.get_num_threads()} thread(s), no GPU",
            "network": " ".join(self.network),
        }
        write_json(file, {**self.about, **content, **when, "commands": self.commands.taken()})


def read_cells(name: str, root: Path = Path()) -> list[dict[str, Any]]:
    """Return the fine-tunings that there are.

    Args:
        name: Data set.
        root: The repository.
    """
    files = sorted((root / RESULTS).glob(f"{name}-*cases-*.json"))
    cells = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return sorted(cells, key=lambda c: (c["labelled_cases"], list(STARTS).index(c["start"]), c["seed"]))


def table(name: str, root: Path = Path()) -> str:
    """Return test Dice of each start, number of cases and seed in Markdown; what was not run is shown as such.

    Args:
        name: Data set.
        root: The repository.
    """
    cells = {(c["start"], c["labelled_cases"], c["seed"]): c for c in read_cells(name, root)}
    seeds = " | ".join(f"seed {seed}" for seed in SEEDS)
    curve = f"curve, after {EARLY} of {POINTS} | at its end"
    lines = [f"| labelled cases | start | {seeds} | mean | over scratch | cases better, p | {curve} |"]
    lines.append("|---|---|" + "---|" * (len(SEEDS) + 5))
    for size in SIZES:
        scratch = [cells.get(("scratch", size, seed)) for seed in SEEDS]
        for start in STARTS:
            own = [cells.get((start, size, seed)) for seed in SEEDS]
            present = [cell for cell in own if cell]
            dice = [f"{_mean([cell]):.3f}" if cell else "not run" for cell in own]
            mean = f"{_mean(present):.3f}" if all(own) else "–"
            compared = start != "scratch" and all(own) and all(scratch)  # the same seeds on both sides
            gain = f"{_mean(present) - _mean(scratch):+.3f} | {_compared(present, scratch)}" if compared else "– | –"
            ends = [
                f"{statistics.fmean(c['curve'][place][1] for c in present):.3f}" if all(own) else "–"
                for place in (EARLY - 1, -1)
            ]
            lines.append(f"| {size} | {start} | {' | '.join([*dice, mean, gain, *ends])} |")
    return "\n".join(lines)


def draw_curves(name: str, file: Path) -> None:
    """Draw the learning curves: mean of the seeds, and their range as a band.

    Args:
        name: Data set.
        file: PNG to write.
    """
    figure, axes = plt.subplots(1, len(SIZES), figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, size in zip(axes, SIZES, strict=True):
        for start in STARTS:
            curves = [c["curve"] for c in read_cells(name) if (c["start"], c["labelled_cases"]) == (start, size)]
            if not curves:
                continue
            steps = [step for step, _ in curves[0]]
            values = [[curve[i][1] for curve in curves] for i in range(len(steps))]
            (line,) = axis.plot(steps, [statistics.fmean(v) for v in values], label=start)
            axis.fill_between(steps, list(map(min, values)), list(map(max, values)), alpha=0.15, color=line.get_color())
        axis.set(title=f"{size} labelled cases", xlabel="iterations")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("mean Dice, validation cases")
    axes[-1].legend(loc="lower right")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _compared(cells: list[dict[str, Any]], others: list[Any]) -> str:
    """Return in how many cases the mean of seeds and labels is the better one, and Wilcoxon's p."""
    one, other = ([[label["dice"] for label in cell["scores"].values()] for cell in group] for group in (cells, others))
    cases = sorted(one[0][0])
    means = [
        np.array([statistics.fmean(label[case] for labels in group for label in labels) for case in cases])
        for group in (one, other)
    ]
    result = compare_pair(*means, clusters=cases, resamples=100, seed=0)
    p = "<0.001" if result.p < 0.001 else f"{result.p:.3f}"
    return f"{result.n_greater} of {result.n_cases}, {p}"


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of those that it has ended."""
    return sum(os.times()[:4])


def _mean(cells: list[dict[str, Any]]) -> float:
    return statistics.fmean(mean_dice(cell["scores"])["mean"] for cell in cells)


def main() -> int:
    """Run the experiment, or only show what there is.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset-dir", type=Path, required=True, help="labelled raw data set")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--pretraining-steps", type=int, default=3000, help="iterations of each pre-training")
    parser.add_argument("--steps", type=int, default=200, help="iterations of each fine-tuning")
    parser.add_argument("--work", type=Path, default=Path("runs/pretraining"), help="folder of data and runs")
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--figure", type=Path, help="only draw the learning curves to this PNG")
    parser.add_argument("--network", nargs=argparse.REMAINDER, help="options of the bundle that all runs share")
    args = parser.parse_args()
    try:
        dataset = open_dataset(args.dataset_dir)
    except DatasetError as error:
        parser.error(f"--dataset-dir: {error}")
    if args.figure:
        draw_curves(dataset.name, args.figure)
        return 0
    if not args.table:
        torch.set_num_threads(1)
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.pop("nnUNet_preprocessed", None)  # the derived data set brings its own folds
        network = args.network or ["--base_channels", "8", "--patch_depth", "32", "--image_size", "[48,32]"]
        work = args.work.resolve()
        Experiment(dataset, work, network, args.pretraining_steps, args.steps).run(args.starts)
    print(table(dataset.name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
