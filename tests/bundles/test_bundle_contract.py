"""What every bundle's files promise."""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

LONGEST_EXPRESSION = 110
REQUIRED = ("train", "evaluate", "inference", "multi_gpu_train", "metadata", "demo")
TRAIN_IDS = [
    *("bundle_root", "dataset_dir", "fold", "output_dir", "ckpt_dir", "max_epochs", "batch_size", "learning_rate"),
    *("image_size", "val_interval", "num_workers", "seed", "amp", "sampler"),
]
INFERENCE_IDS = [
    *("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "batch_size", "image_size", "amp"),
    *("save_probabilities", "save_logits"),
]


def read(bundle, name: str) -> dict[str, Any]:
    return json.loads((bundle.configs / f"{name}.json").read_text())


def strings(config: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield (id, string) of all strings of a configuration."""
    if isinstance(config, str):
        yield where, config
    elif isinstance(config, dict | list):
        for key, value in config.items() if isinstance(config, dict) else enumerate(config):
            yield from strings(value, f"{where}::{key}")


def targets(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if "_target_" in config:
            yield config["_target_"]
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from targets(value)


@pytest.fixture
def config(bundle, config_name) -> dict[str, Any]:
    """Each configuration of each bundle."""
    return read(bundle, config_name)


@pytest.mark.parametrize(
    "file",
    [
        *(f"configs/{name}.json" for name in REQUIRED),
        *("configs/logging.conf", "docs/README.md", "docs/data_license.txt", "LICENSE", "models"),
    ],
)
def test_required_file_exists(bundle, file):
    assert (bundle.root / file).exists()


def test_links_at_the_root_are_relative_and_resolve_to_all_configurations(bundle):
    links = {path.name: str(path.readlink()) for path in bundle.root.iterdir() if path.is_symlink()}
    assert links == {path.name: f"configs/{path.name}" for path in bundle.configs.iterdir()}


def test_metadata_is_valid_against_the_zoos_schema(bundle, repository):
    from jsonschema import validate

    schema = repository.parent / "shared" / "zoo" / "meta_schema_20240725.json"
    if not schema.is_file():
        pytest.skip("needs the model zoo's schema in ../shared/zoo, which is not there")
    validate(read(bundle, "metadata"), json.loads(schema.read_text()))


def test_version_has_an_entry_in_the_changelog(bundle):
    metadata = read(bundle, "metadata")
    assert metadata["changelog"].get(metadata["version"])


def test_versions_of_the_metadata_are_those_known_to_work(bundle, repository):
    lines = (repository / "constraints.txt").read_text().splitlines()
    known = dict(line.split("#")[0].strip().split("==") for line in lines if "==" in line.split("#")[0])
    known = {name.lower(): version for name, version in known.items()}
    metadata = read(bundle, "metadata")
    named = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    for name, version in {**named, **metadata["required_packages_version"]}.items():
        if name.lower() in known:
            assert version == known[name.lower()], name


def test_license_is_the_projects(bundle, repository):
    assert (bundle.root / "LICENSE").read_text() == (repository / "LICENSE").read_text()


def test_train_has_the_ids_that_every_bundle_has(bundle):
    assert [key for key in TRAIN_IDS if key not in read(bundle, "train")] == []


def test_inference_has_the_ids_that_every_bundle_has(bundle):
    assert [key for key in INFERENCE_IDS if key not in read(bundle, "inference")] == []


def test_evaluate_has_the_ids_that_every_bundle_has(bundle):
    assert {"save_probabilities", "save_logits"} <= read(bundle, "evaluate").keys()


def test_overlay_changes_only_ids_of_train_or_adds_new_ones_for_its_own_use(bundle, overlay):
    train, content = read(bundle, "train"), read(bundle, overlay)
    text = json.dumps(content) + json.dumps(train)
    for key in content:
        top = key.split("::")[0]
        assert top in train or f"@{top}" in text or top in ("finalize",), key


def test_overlay_of_mere_settings_has_only_ids_of_train(bundle, overlay):
    """What replaces `run` is a workflow of its own, and may add to it."""
    train, content = read(bundle, "train"), read(bundle, overlay)
    if "run" not in content:
        assert [key for key in content if key not in train] == []
        assert content["output_dir"] != train["output_dir"], "two ways to train must not share a folder"
        assert [key for key, value in content.items() if value == train[key]] == [], "settings that change nothing"


def parsed(bundle, *names: str, **overrides: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(bundle.files(*names))
    parser.update(bundle.with_base(overrides))
    return parser


def test_overlay_resolves_and_builds_its_network(bundle, overlay, tiny_phantom, workspace, monkeypatch):
    for variable, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():  # as torchrun sets them
        monkeypatch.setenv(variable, value)
    options = {"dataset_dir": str(tiny_phantom), "ckpt_dir": "trained"}
    parsed(bundle, "train", "demo", **options).get_parsed_content("data").card.write(workspace / "trained")
    torch.save({}, workspace / "trained" / "model_best.pt")  # for evaluate, which asks only the card beside it
    parser = parsed(bundle, "train", overlay, **options)
    for key in read(bundle, overlay):
        if key not in ("initialized", "network", "run", "finalize") and "handlers" not in key:
            parser.get_parsed_content(key)
    with torch.device("meta"):  # SAM has weights of hundreds of megabytes
        network = parser.get_parsed_content("network_def")
    assert any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("images_dir", ["imagesTs", "imagesTs/", "../Dataset004_A/imagesTs//"])
def test_inference_takes_the_model_of_the_data_set_that_its_images_belong_to(bundle, workspace, images_dir):
    """However their folder is written, as by a shell that completes names; the newest run is of another data set."""
    for seconds, name in enumerate(("Dataset004_A", "Dataset005_B")):
        run = workspace / "runs" / name
        run.mkdir(parents=True)
        (run / "plans.json").write_text(json.dumps({"dataset_name": name}))
        torch.save({}, run / "model_best.pt")
        os.utime(run / "model_best.pt", (seconds, seconds))
    folder = workspace / "Dataset004_A"
    folder.mkdir()
    parser = parsed(bundle, "inference", images_dir=f"{folder}/{images_dir}", ckpt_dir=f"{workspace / 'runs'}/")
    assert parser.get_parsed_content("checkpoint") == str(workspace / "runs" / "Dataset004_A" / "model_best.pt")
    assert parser.get_parsed_content("output_dir") == f"runs/{bundle.name}/predictions/Dataset004_A"


def test_a_slash_behind_the_data_set_changes_no_run_folder(bundle, config_name, workspace):
    names = [config_name] if config_name == "inference" else ["train", config_name]
    options = {"base_checkpoint": "none"} if "base_checkpoint" in bundle.train else {}
    parsers = [
        parsed(bundle, *names, dataset_dir=f"raw/{name}", **options) for name in ("Dataset004_A", "Dataset004_A/")
    ]
    plain, slashed = (parser.get_parsed_content("output_dir") for parser in parsers)
    assert plain == slashed
    assert "Dataset004_A" in plain or config_name == "demo"


def test_hyper_parameters_come_first_as_plain_values(bundle):
    train = read(bundle, "train")
    keys = list(train)
    for key in ("max_epochs", "batch_size", "learning_rate", "image_size", "seed", "sampler"):
        assert not str(train[key]).startswith(("$", "@")), key
        assert keys.index(key) < keys.index("network_def"), key


def test_default_run_folder_carries_the_bundles_name(bundle):
    for name in ("train", "inference"):
        assert f"runs/{bundle.name}" in read(bundle, name)["output_dir"]


def test_first_item_of_run_guards_the_command_line(bundle):
    for name in ("train", "evaluate", "inference", "multi_gpu_train"):
        assert read(bundle, name)["run"][0] == "$bundle.guard_command_line()", name


def test_network_of_inference_is_that_of_training(bundle):
    assert read(bundle, "inference")["network_def"] == read(bundle, "train")["network_def"]


def test_inferer_of_inference_is_that_of_validation(bundle):
    inference, validation = read(bundle, "inference")["inferer"], read(bundle, "train")["validate"]["inferer"]
    for inferer in (inference, validation):
        for key in ("output_device", "device"):  # where logits are kept changes no value
            inferer.pop(key, None)
    assert inference == validation


def test_imports_are_equal_everywhere(bundle):
    train, inference = (set(read(bundle, name)["imports"]) for name in ("train", "inference"))
    assert inference <= train


def test_no_expression_is_long(config):
    long = {where: len(text) for where, text in strings(config) if text[:1] == "$" and len(text) > LONGEST_EXPRESSION}
    assert long == {}, "make it a function of a package"


def test_targets_are_of_published_packages_or_of_ours_but_never_trainers(config):
    for target in targets(config):
        package = target.split(".")[0]
        assert "." not in target or package in ("nnunet_ext", "sam_lora", "evaluation", "monai", "torch"), target
        assert not target.startswith("nnunet_ext.trainers"), target


def test_no_string_holds_a_path_of_somebodys_machine(config):
    absolute = re.compile(r"(^|['\"\s=])(/[a-z]+/|[A-Za-z]:\\|~/)")
    assert [text for _, text in strings(config) if absolute.search(text)] == []


def test_demo_is_small_and_loses_little_when_it_is_interrupted(bundle):
    demo, train = read(bundle, "demo"), read(bundle, "train")
    assert demo["max_epochs"] * demo["iterations_per_epoch"] <= 400
    assert demo["iterations_per_epoch"] <= 50
    assert demo["val_interval"] == demo["max_epochs"], "one validation, at the end"
    assert demo["output_dir"] != train["output_dir"]


def test_documentation_names_the_commands(bundle):
    text = (bundle.root / "docs" / "README.md").read_text()
    for path in bundle.configs.glob("*.json"):
        assert path.stem == "metadata" or f"bundles/{bundle.name}/{path.name}" in text, path.name
