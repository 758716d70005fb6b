"""Train the small SAM fully on some labels, adapt it to others with ten cases in three ways, and print one table.

The base learns `--base-labels` on many cases and is written in Meta's layout. Then the SAMed bundle starts from that
file and learns `--target-labels` from ten cases that the base never saw: with a frozen encoder, with LoRA, and by full
fine-tuning. With the first seed each arm runs the same grid of learning rates and keeps the best on the validation
cases; the other seeds, each with ten cases of its own, run with that rate. Dice is measured on test cases that decide
nothing. All runs are the bundle's own commands, within this process, so that its imports are paid once.

Each run is a JSON file; what exists is not run again. `--table` prints what there is.
"""

import argparse
import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from adapt_data import TRAIN_CASES, Split, derive, split_cases
from compared_results import mean_dice, read_scores
from recorded_commands import RecordedCommands

from nnunet_ext.atomic import atomic_path, write_json
from nnunet_ext.data.raw_dataset import RawDataset, open_dataset
from sam_lora import SAMed
from sam_lora.sam_checkpoint import to_meta_layout

RESULTS = Path("bundles/samed/docs/results")
ARMS = {"decoder": "frozen encoder", "lora": "LoRA", "all": "full fine-tuning"}
RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SEEDS = (0, 1, 2)
BASE_EPOCHS, BASE_RATE = 4, 1e-3
CANVAS = 128
COMMON = ["--variant", "small", "--image_size", f"[{CANVAS},{CANVAS}]", "--batch_size", 8, "--weight_decay", 0.01]
COMMON += ["--warmup_iterations", 20]


