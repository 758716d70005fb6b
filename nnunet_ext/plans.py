"""nnU-Net's plans files: where they lie, inheritance between configurations, the section of this project."""

import json
import os
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from .errors import OptionError
from .options import PLANS_KEYS, Options
from .recipe import differences, from_section, refuse_untrainable, resolve

SECTION = "nnunet_ext"
"""Key of the configuration under which the options stand."""


def resolve_configuration(plans: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration with all that it inherits; inheritance is shallow, as in nnU-Net.

    Args:
        plans: Content of a plans file.
        name: Name of the configuration.

    Raises:
        OptionError: If the configuration, or one that it inherits from, doesn't exist, or they inherit in a circle.
    """
    chain: list[dict[str, Any]] = []
    seen: list[str] = []
    current: str | None = name
    while current is not None:
        if current not in plans["configurations"]:
            raise OptionError(
                f"configuration {current!r} is not in the plans; there are: {', '.join(plans['configurations'])}"
            )
        if current in seen:
            raise OptionError(f"configurations inherit from each other in a circle: {' -> '.join([*seen, current])}")
        seen.append(current)
        chain.append(plans["configurations"][current])
        current = chain[-1].get("inherits_from")
    merged: dict[str, Any] = {}
    for configuration in reversed(chain):
        merged.update(deepcopy(configuration))
    return merged


def with_section(plans: Mapping[str, Any], name: str, preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of plans in which a configuration carries its complete section.

    Args:
        plans: Content of a plans file.
        name: Name of the configuration.
        preset: Options of the trainer; what the configuration already says wins.

    Raises:
        OptionError: If the options are not allowed or contradict the preset.
    """
    completed = deepcopy(dict(plans))
    configuration = resolve_configuration(plans, name)
    section, patch_size, spacing_mm = configuration.get(SECTION), configuration["patch_size"], configuration["spacing"]
    try:
        if section is not None:
            from_section(section, patch_size, spacing_mm)
            preset = {key: value for key, value in preset.items() if key not in PLANS_KEYS}
        options = resolve(section or {}, patch_size=patch_size, spacing_mm=spacing_mm, preset=preset)
        refuse_untrainable(options)
    except OptionError as error:
        raise OptionError(f"configuration {name}: {error}") from error
    completed["configurations"][name].update({**options.plans_values(), SECTION: options.section()})
    return completed


def saved_options(model_dir: str | os.PathLike, name: str) -> Options | None:
    """Return the options that a trained model was saved with, None if there are none.

    Args:
        model_dir: nnU-Net's folder of one trainer and configuration, which holds `plans.json`.
        name: Name of the configuration.
    """
    path = Path(model_dir) / "plans.json"
    if not path.is_file():
        return None
    configuration = resolve_configuration(json.loads(path.read_text(encoding="utf-8")), name)
    section = configuration.get(SECTION)
    if section is None:
        return None
    return from_section(section, configuration["patch_size"], configuration["spacing"])


def refuse_other_options(
    model_dir: str | os.PathLike, name: str, options: Options, without_fold: int | str | None = None
) -> None:
    """Refuse options that differ from those beside trained weights: prediction would use them for all folds.

    Args:
        model_dir: nnU-Net's folder of one trainer and configuration.
        name: Name of the configuration.
        options: Options of the training that wants to use the folder.
        without_fold: A fold whose weights do not count, because the training replaces them.

    Raises:
        OptionError: If there are weights, and they were trained with other options.
    """
    folder = Path(model_dir)
    checkpoints = [
        path for path in folder.glob("fold_*/checkpoint_*.pth") if path.parent.name != f"fold_{without_fold}"
    ]
    saved = saved_options(folder, name) if checkpoints else None
    changed = differences(saved, options) if saved is not None else []
    if changed:
        raise OptionError(
            f"{folder} holds models trained with other options ({'; '.join(changed)}); "
            "delete the folder, or train a configuration of another name"
        )


def environment_dir(variable: str) -> Path:
    """Return the folder that one of nnU-Net's environment variables names.

    Raises:
        OptionError: If it is not set, or there is no such folder.
    """
    value = os.environ.get(variable)
    if not value:
        raise OptionError(
            f"the environment variable {variable} is not set; set it to the folder that nnU-Net uses: "
            f"export {variable}=/path/to/folder"
        )
    if not Path(value).is_dir():
        raise OptionError(f"the environment variable {variable} must name a folder, got {value}; make it or correct it")
    return Path(value)


def find_dataset_dir(dataset: str) -> Path:
    """Return the preprocessed folder of a data set.

    Args:
        dataset: Number, such as `4`, or full name, such as `Dataset004_Hippocampus`.

    Raises:
        OptionError: If the data set is not there, or its number is not unique.
    """
    root = environment_dir("nnUNet_preprocessed")
    if re.fullmatch(r"\d{1,3}", dataset):
        found = sorted(path.name for path in root.glob(f"Dataset{int(dataset):03d}_*") if path.is_dir())
    elif re.fullmatch(r"Dataset\d{3}_.+", dataset):
        found = [dataset] if (root / dataset).is_dir() else []
    else:
        raise OptionError(f"-d must be a number such as 4 or a name such as Dataset004_Hippocampus, got {dataset!r}")
    if len(found) > 1:
        raise OptionError(f"data set {dataset} is not unique in {root}: {', '.join(found)}; give the full name")
    if not found:
        number = dataset if dataset.isdigit() else str(int(dataset[7:10]))
        raise OptionError(
            f"data set {dataset} is not planned yet (nothing in {root}); "
            f"first run: nnUNetv2_plan_and_preprocess -d {number} -c 2d"
        )
    return root / found[0]


def read_plans(dataset_dir: Path, identifier: str) -> tuple[Path, dict[str, Any]]:
    """Return the path and the content of a plans file.

    Raises:
        OptionError: If it is not there, or is not a plans file.
    """
    path = dataset_dir / f"{identifier}.json"
    if not path.is_file():
        others = sorted(other.stem for other in dataset_dir.glob("*.json") if _has_configurations(other))
        number = int(dataset_dir.name[7:10])
        hint = f"there are: {', '.join(others)}" if others else f"first run: nnUNetv2_plan_and_preprocess -d {number}"
        raise OptionError(f"data set {dataset_dir.name} has no plans {identifier!r}; {hint}")
    if not _has_configurations(path):
        raise OptionError(f"{path} is not an nnU-Net plans file: it has no configurations")
    return path, json.loads(path.read_text(encoding="utf-8"))


def _has_configurations(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return False
    return isinstance(content, dict) and isinstance(content.get("configurations"), dict)


def trained_models(dataset_name: str, identifier: str, configuration: str) -> list[Path]:
    """Return the folders of models that were trained on a configuration, by any trainer.

    Raises:
        OptionError: If `nnUNet_results` is not set.
    """
    root = environment_dir("nnUNet_results") / dataset_name
    folders = root.glob(f"*__{identifier}__{configuration}")
    return sorted(folder for folder in folders if any(folder.glob("fold_*/checkpoint_*.pth")))
