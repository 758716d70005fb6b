"""Networks that upstream lacks, one a module; the file name is the key that `network=` takes.

A network module `<key>.py` holds one public class whose lower-cased name, without underscores,
is the key without underscores (`enet.py` -> `ENet`). The class

* is built as `Network(in_channels, num_classes, **options)`, every option keyword-only with a default;
* names what it can do in class attributes: `spatial_dims` (tuple of 2 and/or 3, written as a literal);
* takes a `spatial_dims` option too if it can do both;
* keeps contract 2: `forward(x[B, C, *S]) -> logits[B, K, *S]`, float, no softmax.

Modules whose name starts with an underscore, and modules without such a class, are not networks.

The modules of the sibling package `sam_lora.networks` are found in the same way, without importing it.
Classes are importable from here by name (`from nnunet_ext.networks import ENet`); a module is imported when its
class is first asked for. Everything is found relative to this package, so a vendored copy finds its own networks.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_SIBLING = "sam_lora"


@dataclass(frozen=True)
class NetworkInfo:
    """What a network's source says about it, read without importing it.

    Attributes:
        key: The file name, which `network=` takes.
        class_name: Name of the class, empty if the file can't be read as Python.
        module: Full name of the module.
        spatial_dims: Spatial dimensions that the network can do, of 2 and 3.
        summary: First line of the class's docstring.
        error: Why the network can't be used, empty if nothing is known to be wrong.
    """

    key: str
    class_name: str
    module: str
    spatial_dims: tuple[int, ...] = ()
    summary: str = ""
    error: str = ""

    def load(self) -> type[nn.Module]:
        """Import the module and return the network's class.

        Raises:
            ImportError: If the module is known to be broken or fails to import.
        """
        if self.error:
            raise ImportError(f"network '{self.key}' can't be used: {self.error}")
        try:
            return getattr(importlib.import_module(self.module), self.class_name)
        except Exception as error:
            raise ImportError(
                f"network '{self.key}' can't be used: importing {self.module} failed with "
                f"{type(error).__name__}: {error}"
            ) from error

    def options(self) -> dict[str, Any]:
        """Import the module and return the network's options with their defaults.

        Raises:
            ImportError: As `load`.
        """
        parameters = inspect.signature(self.load()).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "spatial_dims"}


def available() -> dict[str, NetworkInfo]:
    """Return every network that is installed, by key, in alphabetical order.

    Sources are read, not imported: one broken module hides no other. It is listed with its `error`; an error that
    shows only on import is reported by `NetworkInfo.load`.
    """
    networks: dict[str, NetworkInfo] = {}
    for module, path in _modules():
        info = _read(module, path)
        if info is None:
            continue
        if info.key in networks:
            clash = f"two modules have this key, {networks[info.key].module} and {info.module}; rename one"
            info = NetworkInfo(info.key, info.class_name, info.module, error=clash)
        networks[info.key] = info
    return dict(sorted(networks.items()))


def network_class(key: str) -> type[nn.Module]:
    """Return the class of a network.

    Args:
        key: A key of `available()`.

    Raises:
        ValueError: If there is no such network.
        ImportError: If the network's module is broken.
    """
    networks = available()
    if key not in networks:
        raise ValueError(f"network must be one of {_names(networks)}, got {key!r}")
    return networks[key].load()


def build_network(key: str, in_channels: int, num_classes: int, spatial_dims: int = 2, **options: Any) -> nn.Module:
    """Build a network by its key.

    Args:
        key: A key of `available()`.
        in_channels: Channels of the input, >= 1.
        num_classes: Classes including background, >= 1.
        spatial_dims: 2 for images, 3 for volumes.
        **options: The network's own options.

    Returns:
        The network with fresh weights, in training mode, on the CPU.

    Raises:
        ValueError: If the key, an option or the number of spatial dimensions is not one of the allowed ones.
        ImportError: If the network's module is broken.
    """
    network = network_class(key)
    networks = available()
    info = networks[key]
    if spatial_dims not in info.spatial_dims:
        able = [other.key for other in networks.values() if spatial_dims in other.spatial_dims]
        raise ValueError(
            f"network '{key}' must have spatial_dims in {set(info.spatial_dims)}, got {spatial_dims!r}; "
            f"networks that can do {spatial_dims!r}: {_names(able)}"
        )
    allowed = info.options()
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise ValueError(f"options of network '{key}' must be among {_names(allowed)}, got {_names(unknown)}")
    if "spatial_dims" in inspect.signature(network).parameters:
        options["spatial_dims"] = spatial_dims
    return network(in_channels, num_classes, **options)


def _modules() -> Iterator[tuple[str, Path]]:
    """Yield the full name and the file of each module that may hold a network."""
    root = __name__.rpartition(".")[0].rpartition(".")[0]
    sibling = f"{root}.{_SIBLING}" if root else _SIBLING
    spec = importlib.util.find_spec(sibling)  # finds a package without running its code
    packages = [(__name__, Path(folder)) for folder in __path__]
    if spec is not None and spec.submodule_search_locations:
        packages += [(f"{sibling}.networks", Path(folder) / "networks") for folder in spec.submodule_search_locations]
    for package, folder in packages:
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith(("_", ".")):
                yield f"{package}.{path.stem}", path


def _read(module: str, path: Path) -> NetworkInfo | None:
    """Return what the source file of a module says, or None if it holds no network."""
    key = path.stem
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (OSError, SyntaxError, ValueError) as error:
        return NetworkInfo(key, "", module, error=f"{path}: {type(error).__name__}: {error}")
    wanted = key.replace("_", "").lower()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.replace("_", "").lower() == wanted:
            summary = (ast.get_docstring(node) or "").partition("\n")[0]
            dims = _literal_dims(node)
            fault = "" if dims else f"{path}: {node.name} must have spatial_dims = (2,), (3,) or (2, 3) as a literal"
            return NetworkInfo(key, node.name, module, dims, summary, fault)
    return None


def _literal_dims(node: ast.ClassDef) -> tuple[int, ...]:
    """Return the class attribute `spatial_dims`, or () if it is missing or not a tuple of 2 and/or 3."""
    for statement in node.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "spatial_dims" for target in targets):
            try:
                dims = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
            except (ValueError, TypeError, AttributeError):
                return ()
            return dims if isinstance(dims, tuple) and dims and set(dims) <= {2, 3} else ()
    return ()


def _names(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        for info in available().values():
            if info.class_name == name and info.module.startswith(f"{__name__}."):
                return info.load()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    own = (info.class_name for info in available().values() if info.module.startswith(f"{__name__}."))
    return sorted({*globals(), *filter(None, own)})
