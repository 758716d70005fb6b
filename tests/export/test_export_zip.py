"""What an exported bundle holds, and which input is refused; nothing is run."""

import io
import json
import re
import shutil
import zipfile

import export_bundle as exporter
import pytest
import torch
from export_bundle import export_bundle
from export_configs import exported_paths, named_objects, rewrite_config, to_json

from nnunet_ext.errors import UserError
from nnunet_ext.networks import ENet

BUNDLES = exporter.ROOT / "bundles"
NAMES = sorted(path.parent.name for path in BUNDLES.glob("*/configs"))
SCHEMA = exporter.ROOT.parent / "shared" / "zoo" / "meta_schema_20240725.json"


@pytest.fixture(scope="module", params=NAMES)
def random_export(request, tmp_path_factory):
    """Every bundle with random weights: its name, the archive."""
    output = tmp_path_factory.mktemp("export") / "bundle.zip"
    assert export_bundle(request.param, output, random_init=True) == output
    with zipfile.ZipFile(output) as archive:
        yield request.param, archive


@pytest.fixture
def bundle_copy(tmp_path):
    """Copy of the ENet bundle, to be changed."""
    return shutil.copytree(BUNDLES / "enet", tmp_path / "bundles" / "enet", symlinks=True)


def content(archive, path):
    return json.loads(archive.read(path))


def test_archive_has_the_layout_of_the_zoo(random_export):
    name, archive = random_export
    files = set(archive.namelist())
    needed = ["LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf"]
    needed += [f"configs/{path.name}" for path in (BUNDLES / name / "configs").iterdir()]
    needed += ["models/model.pt", "models/plans.json", "models/dataset.json"]
    assert {f"{name}/{path}" for path in needed} <= files
    assert not [info.filename for info in archive.infolist() if info.external_attr >> 16 != 0o100644]
    top = ("LICENSE", "large_files.yml")
    assert not [path for path in files if path.count("/") == 1 and path.split("/")[1] not in top]


def test_vendored_modules_are_unchanged_and_no_other_is_there(random_export):
    name, archive = random_export
    prefix = f"{name}/{name}_bundle/"
    modules = [path.removeprefix(prefix) for path in archive.namelist() if path.startswith(prefix)]
    for module in set(modules) - {"__init__.py"}:
        assert archive.read(prefix + module) == (exporter.ROOT / module).read_bytes(), module
    assert not [module for module in modules if module.startswith(("evaluation", "nnunet_ext/trainers"))]


def test_configurations_name_the_vendored_package_only(random_export):
    name, archive = random_export
    for path in archive.namelist():
        if path.startswith(f"{name}/configs/") and path.endswith(".json"):
            config = content(archive, path)
            assert f"bundles/{name}" not in archive.read(path).decode()
            assert config.get("bundle_root", ".") == "."
            named = [dotted.partition(".")[0] for dotted in named_objects(config)]
            assert not {"nnunet_ext", "sam_lora", "evaluation"} & set(named), path


def test_random_weights_are_marked_wherever_people_look(random_export):
    name, archive = random_export
    metadata = content(archive, f"{name}/configs/metadata.json")
    texts = [metadata["name"], metadata["description"], metadata["intended_use"]]
    texts.append(archive.read(f"{name}/docs/README.md").decode())
    texts.append(str(content(archive, f"{name}/configs/inference.json")["run"]))
    assert all("RANDOM WEIGHTS" in text for text in texts)


def test_metadata_is_valid_and_describes_the_weights(random_export):
    name, archive = random_export
    metadata = content(archive, f"{name}/configs/metadata.json")
    dataset = content(archive, f"{name}/models/dataset.json")
    formats = metadata["network_data_format"]
    assert formats["inputs"]["image"]["channel_def"] == dataset["channel_names"]
    assert formats["outputs"]["pred"]["num_channels"] == len(dataset["labels"])
    assert metadata["version"] in metadata["changelog"]
    if not SCHEMA.is_file():
        pytest.skip("the zoo's metadata schema is not here")
    import jsonschema

    jsonschema.validate(metadata, json.loads(SCHEMA.read_text()))


