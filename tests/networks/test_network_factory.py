import importlib
import pydoc
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nnunet_ext.networks as networks

SOURCE = Path(networks.__file__).parent
GOOD = '''
from torch import nn

class {name}(nn.Module):
    """Do nothing."""
    spatial_dims = {dims}

    def __init__(self, in_channels, num_classes, *, {options}):
        super().__init__()
        self.made_with = (in_channels, num_classes, {used})
'''


@pytest.fixture
def vendored(tmp_path, monkeypatch):
    """Return the import name of a copy of the folder inside another package, and its folder."""
    folder = tmp_path / "some_bundle" / "nnunet_ext" / "networks"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder.parent.parent):
        (package / "__init__.py").touch()
    for name in ("__init__.py", "enet.py"):
        shutil.copy(SOURCE / name, folder / name)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "some_bundle.nnunet_ext.networks", folder
    for name in [name for name in sys.modules if name.split(".")[0] == "some_bundle"]:
        del sys.modules[name]


def test_listing_imports_neither_torch_nor_sam_lora():
    code = "import sys, nnunet_ext.networks as n; n.available(); print({'torch', 'sam_lora', 'monai'} & {*sys.modules})"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SOURCE.parents[1]
    )
    assert output.stdout.strip() == "set()"


def test_enet_is_listed_with_its_dimensions_and_a_summary():
    info = networks.available()["enet"]
    assert (info.class_name, info.spatial_dims, info.error) == ("ENet", (2,), "")
    assert info.summary == "Segment 2D images with ENet."


def test_class_is_found_by_its_dotted_name():
    assert pydoc.locate("nnunet_ext.networks.ENet") is networks.network_class("enet")
    assert "ENet" in dir(networks)


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'UNet'"):
        _ = networks.UNet


def test_options_are_handed_on():
    assert networks.build_network("enet", 1, 2, input_scale=2.0).input_scale == 2.0


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("unet", 1, 2), {}, "network must be one of .*'enet'.*, got 'unet'"),
        (("enet", 1, 2), {"skpi": True}, "options of network 'enet' must be among 'dropout', 'skip', .*got 'skpi'"),
        (("enet", 1, 2, 3), {}, r"network 'enet' must have spatial_dims in \{2\}, got 3"),
    ],
)
def test_wrong_choice_names_the_allowed_ones(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        networks.build_network(*arguments, **options)


def test_vendored_copy_finds_its_own_networks_only(vendored):
    name, _ = vendored
    copy = importlib.import_module(name)
    assert {info.module for info in copy.available().values()} == {f"{name}.enet"}
    assert copy.ENet.__module__ == f"{name}.enet"
    assert copy.ENet is not networks.ENet
    assert pydoc.locate(f"{name}.ENet") is copy.ENet


def test_sibling_package_is_found_without_running_its_code(vendored):
    name, folder = vendored
    sibling = folder.parents[1] / "sam_lora"
    (sibling / "networks").mkdir(parents=True)
    (sibling / "__init__.py").write_text("")
    (sibling / "networks" / "__init__.py").write_text("")
    source = GOOD.format(name="SAM2Thing", dims="(2, 3)", options="spatial_dims=2, rank=4", used="spatial_dims, rank")
    (sibling / "networks" / "sam2_thing.py").write_text(source)
    copy = importlib.import_module(name)
    assert list(copy.available()) == ["enet", "sam2_thing"]
    assert not any(module.startswith("some_bundle.sam_lora") for module in sys.modules)
    assert copy.build_network("sam2_thing", 1, 2, spatial_dims=3, rank=8).made_with == (1, 2, 3, 8)
    assert copy.available()["sam2_thing"].options() == {"rank": 4}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Broken(:", "SyntaxError"),
        ("class Broken:\n    pass\n", "spatial_dims"),
        ("import no_such_module\nclass Broken:\n    spatial_dims = (2,)\n", "no_such_module"),
    ],
)
def test_broken_module_is_named_and_hides_no_other(vendored, source, message):
    name, folder = vendored
    (folder / "broken.py").write_text(source)
    copy = importlib.import_module(name)
    assert list(copy.available()) == ["broken", "enet"]
    copy.build_network("enet", 1, 2)
    with pytest.raises(ImportError, match=f"(?s)broken.*{message}"):
        copy.build_network("broken", 1, 2)


def test_modules_without_such_a_class_are_no_networks(vendored):
    name, folder = vendored
    (folder / "_blocks.py").write_text("class Blocks:\n    spatial_dims = (2,)\n")
    (folder / "attention.py").write_text("class Gate:\n    spatial_dims = (2,)\n")
    assert list(importlib.import_module(name).available()) == ["enet"]
