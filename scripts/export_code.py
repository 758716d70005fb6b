"""Find the modules of this project that a bundle needs, by reading their imports, and copy them into a package."""

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_ext.errors import UserError

_PACKAGE_SOURCE = '''"""Code of the bundle `{name}`: unchanged copies of modules of medseg-plugins."""

from pathlib import Path


def locate(bundle_root: str, *parts: str) -> str:
    """Return a path inside the bundle; "." stands for the bundle in which this package lies.

    Args:
        bundle_root: The configuration's bundle_root.
        *parts: Folders and file below it.
    """
    root = Path(__file__).resolve().parent.parent if str(bundle_root) == "." else Path(bundle_root)
    return str(root.joinpath(*parts))
'''


def project_packages(root: Path) -> list[str]:
    """List the importable packages of the project.

    Args:
        root: Root of the repository.
    """
    return sorted(path.parent.name for path in root.glob("*/__init__.py"))


@dataclass
class NeededCode:
    """Modules of the project and what they import from elsewhere.

    Args:
        root: Root of the repository.
        modules: File of each needed module, by full name, packages on the way included.
        third_party: Top-level names imported from other distributions, each with the place of its first import.
    """

    root: Path
    modules: dict[str, Path] = field(default_factory=dict)
    third_party: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._packages = set(project_packages(self.root))
        self._trees: dict[str, ast.Module] = {}

    def add(self, dotted: str, where: str) -> None:
        """Add what a configuration names, and all that it needs.

        Args:
            dotted: Full name of a module, or of an object in one.
            where: Who names it, for messages.

        Raises:
            UserError: If the project has no such object, or its modules cannot be vendored.
        """
        parts = dotted.split(".")
        if parts[0] not in self._packages:
            self._add_third_party(parts[0], where)
            return
        length = max(n for n in range(1, len(parts) + 1) if self._find(".".join(parts[:n])))
        module = ".".join(parts[:length])
        self._add_module(module)
        if length < len(parts):
            self._add_attribute(module, parts[length], where)

    def copy(self, folder: Path, package: str, name: str) -> None:
        """Copy the modules, byte for byte, below one package.

        Args:
            folder: Folder that gets the package.
            package: Name of the package.
            name: Name of the bundle.
        """
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(_PACKAGE_SOURCE.format(name=name), encoding="utf-8")
        for path in self.modules.values():
            target = folder / package / path.relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())

    def _find(self, module: str) -> Path | None:
        base = self.root.joinpath(*module.split("."))
        candidates = (base / "__init__.py", base.with_name(base.name + ".py"))
        return next((path for path in candidates if path.is_file()), None)

    def _add_module(self, module: str) -> None:
        if module in self.modules:
            return
        if parent := module.rpartition(".")[0]:
            self._add_module(parent)
        path = self._find(module)
        assert path is not None
        self.modules[module] = path
        self._trees[module] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for statement, optional in _imports(self._trees[module].body):
            where = f"{path.relative_to(self.root)}:{statement.lineno}"
            if isinstance(statement, ast.ImportFrom) and statement.level:
                self._add_relative(module, statement, where)
                continue
            if isinstance(statement, ast.Import):
                names = [alias.name for alias in statement.names]
            else:
                names = [statement.module or ""]
            for top in sorted({name.partition(".")[0] for name in names}):
                if top in self._packages:
                    raise UserError(f"{where}: modules of this project must be imported relatively, got {top}")
                if not optional:
                    self._add_third_party(top, where)

    def _add_relative(self, module: str, statement: ast.ImportFrom, where: str) -> None:
        package = module if self.modules[module].name == "__init__.py" else module.rpartition(".")[0]
        for _ in range(statement.level - 1):
            package = package.rpartition(".")[0]
        target = ".".join(filter(None, (package, statement.module)))
        if not package or self._find(target) is None:
            raise UserError(f"{where}: must import a module of its own package, got {ast.unparse(statement)}")
        self._add_module(target)
        for alias in statement.names:
            if alias.name != "*":
                self._add_attribute(target, alias.name, where)

    def _add_attribute(self, module: str, name: str, where: str) -> None:
        """Add the module that a name comes from: a submodule, or where a package's `__getattr__` finds it."""
        defined = _defined_names(self._trees[module])
        if name in defined:
            return
        if self._find(f"{module}.{name}"):
            self._add_module(f"{module}.{name}")
            return
        folder = self.modules[module].parent
        files = sorted(folder.rglob("*.py")) if "__getattr__" in defined else []
        sources = [path for path in files if name in _defined_names(ast.parse(path.read_text(encoding="utf-8")), False)]
        if len(sources) != 1:
            found = ", ".join(path.name for path in sources) or "none"
            raise UserError(f"{where}: {module} must define {name} in exactly one of its modules, found {found}")
        self._add_module(".".join((module, *sources[0].relative_to(folder).with_suffix("").parts)))

    def _add_third_party(self, top: str, where: str) -> None:
        if top not in sys.stdlib_module_names:
            self.third_party.setdefault(top, where)


def _imports(body: Iterable[ast.AST], optional: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield the imports that can run, also those in functions, and whether their failure is provided for."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, optional
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from _imports(node.orelse, optional)
        elif isinstance(node, ast.Try):
            caught = " ".join(ast.unparse(handler.type) for handler in node.handlers if handler.type)
            yield from _imports(node.body, optional or "ImportError" in caught or "ModuleNotFoundError" in caught)
            yield from _imports([*node.handlers, *node.orelse, *node.finalbody], optional)
        else:
            yield from _imports(ast.iter_child_nodes(node), optional)


def _defined_names(tree: ast.AST, with_imports: bool = True) -> set[str]:
    """Return the names that a module, read without running it, has at its top level."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {a.asname or a.name.partition(".")[0] for a in node.names} if with_imports else set()
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ExceptHandler):
            names |= _defined_names(node, with_imports)
    return names
