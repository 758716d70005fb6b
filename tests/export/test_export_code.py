"""Which modules are vendored, found by reading imports; on made-up projects."""

import pytest
from export_code import NeededCode

from nnunet_ext.errors import UserError


@pytest.fixture
def project(tmp_path):
    """Return a function that writes a project of some files and follows one name in it."""

    def needed(files, name):
        for path, source in {"pkg/__init__.py": "", **files}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(source)
        code = NeededCode(tmp_path)
        code.add(name, "configs/train.json")
        return code

    return needed


def test_a_module_brings_the_packages_above_it_and_what_it_imports(project):
    files = {
        "pkg/part/__init__.py": "",
        "pkg/part/a.py": "from ..other import helper\nfrom . import b\n",
        "pkg/part/b.py": "",
        "pkg/other.py": "def helper(): ...\n",
        "pkg/unused.py": "",
    }
    code = project(files, "pkg.part.a")
    assert set(code.modules) == {"pkg", "pkg.part", "pkg.part.a", "pkg.part.b", "pkg.other"}


def test_imports_in_functions_count_and_those_for_type_checking_do_not(project):
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from .annotated import T\n    import pandas\n"
        "def run():\n    from .late import f\n    import yaml\n"
    )
    files = {"pkg/a.py": source, "pkg/annotated.py": "T = int\n", "pkg/late.py": "def f(): ...\n"}
    code = project(files, "pkg.a.run")
    assert set(code.modules) == {"pkg", "pkg.a", "pkg.late"}
    assert code.third_party == {"yaml": "pkg/a.py:7"}


def test_an_import_whose_failure_is_caught_is_not_required(project):
    source = "try:\n    import cupy\nexcept ImportError:\n    cupy = None\nimport scipy\n"
    assert set(project({"pkg/a.py": source}, "pkg.a").third_party) == {"scipy"}


def test_of_a_lazy_package_only_the_module_that_defines_the_name_is_taken(project):
    files = {
        "pkg/nets/__init__.py": "def __getattr__(name): ...\n",
        "pkg/nets/one.py": "class One: ...\n",
        "pkg/nets/two.py": "from .one import One\nclass Two(One): ...\n",
        "pkg/nets/three.py": "class Three: ...\n",
    }
    assert set(project(files, "pkg.nets.One").modules) == {"pkg", "pkg.nets", "pkg.nets.one"}
    assert set(project(files, "pkg.nets.Two").modules) == {"pkg", "pkg.nets", "pkg.nets.one", "pkg.nets.two"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import pkg.b", r"pkg/a.py:1: modules of this project must be imported relatively, got pkg"),
        ("from .missing import x", r"pkg/a.py:1: must import a module of its own package, got from .missing import x"),
        ("from ...b import x", r"pkg/a.py:1: must import a module of its own package"),
        ("from .b import absent", r"pkg/a.py:1: pkg.b must define absent in exactly one"),
    ],
)
def test_code_that_would_not_work_in_a_copy_is_refused(project, source, message):
    with pytest.raises(UserError, match=message):
        project({"pkg/a.py": source, "pkg/b.py": ""}, "pkg.a")


def test_a_name_that_no_module_has_is_refused_with_the_configuration_that_names_it(project):
    with pytest.raises(UserError, match=r"configs/train.json: pkg.a must define Absent"):
        project({"pkg/a.py": ""}, "pkg.a.Absent")
