"""Rewrite a bundle's configurations so that they name the vendored package and the layout of an unzipped copy."""

import ast
import json
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError

_WIDTH = 120


def read_configs(bundle_dir: Path) -> dict[str, dict[str, Any]]:
    """Read the configurations of a bundle, without its metadata.

    Args:
        bundle_dir: The bundle.

    Returns:
        Content by file name.

    Raises:
        UserError: If `inference.json` is missing, or a file is no JSON.
    """
    files = sorted(path for path in (bundle_dir / "configs").glob("*.json") if path.name != "metadata.json")
    if "inference.json" not in {path.name for path in files}:
        raise UserError(f"{bundle_dir / 'configs'}: need inference.json; a bundle without it cannot be exported")
    return {path.name: read_json(path) for path in files}


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON file.

    Args:
        path: The file.

    Raises:
        UserError: If it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: must be a JSON file, but cannot be read ({error})") from error


def named_objects(config: Any) -> Iterator[str]:
    """Yield the full names that a configuration's `_target_` and import strings hold.

    Args:
        config: A configuration or a part of one; targets without a dot are MONAI's and left out.
    """
    if isinstance(config, dict):
        target = config.get("_target_")
        if isinstance(target, str) and "." in target and not target.startswith("$"):
            yield target
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, dict | list):
            yield from named_objects(value)
        elif statement := _import_of(value):
            for alias in statement.names:
                yield alias.name if isinstance(statement, ast.Import) else f"{statement.module}.{alias.name}"


def rewrite_config(
    config: dict[str, Any], bundle: str, package: str, packages: Collection[str], where: str
) -> dict[str, Any]:
    """Return a configuration that works in an unzipped copy.

    `_target_` and import strings get the vendored package's name before them, `bundle_root` becomes ".", wherever it
    is used "." stands for the copy's own folder, and hints lose `bundles/<bundle>/`.

    Args:
        config: Content of the file.
        bundle: Name of the bundle's folder in the repository.
        package: Name of the vendored package.
        packages: Packages of the project.
        where: File, for messages.

    Raises:
        UserError: If an expression names a package of the project other than by an import of the configuration.
    """

    def convert(value: str) -> str:
        if _import_of(value):
            return re.sub(rf"^(\$\s*(?:import|from)\s+)(?={_any_of(packages)}\b)", rf"\g<1>{package}.", value)
        if value.startswith("$") and (used := _names_in(value) & set(packages)):
            raise UserError(f"{where}: give {', '.join(sorted(used))} another name by an import ... as, got {value}")
        if value == "@bundle_root":
            return f"${package}.locate(@bundle_root)"
        if value.startswith("$"):
            value = re.sub(r"@bundle_root\b(?!::)", f"{package}.locate(@bundle_root)", value)
        return exported_paths(value, bundle)

    result = _map_strings(config, convert, lambda target: _prefixed(target, package, packages))
    if "bundle_root" in config:
        result["bundle_root"] = "."
    if "imports" in config:
        result["imports"] = [*result["imports"], f"$import {package}"]
    return result


def rewrite_inference(config: dict[str, Any], package: str, weights: str, warning: str = "") -> dict[str, Any]:
    """Make an already rewritten `inference.json` use the exported weights by default.

    Args:
        config: Content of the file.
        package: Name of the vendored package.
        weights: What the weights are called in `models`.
        warning: Printed when it runs; empty for none.
    """
    result = dict(config)
    result["ckpt_dir"] = f"${package}.locate(@bundle_root, 'models', {weights!r})"
    if warning:
        first, *rest = config["run"]
        result["run"] = [first, f"$print({f'WARNING: {warning}'!r})", *rest]
    return result


def exported_paths(text: str, bundle: str) -> str:
    """Replace the repository's paths of a bundle by those of its unzipped copy.

    Args:
        text: Any text, such as a command in the documentation.
        bundle: Name of the bundle's folder in the repository.
    """
    text = re.sub(rf"\bbundles/{re.escape(bundle)}/(?:configs/)?([\w-]+\.(?:json|conf))\b", r"configs/\1", text)
    text = re.sub(rf"--bundle_path bundles/{re.escape(bundle)}(?![\w/-])", "--bundle_path .", text)
    return re.sub(rf"\bbundles/{re.escape(bundle)}/", "", text)


def to_json(content: Any, indent: int = 0) -> str:
    """Return JSON with a line for each entry, but short lists and objects of one entry on one line.

    Args:
        content: JSON content.
        indent: Depth of the first line.
    """
    flat = json.dumps(content, ensure_ascii=False)
    entries = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    nested = any(isinstance(value, dict | list) for value in entries)
    short = len(flat) + 4 * indent < _WIDTH and (isinstance(content, list) or len(entries) == 1)
    if not entries or (short and not nested):
        return flat
    pad = "    " * (indent + 1)
    if isinstance(content, dict):
        lines = [f"{json.dumps(key, ensure_ascii=False)}: {to_json(v, indent + 1)}" for key, v in content.items()]
    else:
        lines = [to_json(value, indent + 1) for value in content]
    opening, closing = "{}" if isinstance(content, dict) else "[]"
    return f"{opening}\n{pad}" + f",\n{pad}".join(lines) + f"\n{'    ' * indent}{closing}"


def _map_strings(value: Any, convert: Callable[[str], str], convert_target: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {
            key: convert_target(item)
            if key == "_target_" and isinstance(item, str) and not item.startswith("$")
            else _map_strings(item, convert, convert_target)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_map_strings(item, convert, convert_target) for item in value]
    return convert(value) if isinstance(value, str) else value


def _prefixed(name: str, package: str, packages: Collection[str]) -> str:
    return f"{package}.{name}" if name.partition(".")[0] in packages else name


def _any_of(names: Collection[str]) -> str:
    return "(?:" + "|".join(map(re.escape, sorted(names))) + ")"


def _import_of(value: Any) -> ast.Import | ast.ImportFrom | None:
    """Return the import statement that a string of a configuration holds, if it holds one."""
    if not (isinstance(value, str) and re.match(r"\$\s*(import|from)\s", value)):
        return None
    statement = ast.parse(value[1:].strip()).body[0]
    return statement if isinstance(statement, ast.Import | ast.ImportFrom) else None


def _names_in(expression: str) -> set[str]:
    """Return the variables of an expression; references such as `@train::dataset` are none."""
    tree = ast.parse(re.sub(r"@\w[\w:#]*", "reference", expression[1:].strip()))
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
