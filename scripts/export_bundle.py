"""Pack a bundle of this repository into one zip file that works where this project is not installed."""

import argparse
import logging
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from export_code import NeededCode, project_packages
from export_configs import (
    exported_paths,
    named_objects,
    read_configs,
    rewrite_config,
    rewrite_inference,
    to_json,
)

from nnunet_ext.atomic import atomic_path
from nnunet_ext.errors import UserError

logger = logging.getLogger("export_bundle")

ROOT = Path(__file__).resolve().parent.parent
RANDOM_WARNING = "RANDOM WEIGHTS, not trained; predictions are meaningless."
ZOO_LIMIT_MB = 25


def export_bundle(
    bundle: str,
    output: str | Path | None = None,
    *,
    checkpoint: str | Path | None = None,
    random_init: bool = False,
    weights: str = "embed",
    pretrained: str | Path | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    bundles_dir: str | Path = ROOT / "bundles",
) -> Path:
    """Write a bundle as a self-contained zip file in the layout of MONAI's model zoo.

    The same input gives the same bytes.

    Args:
        bundle: Name of a folder of `bundles_dir`.
        output: File to write; `<name>_v<version>.zip` if not given.
        checkpoint: Weights with `plans.json` and `dataset.json` beside them, a file or an adapter folder; if not
            given, the bundle's `models/model.pt`, else the newest best model below `runs_dir/<bundle>`.
        random_init: Whether to take fresh weights instead, marked as such.
        weights: `embed`: the archive holds the whole model; `link`: what was trained, and in `large_files.yml` the
            address of the frozen weights.
        pretrained: Where an adapter's frozen weights lie, if not where they lay in training or in the bundle.
        name: Name of the exported bundle, of its folder in the archive and (with `_bundle`) of its package; that of
            the bundle if not given. Two bundles in one process need two names.
        runs_dir: Folder of runs.
        bundles_dir: Folder of bundles.

    Returns:
        The file.

    Raises:
        UserError: If the bundle, an option or the checkpoint cannot be used.
    """
    source, name, output = _check_arguments(bundle, output, checkpoint, random_init, name, Path(bundles_dir))
    _check_weights(weights, random_init, source)
    # torch and MONAI take seconds to import; a mistyped option needn't wait for them
    from export_link import export_linked_weights
    from export_metadata import check_requirements, describe_model, read_metadata
    from export_usage import usage
    from export_weights import choose_checkpoint, export_random_weights, export_weights

    configs, metadata = read_configs(source), read_metadata(source)
    code = _needed_code(configs)
    check_requirements(metadata, code.third_party)
    warning = RANDOM_WARNING if random_init else ""
    with tempfile.TemporaryDirectory() as temporary:
        staging = Path(temporary) / name
        models_dir = staging / "models"
        models_dir.mkdir(parents=True)
        _copy_documents(source, staging)
        if random_init:
            logger.warning(f"WARNING: {RANDOM_WARNING}")
            card = export_random_weights(source, models_dir, metadata, *_demo_network(configs, bundle))
        else:
            chosen = Path(checkpoint) if checkpoint else choose_checkpoint(source, Path(runs_dir) / bundle)
            logger.info(f"weights: {chosen}")
            export = export_linked_weights if weights == "link" else export_weights
            card = export(source, models_dir, chosen, pretrained)
        _add_inner_network(code, card.network_options)
        check_requirements(metadata, code.third_party)
        entry = "adapter" if weights == "link" else "model.pt"
        _write_configs(staging, configs, describe_model(metadata, card, warning), bundle, entry, warning)
        _complete_readme(staging, bundle, usage(name, f"{name}_bundle", entry, card), warning)
        code.copy(staging, f"{name}_bundle", name)
        target = output or Path(f"{name}_v{metadata['version']}.zip")
        _write_zip(staging, target)
    return target


def _check_arguments(
    bundle: str,
    output: str | Path | None,
    checkpoint: str | Path | None,
    random_init: bool,
    name: str | None,
    bundles_dir: Path,
) -> tuple[Path, str, Path | None]:
    known = sorted(path.parent.name for path in bundles_dir.glob("*/configs"))
    if bundle not in known:
        raise UserError(f"bundle must be one of {', '.join(known) or 'none'} (folders of {bundles_dir}), got {bundle}")
    if checkpoint is not None and random_init:
        raise UserError("need one of --checkpoint and --random-init, got both")
    name = bundle if name is None else name
    if not name.isidentifier():
        raise UserError(f"name must consist of letters, digits and _, as it names a Python package, got {name!r}")
    if output is not None and (Path(output).suffix != ".zip" or Path(output).is_dir()):
        raise UserError(f"output must be a file that ends in .zip, got {output}")
    return bundles_dir / bundle, name, None if output is None else Path(output)


