"""The commands of `python -m nnunet_ext`: thin layers over public functions, each imported when it is used."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Args:
        name: What is typed.
        help: One line.
        add_arguments: Declares its arguments.
        run: Does the work; returns the exit code.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after the program's name; those of the process by default.

    Returns:
        The exit code: 0, 1 if `check` found errors or `crf` failed on a case, or 2 if something that the caller gave
        is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m nnunet_ext", description="Methods that plug into nnU-Net.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.help)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    parsed = parser.parse_args(arguments)
    try:
        return parsed.run(parsed)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    pass


def _run_path(parsed: argparse.Namespace) -> int:
    print(Path(__file__).resolve().parent / "trainer_path")
    return 0


def _run_list(parsed: argparse.Namespace) -> int:
    from .overview import overview

    print(overview())
    return 0


def _add_configure_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", dest="dataset", required=True, metavar="DATASET", help="number or name of the data set")
    parser.add_argument("-c", dest="configuration", required=True, help="planned configuration to inherit from")
    parser.add_argument("--name", required=True, help="name of the new configuration")
    parser.add_argument("-p", dest="plans", default="nnUNetPlans", help="plans identifier (default: nnUNetPlans)")
    parser.add_argument(
        "--set",
        dest="settings",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="options, such as network=enet epochs=50; all of them: python -m nnunet_ext list",
    )
    parser.add_argument("--dry-run", action="store_true", help="check and print, but write nothing")


def _run_configure(parsed: argparse.Namespace) -> int:
    import json

    from .configure import configure, locate_weights
    from .options import parse_settings

    result = configure(
        parsed.dataset,
        parsed.configuration,
        parsed.name,
        locate_weights(parse_settings(parsed.settings)),
        plans_identifier=parsed.plans,
        dry_run=parsed.dry_run,
    )
    print(json.dumps({result.name: result.entry}, indent=4))
    done = "Would write" if parsed.dry_run else "Wrote"
    print(f"{done if result.changed else 'Nothing to change in'} {result.plans_path}")
    number = int(result.dataset_name[7:10])
    plans = "" if parsed.plans == "nnUNetPlans" else f" -p {parsed.plans}"
    print("Next:")
    if not result.preprocessed:
        print(f"  nnUNetv2_preprocess -d {number}{plans.replace('-p', '-plans_name')} -c {parsed.configuration}")
    if "nnUNet_extTrainer" not in os.environ:
        print('  export nnUNet_extTrainer="$(python -m nnunet_ext path)"')
    print(f"  nnUNetv2_train {number} {result.name} 0 -tr CustomTrainer{plans}")
    return 0


def _add_phantom_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset_dir", type=Path, help="folder to write, such as nnUNet_raw/Dataset999_Phantom")
    parser.add_argument("--num-training", type=int, default=10, help="training cases (default: 10)")
    parser.add_argument("--num-test", type=int, default=2, help="test cases (default: 2)")
    parser.add_argument("--shape", type=int, nargs=3, default=(128, 128, 64), help="voxels (default: 128 128 64)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases (default: 0)")


def _run_phantom(parsed: argparse.Namespace) -> int:
    from .data.phantom import write_phantom

    numbers = {"num_training": parsed.num_training, "num_test": parsed.num_test, "seed": parsed.seed}
    print(write_phantom(parsed.dataset_dir, shape=tuple(parsed.shape), **numbers))
    return 0


def _add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset_dir", type=Path, help="folder with dataset.json, imagesTr and labelsTr")


def _run_check(parsed: argparse.Namespace) -> int:
    from .data.check import check_dataset

    problems = check_dataset(parsed.dataset_dir, progress=True)
    for problem in problems:
        print(problem)
    errors = sum(problem.fatal for problem in problems)
    print(f"{parsed.dataset_dir}: {errors} error(s), {len(problems) - errors} warning(s)")
    return 1 if errors else 0


def _add_crf_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--predictions", type=Path, required=True, help="folder of <case>.npz by nnU-Net or a bundle")
    parser.add_argument("--images", type=Path, required=True, help="folder with the predicted <case>_0000 images")
    parser.add_argument("--output", type=Path, required=True, help="folder for the refined predictions")
    parser.add_argument("--kind", default="exact", help="exact, or crfseg for that package's layer (default: exact)")
    for name, default, text in (
        ("iterations", 5, "mean-field updates"),
        ("smoothness-weight", 1.0, "weight of the smoothness term in logits; 0 leaves it out"),
        ("smoothness-mm", None, "its bandwidth in mm (default: one voxel of each image, by its smallest side)"),
        ("smoothness-window", 11, "voxels along each axis that it spans, odd"),
        ("appearance-weight", 0.0, "weight of the appearance term in logits; 0 leaves it out"),
        ("appearance-mm", None, "its bandwidth in mm (default: two voxels of each image, by their smallest side)"),
        ("appearance-intensity", 0.5, "its bandwidth in standard deviations of the image"),
        ("appearance-window", 5, "voxels along each axis that it spans, odd"),
    ):
        text += "" if default is None else f" (default: {default})"
        parser.add_argument(f"--{name}", type=int if isinstance(default, int) else float, default=default, help=text)
    parser.add_argument("--device", default="cpu", help="where to compute (default: cpu)")
    parser.add_argument("--overwrite", action="store_true", help="refine finished cases again")


def _run_crf(parsed: argparse.Namespace) -> int:
    import logging

    from .crf_postprocessing import refine_folder

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    terms = ("iterations", "smoothness_", "appearance_")
    options = {name: value for name, value in vars(parsed).items() if name.startswith(terms)}
    result = refine_folder(
        parsed.predictions,
        parsed.images,
        parsed.output,
        field_options=options,
        kind=parsed.kind,
        device=parsed.device,
        overwrite=parsed.overwrite,
    )
    done = f"{len(result.refined)} case(s) refined, {len(result.skipped)} finished before"
    print(f"{parsed.output}: {done}, {len(result.failures)} failed")
    for name, reason in result.failures.items():
        print(f"  {name}: {reason}", file=sys.stderr)
    return 1 if result.failures else 0


COMMANDS = (
    Command("path", "print the folder for nnU-Net's variable nnUNet_extTrainer", _no_arguments, _run_path),
    Command("list", "list networks, trainers and options", _no_arguments, _run_list),
    Command(
        "configure", "write a configuration with options into nnU-Net's plans", _add_configure_arguments, _run_configure
    ),
    Command("check", "check every file of a raw data set", _add_check_arguments, _run_check),
    Command("crf", "refine a folder of predictions with a mean-field CRF", _add_crf_arguments, _run_crf),
    Command("phantom", "write the built-in data set in nnU-Net's raw format", _add_phantom_arguments, _run_phantom),
)