class Experiment:
    """One base and its adaptations.

    Args:
        base: Where the base learns.
        base_labels: What it learns.
        target: What it is adapted to.
        target_labels: Labels of that.
        split: The cases of both.
        work: Folder of derived data sets, runs and predictions.
        base_steps: Iterations of the base.
        steps: Iterations of each adaptation.
    """

    def __init__(
        self,
        base: RawDataset,
        base_labels: list[str],
        target: RawDataset,
        target_labels: list[str],
        split: Split,
        work: Path,
        base_steps: int,
        steps: int,
    ) -> None:
        parts = ((base, base_labels), (target, target_labels))
        self.name = "-to-".join(f"{data.name.partition('_')[2]}-{'+'.join(labels)}" for data, labels in parts)
        self.base_steps, self.steps = base_steps, steps
        self.work = work / self.name
        self.base_dir, self.target_dir = self.work / "Dataset901_Base", self.work / "Dataset902_Target"
        self.weights = self.work / "base.pth"
        self.commands = RecordedCommands({self.work: "WORK"})
        self.about = {"experiment": self.name, "cases": {part: len(names) for part, names in vars(split).items()}}
        self.about["cases"]["train"] = TRAIN_CASES
        derive(base, self.base_dir, base_labels, [{"train": split.base, "val": split.base_val}], [])
        derive(
            target, self.target_dir, target_labels, [{"train": t, "val": split.val} for t in split.train], split.test
        )

    def run(self) -> None:
        """Run what is missing: the base, the grid, the other seeds, the tests."""
        if not self.file("base").exists():
            self._train_base()
        for arm in ARMS:
            for rate in RATES:
                self._adapt(arm, rate, SEEDS[0])
        rates = {arm: chosen_rate(self.name, self.steps, arm) for arm in ARMS}
        for seed in SEEDS:
            for arm, rate in rates.items():
                self._adapt(arm, rate, seed)
        for seed in SEEDS:
            for arm, rate in rates.items():
                self._test(arm, rate, seed)

    def file(self, *parts: object) -> Path:
        """Return the JSON file of the base, or of an adaptation: its arm, learning rate and seed."""
        length = [f"{self.steps}steps"] if len(parts) > 1 else []  # the base is shared
        return RESULTS / ("-".join([self.name, *length, *map(str, parts)]) + ".json")

    def _train_base(self) -> None:
        output = self.work / "base"
        steps = ["--max_epochs", BASE_EPOCHS, "--iterations_per_epoch", self.base_steps // BASE_EPOCHS]
        val_dice = self._train(
            self.base_dir, output, "all", BASE_RATE, 0, 0, [*steps, "--pretrained", "none"], BASE_EPOCHS
        )
        description = open_dataset(self.base_dir)
        network = SAMed(
            description.num_channels,
            description.label_map.num_outputs,
            variant="small",
            image_size=CANVAS,
            tuning="all",
        )
        network.load_state_dict(torch.load(output / "model_best.pt", weights_only=True))
        with atomic_path(self.weights) as temporary:
            torch.save(to_meta_layout(network), temporary)
        self._write({"learning_rate": BASE_RATE, "steps": self.base_steps, "val_dice": val_dice}, "base")

    def _adapt(self, arm: str, rate: float, seed: int) -> None:
        if self.file(arm, rate, seed).exists():
            return
        options = ["--max_epochs", 1, "--iterations_per_epoch", self.steps, "--pretrained", self.weights]
        val_dice = self._train(self.target_dir, self._run_dir(arm, rate, seed), arm, rate, seed, seed, options, 1)
        description = open_dataset(self.target_dir)
        network = SAMed(
            description.num_channels, description.label_map.num_outputs, variant="small", image_size=CANVAS, tuning=arm
        )
        content = {
            **{"arm": arm, "learning_rate": rate, "seed": seed, "steps": self.steps, "val_dice": val_dice},
            "parameters": sum(p.numel() for p in network.parameters()),
            "trained": sum(p.numel() for p in network.parameters() if p.requires_grad),
            "pretrained": str(network.load_pretrained(self.weights)),
        }
        self._write(content, arm, rate, seed)

    def _test(self, arm: str, rate: float, seed: int) -> None:
        content = json.loads(self.file(arm, rate, seed).read_text(encoding="utf-8"))
        if "scores" in content:
            return
        run = self._run_dir(arm, rate, seed)
        predictions, scores = run / "test", run / "scores"
        inputs = ["--images_dir", self.target_dir / "imagesTs", "--ckpt_dir", run, "--output_dir", predictions]
        self.commands.run("monai.bundle", "run", "--config_file", "bundles/samed/inference.json", *inputs)
        references = ["--references", self.target_dir / "labelsTs", "--require-all", "--output", scores]
        self.commands.run("evaluation.test3d", "--predictions", predictions, "--source", "labels", *references)
        content["commands"] += self.commands.taken()
        content["scores"] = read_scores(scores / "metrics.csv")
        write_json(self.file(arm, rate, seed), content)

    def _train(
        self, data: Path, output: Path, tuning: str, rate: float, fold: int, seed: int, options: list, interval: int
    ) -> float:
        """Train by the bundle's command, and return the mean Dice of the validation after the last step."""
        places = ["--dataset_dir", data, "--output_dir", output, "--cache_dir", self.work / "cache", "--fold", fold]
        training = ["--tuning", tuning, "--learning_rate", rate, "--seed", seed, "--val_interval", interval]
        config = ["run", "--config_file", "bundles/samed/train.json"]
        self.commands.run("monai.bundle", *config, *places, *training, *options, *COMMON)
        state = torch.load(output / "checkpoint_last.pt", map_location="cpu", weights_only=True)
        return round(state["best_metric"], 4)

    def _run_dir(self, arm: str, rate: float, seed: int) -> Path:
        return self.work / f"{self.steps}steps-{arm}-{rate}-{seed}"

    def _write(self, content: dict[str, Any], *parts: object) -> None:
        hardware = f"{platform.machine()}, {torch.get_num_threads()} thread(s), no GPU"
        when = {"date": datetime.date.today().isoformat(), "hardware": hardware}
        write_json(self.file(*parts), {**self.about, **content, **when, "commands": self.commands.taken()})


def read_cells() -> list[dict[str, Any]]:
    """Return the adaptations that there are."""
    cells = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("*-to-*.json"))]
    return [cell for cell in cells if "arm" in cell]


