"""Leave the weights that a network started from out of an exported bundle, and say where they are fetched."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from export_weights import build_network, load_weights, write_card
from monai.bundle import ConfigParser

from nnunet_ext.bundle import ModelCard
from nnunet_ext.bundle.checkpoints import ADAPTER_DIR, find_base_file, is_adapter
from nnunet_ext.errors import UserError
from sam_lora.adapter_folder import BASE, BaseFile, read_base
from sam_lora.checkpoint_file import CheckpointError

logger = logging.getLogger("export_bundle")


def export_linked_weights(
    bundle_dir: Path, models_dir: Path, checkpoint: Path, pretrained: str | Path | None = None
) -> ModelCard:
    """Write `adapter`, what was trained, with `plans.json` and `dataset.json`; and `large_files.yml` beside `models`.

    Args:
        bundle_dir: The bundle, whose `inference.json` defines the network and whose `large_files.yml` the address.
        models_dir: Folder to write.
        checkpoint: Weights with their description and an adapter folder beside them, or such a folder.
        pretrained: Where the frozen weights lie, if not where they lay or in the bundle.

    Returns:
        The description of the model.

    Raises:
        UserError: If the frozen weights came from no file, from one without an address, or are missing; or if they
            and what was trained do not make up the checkpoint.
    """
    card = write_card(checkpoint, models_dir)
    folder = checkpoint if is_adapter(checkpoint) else checkpoint.parent / ADAPTER_DIR
    if not is_adapter(folder):
        raise UserError(
            f"weights: link needs the record of the file that frozen weights came from, but {folder} does not exist: "
            "they came from no file (pretrained was none), or all weights were trained (tuning=all); use embed"
        )
    network: Any = build_network(bundle_dir, models_dir)
    base = find_base_file(network, folder, pretrained, bundle_dir)
    entry = _large_file(bundle_dir, folder, base.sha256)
    load_weights(network, checkpoint, base.path, bundle_dir)
    network.base_file = BaseFile(Path(entry["path"]), base.sha256)
    restored: Any = build_network(bundle_dir, models_dir)
    try:
        network.save_adapter(models_dir / ADAPTER_DIR)
        restored.restore(models_dir / ADAPTER_DIR, base)
    except CheckpointError as error:
        raise UserError(f"weights: link is not possible for {checkpoint}: {error}; use embed") from error
    _forget_place(models_dir / ADAPTER_DIR / BASE)
    _check_equal(network, restored, f"{checkpoint}: frozen weights must be those of {base.path}")
    _write_large_files(models_dir.parent, entry)
    return card


def _large_file(bundle_dir: Path, folder: Path, sha256: str) -> dict[str, Any]:
    """Return the entry of the bundle's large files for the file that an adapter was trained on."""
    name = read_base(folder)["file"]
    entries: list[dict[str, Any]] = []
    for file in sorted(bundle_dir.glob("large_files.y*ml")):
        entries += ConfigParser.load_config_file(file).get("large_files") or []
    entry = next((entry for entry in entries if Path(entry.get("path", "")).name == name and entry.get("url")), None)
    if entry is None:
        known = ", ".join(Path(entry.get("path", "")).name for entry in entries) or "none"
        raise UserError(
            f"weights: link needs an address of {name}, on which {folder} was trained; {bundle_dir}/large_files.yml "
            f"has {known}; add an entry with path and url, or use embed"
        )
    given = entry.get("hash_val") or sha256
    if given != sha256 and entry.get("hash_type", "sha256") == "sha256":
        raise UserError(
            f"weights: {name} at {entry['url']} has the SHA-256 {given} (large_files.yml), but {folder} was trained on "
            f"{sha256}; use embed"
        )
    if not entry.get("hash_val"):
        logger.warning(
            f"{bundle_dir}/large_files.yml has no hash of {name}: whether {entry['url']} gives the file that "
            f"{folder} was trained on is not checked here, but when it is downloaded"
        )
    return {**entry, "hash_val": sha256, "hash_type": "sha256"}


def _forget_place(record: Path) -> None:
    content = json.loads(record.read_text(encoding="utf-8"))
    del content["path"]  # a place on this machine
    record.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _check_equal(network: Any, restored: Any, claim: str) -> None:
    other = restored.state_dict()
    # to rounding: PiSSA's remainder, for one, is computed from the frozen weights again
    odd = [n for n, v in network.state_dict().items() if not torch.allclose(v, other[n], rtol=1e-4, atol=1e-5)]
    if odd:
        raise UserError(f"{claim}, but {len(odd)} tensors differ, such as {odd[0]}; use --weights embed")


def _write_large_files(folder: Path, entry: dict[str, Any]) -> None:
    for other in folder.glob("large_files.y*ml"):
        other.unlink()
    listed = "\n  ".join(f"{key}: {json.dumps(value)}" for key, value in entry.items())
    text = f"# The frozen weights that models/{ADAPTER_DIR} was trained on.\nlarge_files:\n- {listed}\n"
    (folder / "large_files.yml").write_text(text, encoding="utf-8")