def test_the_same_input_gives_the_same_bytes(weights, tmp_path):
    first, second = (export_bundle("enet", tmp_path / f"{n}.zip", checkpoint=weights) for n in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_metadata_follows_the_data_set_of_the_weights(make_weights, tmp_path):
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    checkpoint = make_weights(seed=3, channels=("T1", "T2"), labels=labels, dataset_name="Dataset004_Hippocampus")
    with zipfile.ZipFile(export_bundle("enet", tmp_path / "e.zip", checkpoint=checkpoint)) as archive:
        metadata = content(archive, "enet/configs/metadata.json")
    image, pred = (metadata["network_data_format"][key] for key in ("inputs", "outputs"))
    assert image["image"]["channel_def"] == {"0": "T1", "1": "T2"}
    assert (image["image"]["modality"], image["image"]["format"]) == ("T1, T2", "magnitude")
    assert pred["pred"]["channel_def"] == {"0": "background", "1": "Anterior", "2": "Posterior"}
    assert metadata["label_classes"] == "0 background; 1 Anterior; 2 Posterior"
    assert metadata["data_source"] == "Dataset004_Hippocampus"


def test_regions_have_no_background_output(make_weights, tmp_path):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    checkpoint = make_weights(seed=3, labels=labels, regions_class_order=[1, 2])
    with zipfile.ZipFile(export_bundle("enet", tmp_path / "e.zip", checkpoint=checkpoint)) as archive:
        formats = content(archive, "enet/configs/metadata.json")["network_data_format"]
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "whole", "1": "core"}


def test_the_state_of_a_training_is_exported_as_plain_weights(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    folder = shutil.copytree(weights.parent, tmp_path / "run")
    torch.save({"network": state, "epoch": 3, "optimizer": {}}, folder / "checkpoint_last.pt")
    output = export_bundle("enet", tmp_path / "e.zip", checkpoint=folder / "checkpoint_last.pt")
    with zipfile.ZipFile(output) as archive:
        exported = torch.load(io.BytesIO(archive.read("enet/models/model.pt")), weights_only=True)
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[name], state[name]) for name in state)


def test_weights_that_do_not_fit_are_refused_by_name(weights, tmp_path):
    folder = shutil.copytree(weights.parent, tmp_path / "run")
    state = torch.load(weights, weights_only=True)
    name = next(iter(state))
    del state[name]
    last = list(state)[-1]
    torch.save({**state, "extra": torch.zeros(1), last: torch.zeros(7)}, folder / "model.pt")
    with pytest.raises(UserError, match=f"missing: {name}; unexpected: extra; of another shape: {last} \\(7,\\)"):
        export_bundle("enet", tmp_path / "e.zip", checkpoint=folder / "model.pt")
    assert not (tmp_path / "e.zip").exists()


@pytest.mark.parametrize(
    ("written", "message"),
    [(ENet(1, 5), "must be weights that load with weights_only=True"), ({"a": 3}, "must be a state dict")],
)
def test_a_file_that_holds_something_else_is_refused(weights, tmp_path, written, message):
    folder = shutil.copytree(weights.parent, tmp_path / "run")
    torch.save(written, folder / "model.pt")
    with pytest.raises(UserError, match=message):
        export_bundle("enet", tmp_path / "e.zip", checkpoint=folder / "model.pt")


