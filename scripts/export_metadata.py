"""Check a bundle's metadata and fit it to the exported model."""

import re
from collections.abc import Mapping
from copy import deepcopy
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from export_configs import read_json

from nnunet_ext.bundle import ModelCard
from nnunet_ext.errors import UserError

_OWN_VERSIONS = {"torch": "pytorch_version", "monai": "monai_version", "numpy": "numpy_version"}


def read_metadata(bundle_dir: Path) -> dict[str, Any]:
    """Read a bundle's metadata.

    Args:
        bundle_dir: The bundle.

    Raises:
        UserError: If an entry that the export needs is missing, or the changelog lacks the version.
    """
    file = bundle_dir / "configs" / "metadata.json"
    metadata = read_json(file)
    needed = ("version", "changelog", "required_packages_version", "network_data_format", *_OWN_VERSIONS.values())
    if missing := [key for key in needed if key not in metadata]:
        raise UserError(f"{file}: entries {missing} are missing")
    version, changelog = metadata["version"], metadata["changelog"]
    if version not in changelog:
        raise UserError(f"{file}: version {version} must be in its changelog, got {', '.join(changelog)}; add it")
    return metadata


def check_requirements(metadata: Mapping[str, Any], imported: Mapping[str, str]) -> None:
    """Check that the metadata lists every distribution that the vendored code imports.

    Args:
        metadata: Content of `metadata.json`.
        imported: Place of the first import of each top-level name.

    Raises:
        UserError: Naming the missing ones.
    """
    listed = {_normalized(name) for name in metadata["required_packages_version"]}
    owners = packages_distributions()
    missing = []
    for name, where in sorted(imported.items()):
        distributions = owners.get(name, [name])
        if name not in _OWN_VERSIONS and not any(_normalized(owner) in listed for owner in distributions):
            missing.append(f"{distributions[0]} ({where} imports {name})")
    if missing:
        raise UserError(
            f"metadata.json: required_packages_version must list what the bundle's code imports, "
            f"missing: {'; '.join(missing)}; add them with their versions"
        )


def describe_model(metadata: Mapping[str, Any], card: ModelCard, warning: str = "") -> dict[str, Any]:
    """Return the metadata of one trained model.

    Args:
        metadata: That of the bundle.
        card: Description of the model.
        warning: Put before what people read first; empty for none.
    """
    result = deepcopy(dict(metadata))
    names = card.dataset_json["channel_names"]
    channels = {str(number): names[key] for number, key in enumerate(sorted(names, key=int))}
    outputs = list(card.label_map.names) if card.label_map.has_regions else ["background", *card.label_map.names]
    image, pred = result["network_data_format"]["inputs"]["image"], result["network_data_format"]["outputs"]["pred"]
    if image.get("channel_def") != channels:
        image["modality"] = ", ".join(dict.fromkeys(channels.values()))
        image["format"] = "hounsfield" if {name.casefold() for name in channels.values()} == {"ct"} else "magnitude"
    image |= {"num_channels": len(channels), "channel_def": channels}
    pred |= {"num_channels": len(outputs), "channel_def": {str(number): name for number, name in enumerate(outputs)}}
    result["image_classes"] = "; ".join(f"{number} {name}" for number, name in channels.items())
    result["label_classes"] = "; ".join(f"{value} {name}" for name, value in card.dataset_json["labels"].items())
    result["pred_classes"] = "logits: " + "; ".join(f"{number} {name}" for number, name in enumerate(outputs))
    result["data_source"] = card.dataset_name
    if warning:
        for key in ("name", "description", "intended_use"):
            result[key] = f"{warning} {result.get(key, '')}".strip()
    return result


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