def chosen_rate(experiment: str, steps: int, arm: str) -> float:
    """Return the learning rate that is best for the validation cases with the first seed.

    Args:
        experiment: Name of the experiment.
        steps: Iterations of each adaptation.
        arm: A key of `ARMS`.
    """
    wanted = experiment, steps, arm, SEEDS[0]
    cells = [c for c in read_cells() if (c["experiment"], c["steps"], c["arm"], c["seed"]) == wanted]
    return max(cells, key=lambda cell: cell["val_dice"])["learning_rate"]


def print_tables() -> None:
    """Print grid and test of each experiment as Markdown."""
    cells = read_cells()
    for experiment, steps in sorted({(cell["experiment"], cell["steps"]) for cell in cells}):
        own = [cell for cell in cells if (cell["experiment"], cell["steps"]) == (experiment, steps)]
        print(f"\n{experiment}, {steps} steps\n\n| validation Dice, seed {SEEDS[0]} | {' | '.join(map(str, RATES))} |")
        print("|---|" + "---|" * len(RATES))
        for arm, title in ARMS.items():
            grid = {c["learning_rate"]: c["val_dice"] for c in own if (c["arm"], c["seed"]) == (arm, SEEDS[0])}
            print(f"| {title} | {' | '.join(f'{grid[rate]:.3f}' if rate in grid else '–' for rate in RATES)} |")
        _print_tests([cell for cell in own if "scores" in cell])


def _print_tests(cells: list[dict[str, Any]]) -> None:
    dice = {(cell["arm"], cell["seed"]): mean_dice(cell["scores"]) for cell in cells}
    labels = list(next(iter(dice.values()), {}))
    print(f"\n| arm | trained | learning rate | seed | {' | '.join(labels)} | of full |")
    print("|---|---|---|---|" + "---|" * (len(labels) + 1))
    for cell in sorted(cells, key=lambda cell: (list(ARMS).index(cell["arm"]), cell["seed"])):
        own, full = dice[cell["arm"], cell["seed"]], dice.get(("all", cell["seed"]))
        share = f"{100 * own['mean'] / full['mean']:.1f} %" if full else "–"
        values = " | ".join(f"{own[label]:.3f}" for label in labels)
        title, rate, seed = ARMS[cell["arm"]], cell["learning_rate"], cell["seed"]
        print(f"| {title} | {cell['trained']:,} | {rate} | {seed} | {values} | {share} |")


def main() -> int:
    """Run an experiment, or only print the tables.

    Returns:
        Exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-dir", type=Path, help="raw data set of the base")
    parser.add_argument("--base-labels", nargs="+", help="what the base learns")
    parser.add_argument("--target-dir", type=Path, help="raw data set of the adaptation; may be the same")
    parser.add_argument("--target-labels", nargs="+", help="what it is adapted to")
    parser.add_argument("--base-steps", type=int, default=1000, help="iterations of the base")
    parser.add_argument("--steps", type=int, default=200, help="iterations of each adaptation")
    parser.add_argument("--val-cases", type=int, default=10, help="validation cases, of the base and of the target")
    parser.add_argument("--test-cases", type=int, default=30, help="test cases of the target")
    parser.add_argument("--work", type=Path, default=Path("runs/adapt"), help="folder of data, runs and predictions")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    args = parser.parse_args()
    if not args.table:
        if None in (args.base_dir, args.base_labels, args.target_dir, args.target_labels):
            parser.error("--base-dir, --base-labels, --target-dir, --target-labels: needed, unless --table is given")
        torch.set_num_threads(1)
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        os.environ.pop("nnUNet_preprocessed", None)  # the derived data sets bring their own folds
        base, target = open_dataset(args.base_dir), open_dataset(args.target_dir)
        split = split_cases(base, target, len(SEEDS), args.val_cases, args.test_cases)
        labels = args.base_labels, args.target_labels
        Experiment(base, labels[0], target, labels[1], split, args.work.resolve(), args.base_steps, args.steps).run()
    print_tables()
    return 0


if __name__ == "__main__":
    sys.exit(main())