def test_model_pt_goes_before_runs_and_runs_before_an_error(weights, make_weights, bundle_copy, tmp_path):
    options = {"bundles_dir": bundle_copy.parent, "runs_dir": tmp_path / "runs"}

    def exported(**more):
        with zipfile.ZipFile(export_bundle("enet", tmp_path / "e.zip", **options, **more)) as archive:
            return archive.read("enet/models/model.pt")

    shutil.rmtree(bundle_copy / "models")
    with pytest.raises(UserError, match=r"need weights.*--checkpoint FILE or --random-init"):
        exported()
    trained = make_weights(seed=5)
    shutil.copytree(trained.parent, tmp_path / "runs" / "enet" / "fold_0")
    assert exported() == exported(checkpoint=trained)
    shutil.copytree(weights.parent, bundle_copy / "models")
    (bundle_copy / "models" / "model_best.pt").rename(bundle_copy / "models" / "model.pt")
    assert exported() == exported(checkpoint=weights) != exported(checkpoint=trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "9.9.9"}, "version 9.9.9 must be in its changelog, got 0.1.0"),
        ({"required_packages_version": {}}, r"missing: .*nibabel .*scikit-learn \(nnunet_ext/data/folds.py:\d+"),
        ({"network_data_format": None}, "entries .*network_data_format.* are missing"),
    ],
)
def test_metadata_that_is_wrong_is_refused(bundle_copy, tmp_path, change, message):
    file = bundle_copy / "configs" / "metadata.json"
    changed = {key: value for key, value in {**json.loads(file.read_text()), **change}.items() if value is not None}
    file.write_text(json.dumps(changed))
    with pytest.raises(UserError, match=message):
        export_bundle("enet", tmp_path / "e.zip", random_init=True, bundles_dir=bundle_copy.parent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "bundle must be one of .*enet.*got absent"),
        (["enet", "--output", "e.tar"], "output must be a file that ends in .zip, got e.tar"),
        (["enet", "--name", "a-b"], "name must consist of letters"),
        (["enet", "--checkpoint", "absent.pt"], "absent.pt, which does not exist"),
    ],
)
def test_command_line_errors_have_one_line_and_exit_code_2(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert exporter.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error)


def test_large_files_are_warned_of(weights, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(exporter, "ZOO_LIMIT_MB", 1)
    export_bundle("enet", tmp_path / "e.zip", checkpoint=weights)
    assert [r.getMessage() for r in caplog.records if "enet/models/model.pt has 2 MB" in r.getMessage()]


def test_strings_are_rewritten_where_they_are_code_and_paths_where_they_are_hints():
    config = {
        "imports": ["$import os", "$import nnunet_ext.bundle as bundle", "$from sam_lora import SAMed"],
        "bundle_root": "$'bundles/m' if os.path.isdir('bundles/m') else '.'",
        "a": {"_target_": "nnunet_ext.x.Y", "path": "@bundle_root"},
        "b": "$bundle.find(@bundle_root, 'nnunet_ext')",
        "hint": "run bundles/m/train.json, see bundles/m/docs/README.md",
    }
    expected = {
        "imports": [
            "$import os",
            "$import p.nnunet_ext.bundle as bundle",
            "$from p.sam_lora import SAMed",
            "$import p",
        ],
        "bundle_root": ".",
        "a": {"_target_": "p.nnunet_ext.x.Y", "path": "$p.locate(@bundle_root)"},
        "b": "$bundle.find(p.locate(@bundle_root), 'nnunet_ext')",
        "hint": "run configs/train.json, see docs/README.md",
    }
    assert rewrite_config(config, "m", "p", ["nnunet_ext", "sam_lora"], "train.json") == expected
    assert exported_paths("bundles/mm/train.json", "m") == "bundles/mm/train.json"
    with pytest.raises(UserError, match="give nnunet_ext another name by an import"):
        rewrite_config({"c": "$nnunet_ext.x()"}, "m", "p", ["nnunet_ext"], "train.json")


@pytest.mark.parametrize("file", sorted(BUNDLES.glob("*/configs/*.json")), ids=lambda path: path.name)
def test_written_json_reads_back_equal(file):
    original = json.loads(file.read_text())
    assert json.loads(to_json(original)) == original
