"""Who may import whom: the packages stay apart as the design says, read from the sources."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("evaluation", "sam_lora", "nnunet_ext")
NEVER = ("scripts", "tests", "bundles")


@dataclass(frozen=True)
class Import:
    """One import: the importing module, the full name of what it imports, and how it is written."""

    importer: str
    target: str
    relative: bool
    at_import_time: bool
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def imports_of(source: str, importer: str, is_package: bool = False) -> Iterator[Import]:
    """Yield the imports of a module, those inside functions too.

    Args:
        source: Text of the module.
        importer: Full name of the module.
        is_package: Whether it is an `__init__`.
    """
    yield from _walk(ast.parse(source), importer, is_package, at_import_time=True)


def _walk(node: ast.AST, importer: str, is_package: bool, at_import_time: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(importer, alias.name, False, at_import_time, child.lineno)
        elif isinstance(child, ast.ImportFrom):
            base = _base(child, importer, is_package)
            for alias in child.names:
                target = f"{base}.{alias.name}".strip(".")
                yield Import(importer, target, child.level > 0, at_import_time, child.lineno)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        yield from _walk(child, importer, is_package, at_import_time and not is_function and not for_types_only)


def _base(node: ast.ImportFrom, importer: str, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parts = importer.split(".")
    parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*parts, node.module] if node.module else parts)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def fault(found: Import) -> str:
    """Return why an import is not allowed, empty if it is."""
    package = found.importer.split(".", maxsplit=1)[0]
    own = within(found.target, package)
    if within(found.target, *NEVER):
        return "nobody imports scripts, tests or bundles"
    if own and not found.relative:
        return "a package imports its own modules relatively"
    if package in ("evaluation", "sam_lora") and not own and within(found.target, *PACKAGES):
        return f"{package} imports nothing of this project"
    in_trainers = within(found.importer, "nnunet_ext.trainers")
    if package == "nnunet_ext" and not in_trainers and within(found.target, "nnunet_ext.trainers"):
        return "only trainers import trainers"
    if in_trainers and within(found.target, "evaluation"):
        return "trainers import nnunet_ext, sam_lora and nnunetv2"
    if within(found.importer, "nnunet_ext.networks") and found.at_import_time and within(found.target, "nnunetv2"):
        return "networks can be imported without nnunetv2"
    return ""


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_no_package_imports_what_it_must_not():
    found = [i for name, path in modules() for i in imports_of(path.read_text(), name, path.name == "__init__.py")]
    assert len(found) > 50
    assert [f"{i}: {fault(i)}" for i in found if fault(i)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_modules_is_a_package(package):
    folders = {path.parent for path in (REPOSITORY / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_scripts_is_no_package():
    assert not (REPOSITORY / "scripts" / "__init__.py").exists()


def test_bundles_name_no_trainer_and_no_nnunet():
    forbidden = re.compile(r"nnunet_ext\.trainers|nnunetv2\.|\b(scripts|tests)\.\w+\.")
    configs = sorted((REPOSITORY / "bundles").rglob("configs/*.json"))
    hits = [f"{path}: {match[0]}" for path in configs for match in forbidden.finditer(path.read_text())]
    assert hits == []


@pytest.mark.parametrize(
    ("importer", "source", "reason"),
    [
        ("evaluation.a", "import nnunet_ext.data", "evaluation imports nothing of this project"),
        ("evaluation.a", "def f():\n    from sam_lora import SAMed", "evaluation imports nothing of this project"),
        ("evaluation.a", "from evaluation.b import c", "relatively"),
        ("evaluation.a", "from .b import c", ""),
        ("evaluation.a", "import numpy, evaluation_tools", ""),
        ("sam_lora.a", "from nnunet_ext import data", "sam_lora imports nothing of this project"),
        ("nnunet_ext.data.a", "from ..trainers import CustomTrainer", "only trainers import trainers"),
        ("nnunet_ext.a", "from . import trainers", "only trainers import trainers"),
        ("nnunet_ext.data.a", "from ..networks import ENet", ""),
        ("nnunet_ext.data.a", "from scripts.export import x", "nobody imports scripts"),
        ("nnunet_ext.networks.a", "from nnunetv2.utilities import x", "without nnunetv2"),
        ("nnunet_ext.networks.a", "class A:\n    import nnunetv2", "without nnunetv2"),
        ("nnunet_ext.networks.a", "def f():\n    import nnunetv2", ""),
        ("nnunet_ext.networks.a", "if TYPE_CHECKING:\n    import nnunetv2", ""),
        ("nnunet_ext.trainers.a", "import nnunetv2\nfrom sam_lora import SAMed\nfrom ..data import x", ""),
        ("nnunet_ext.trainers.a", "import evaluation", "trainers import nnunet_ext, sam_lora and nnunetv2"),
    ],
)
def test_the_rules_tell_allowed_from_forbidden(importer, source, reason):
    reasons = [fault(found) for found in imports_of(source, importer)]
    assert all(reason in one and bool(one) == bool(reason) for one in reasons)
    assert reasons


def test_relative_imports_of_an_init_start_at_its_own_folder():
    (found,) = imports_of("from .enet import ENet", "nnunet_ext.networks", is_package=True)
    assert found.target == "nnunet_ext.networks.enet.ENet"