def _check_weights(weights: str, random_init: bool, source: Path) -> None:
    if weights not in ("embed", "link"):
        raise UserError(f"weights must be embed or link, got {weights}")
    if weights == "embed":
        return
    if random_init:
        raise UserError("weights: link needs frozen weights of a file, got --random-init; use --weights embed")
    if not list(source.glob("large_files.y*ml")):
        raise UserError(
            f"weights: link needs a bundle that starts from published weights; {source.name} has no large_files.yml, "
            "all its weights are its own; use --weights embed"
        )


def _needed_code(configs: dict[str, dict[str, Any]]) -> NeededCode:
    code = NeededCode(ROOT)
    for file, config in configs.items():
        for dotted in named_objects(config):
            code.add(dotted, f"configs/{file}")
    return code


def _add_inner_network(code: NeededCode, network_options: dict[str, Any]) -> None:
    """Add the network that another one refines: the description of the model names it, no configuration does."""
    from nnunet_ext.networks import available

    if base := network_options.get("base"):
        info = available()[base]
        code.add(f"{info.module}.{info.class_name}", "models/plans.json")


def _demo_network(configs: dict[str, dict[str, Any]], bundle: str) -> tuple[tuple[int, int], dict[str, Any]]:
    """Return canvas and options of the network that the demo trains, for random weights."""
    from nnunet_ext.networks import available

    train = configs.get("train.json", {})
    values = {**train, **configs.get("demo.json", {})}
    size = values.get("image_size")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) for n in size)):
        raise UserError(f"configs/train.json: image_size must be [height, width] for --random-init, got {size!r}")
    options = train.get("network_options", {})
    if isinstance(options, dict):
        return (size[0], size[1]), {name: values[name] for name in options}
    # an expression asks a trained network, which is not there: take the defaults of the one that the bundle is named by
    return (size[0], size[1]), available()[bundle].options()


def _write_configs(
    staging: Path,
    configs: dict[str, dict[str, Any]],
    metadata: dict[str, Any],
    bundle: str,
    entry: str,
    warning: str,
) -> None:
    package, packages = f"{staging.name}_bundle", project_packages(ROOT)
    folder = staging / "configs"
    folder.mkdir(exist_ok=True)
    rewritten = {
        file: rewrite_config(config, bundle, package, packages, f"configs/{file}") for file, config in configs.items()
    }
    rewritten["inference.json"] = rewrite_inference(rewritten["inference.json"], package, entry, warning)
    for file, content in {**rewritten, "metadata.json": metadata}.items():
        (folder / file).write_text(to_json(content) + "\n", encoding="utf-8")


def _copy_documents(source: Path, staging: Path) -> None:
    """Copy licence, documents and other configuration files."""
    files = [source / "LICENSE", *source.glob("large_files.y*ml"), *source.glob("docs/**/*")]
    files += [path for path in source.glob("configs/*") if path.suffix != ".json"]
    for path in sorted(path for path in files if path.is_file()):
        target = staging / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    if not (staging / "LICENSE").is_file():
        raise UserError(f"{source}: need a file LICENSE; a bundle without one must not be shared")


def _complete_readme(staging: Path, bundle: str, usage: str, warning: str) -> None:
    """Tell how the copy is used, and warn first if there is a warning."""
    readme = staging / "docs" / "README.md"
    readme.parent.mkdir(exist_ok=True)
    text = readme.read_text(encoding="utf-8") if readme.is_file() else f"# {staging.name}\n"
    text = exported_paths(text, bundle).rstrip() + usage
    readme.write_text(f"**{warning}**\n\n{text}" if warning else text, encoding="utf-8")


def _write_zip(staging: Path, target: Path) -> None:
    """Write a folder as a zip file of sorted names and fixed times, atomically."""
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in staging.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(staging.parent).as_posix(), date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            content = path.read_bytes()
            archive.writestr(entry, content)
            if len(content) > ZOO_LIMIT_MB * 1_000_000:
                logger.warning(
                    f"WARNING: {entry.filename} has {len(content) / 1e6:.0f} MB; MONAI's model zoo takes at most "
                    f"{ZOO_LIMIT_MB} MB a file and wants larger ones in large_files.yml"
                )


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; those of this process if not given.

    Returns:
        Exit code: 0, or 2 after an error.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", help="folder below bundles/, such as enet")
    parser.add_argument("--output", type=Path, help="zip file to write (default: <name>_v<version>.zip)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights or adapter folder, with plans.json and dataset.json beside "
        "(default: the bundle's models/model.pt, else the newest best model below runs/<bundle>)",
    )
    source.add_argument("--random-init", action="store_true", help="fresh weights, to try the format")
    parser.add_argument(
        "--weights",
        choices=("embed", "link"),
        default="embed",
        help="link: frozen weights stay out of the archive; its large_files.yml says where they are fetched",
    )
    parser.add_argument(
        "--pretrained",
        type=Path,
        metavar="FILE",
        help="the frozen weights that an adapter was trained on, if they have moved since",
    )
    parser.add_argument("--name", help="name of the exported bundle and its package (default: that of the bundle)")
    options = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logger.setLevel(logging.INFO)
    try:
        file = export_bundle(**vars(options))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
