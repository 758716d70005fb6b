"""Archives without the weights that a network started from, and how these are fetched."""

import io
import json
import re
import shutil
import zipfile

import export_bundle as exporter
import numpy as np
import pytest
import torch
from base_files import write_base_file
from export_bundle import export_bundle
from monai.apps.utils import HashCheckError
from monai.bundle import ConfigParser, download_large_files
from test_export_runs import UPSTREAM_COMMAND, read_logits, run_isolated

from nnunet_ext.errors import UserError

BUNDLES = exporter.ROOT / "bundles"
LARGE_FILES = sorted(BUNDLES.glob("*/large_files.y*ml"))


def link(run, output, **options):
    return export_bundle(run.bundle, output, **{"checkpoint": run.checkpoint, "weights": "link", **options})


def unzip(archive, folder):
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    (bundle_dir,) = folder.iterdir()
    return bundle_dir


def fetch_from(file, bundle_dir):
    """Put a file on this machine in the place of the address."""
    listed = next(bundle_dir.glob("large_files.y*ml"))
    listed.write_text(re.sub(r'(?<=url: )".*"', f'"{file.as_uri()}"', listed.read_text()))


def moved(run, folder):
    """Copy a run whose frozen weights are no longer where they lay."""
    shutil.copytree(run.folder, folder)
    record = folder / "adapter" / "base.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "path": "gone.pth"}))
    return folder / "model_best.pt"


@pytest.fixture(scope="module")
def linked(based_run, tmp_path_factory):
    """The unzipped archive of each run; read only."""
    folder = tmp_path_factory.mktemp("linked")
    return unzip(link(based_run, folder / "linked.zip"), tmp_path_factory.mktemp("unzipped"))


def test_archive_holds_what_was_trained_and_names_the_rest(based_run, linked):
    models = {path.relative_to(linked / "models").as_posix() for path in (linked / "models").rglob("*")}
    assert {"plans.json", "dataset.json", "adapter/adapter_model.safetensors", "adapter/base.json"} <= models
    assert not {path for path in models if path.endswith((".pt", ".pth"))}
    (entry,) = ConfigParser.load_config_file(linked / "large_files.yml")["large_files"]
    record = json.loads((linked / "models" / "adapter" / "base.json").read_text())
    assert {key: entry[key] for key in based_run.large_file} == based_run.large_file
    assert (entry["hash_type"], entry["hash_val"]) == ("sha256", record["sha256"])
    assert record["file"] == based_run.base_file.name
    assert str(based_run.base_file.parent) not in (linked / "models" / "adapter" / "base.json").read_text()


def test_run_with_the_adapter_alone_gives_the_same_archive(based_run, tmp_path):
    archives = [link(based_run, tmp_path / f"{n}.zip", checkpoint=c) for n, c in enumerate(checkpoints(based_run))]
    assert archives[0].read_bytes() == archives[1].read_bytes()


def test_adapter_is_embedded_as_the_whole_model(based_run, tmp_path):
    states = []
    for number, checkpoint in enumerate(checkpoints(based_run)):
        archive = export_bundle(based_run.bundle, tmp_path / f"{number}.zip", checkpoint=checkpoint)
        with zipfile.ZipFile(archive) as file:
            content = file.read(f"{based_run.bundle}/models/model.pt")
        states.append(torch.load(io.BytesIO(content), weights_only=True))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def checkpoints(run):
    return run.checkpoint, run.adapter


@pytest.mark.parametrize("listed", LARGE_FILES, ids=lambda path: path.parent.name)
def test_monai_fetches_what_a_bundle_lists(listed, tmp_path):
    (tmp_path / "published.pth").write_bytes(b"weights")
    check_fetched(listed, tmp_path / "published.pth", tmp_path / "bundle")


def test_monai_fetches_what_an_archive_lists(linked, based_run, tmp_path):
    check_fetched(linked / "large_files.yml", based_run.base_file, tmp_path / "bundle")


def check_fetched(listed, file, bundle_dir):
    (entry,) = ConfigParser.load_config_file(listed)["large_files"]
    assert entry["url"].startswith("https://")
    bundle_dir.mkdir()
    shutil.copy(listed, bundle_dir)
    fetch_from(file, bundle_dir)
    download_large_files(str(bundle_dir))
    assert (bundle_dir / entry["path"]).read_bytes() == file.read_bytes()


def test_fetched_file_of_another_content_is_refused(linked, tmp_path):
    (tmp_path / "other.pth").write_bytes(b"other weights")
    shutil.copy(linked / "large_files.yml", tmp_path)
    fetch_from(tmp_path / "other.pth", tmp_path)
    with pytest.raises(HashCheckError):
        download_large_files(str(tmp_path))


def test_missing_base_file_is_an_error_that_names_command_and_place(based_run, tmp_path):
    checkpoint = moved(based_run, tmp_path / "run")
    options = {"checkpoint": checkpoint, "bundles_dir": copy_of(based_run.bundle_dir, tmp_path / "bundles").parent}
    place = f"{based_run.bundle}/models/{based_run.base_file.name}"
    with pytest.raises(UserError, match=f"missing; looked for .*{place}.*download_large_files --bundle_path .*bundles"):
        link(based_run, tmp_path / "e.zip", **options)
    link(based_run, tmp_path / "e.zip", **options, pretrained=based_run.base_file)


def copy_of(bundle_dir, folder):
    """Copy a bundle without the weights that may lie in it."""
    without = shutil.ignore_patterns("models")
    return shutil.copytree(bundle_dir, folder / bundle_dir.name, symlinks=True, ignore=without)


def test_other_base_file_is_refused(based_run, tmp_path):
    other = write_base_file(based_run.bundle, tmp_path / "other.pth", seed=8)
    with pytest.raises(UserError, match=r"was trained on .* of another content than .*other\.pth"):
        link(based_run, tmp_path / "e.zip", checkpoint=moved(based_run, tmp_path / "run"), pretrained=other)


def test_weights_on_another_base_than_recorded_are_refused(based_run, tmp_path):
    shutil.copytree(based_run.folder, tmp_path / "run")
    state = torch.load(based_run.checkpoint, weights_only=True)
    frozen = next(name for name in state if "encoder" in name and ".lora_" not in name and "adapters" not in name)
    torch.save({**state, frozen: state[frozen] + 1}, tmp_path / "run" / "model_best.pt")
    with pytest.raises(UserError, match=rf"frozen weights must be those of .*1 tensors differ, such as {frozen}"):
        link(based_run, tmp_path / "e.zip", checkpoint=tmp_path / "run" / "model_best.pt")


def test_run_that_started_from_no_file_is_refused(based_run, tmp_path):
    shutil.copytree(based_run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("adapter"))
    with pytest.raises(UserError, match=r"they came from no file \(pretrained was none\).*use embed"):
        link(based_run, tmp_path / "e.zip", checkpoint=tmp_path / "run" / "model_best.pt")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ('- path: "models/other.pth"\n  url: "https://example.org/other.pth"', "large_files.yml has other.pth; add"),
        ('- path: "models/{name}"', "has .*; add an entry with path and url"),
        ('- path: "models/{name}"\n  url: "https://example.org"\n  hash_val: "12"', "has the SHA-256 12 .*trained on"),
    ],
)
def test_base_file_without_an_address_is_refused(based_run, tmp_path, listed, message):
    bundle_dir = copy_of(based_run.bundle_dir, tmp_path / "bundles")
    text = "large_files:\n" + listed.format(name=based_run.base_file.name) + "\n"
    (bundle_dir / "large_files.yml").write_text(text)
    with pytest.raises(UserError, match=message):
        link(based_run, tmp_path / "e.zip", bundles_dir=bundle_dir.parent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["enet", "--weights", "link"], "enet has no large_files.yml"),
        (["samed", "--weights", "link", "--random-init"], "needs frozen weights of a file, got --random-init"),
    ],
)
def test_bundles_without_published_weights_are_not_linked(capsys, arguments, message):
    assert exporter.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: weights: link ") and error.count("\n") == 1
    assert message in error


@pytest.mark.slow
def test_fetched_archive_predicts_as_the_embedded_one(based_run, linked, images_dir, tmp_path):
    """Real commands, from a folder that is neither the repository's nor the bundle's."""
    linked = shutil.copytree(linked, tmp_path / "linked" / linked.name)
    embedded = export_bundle(based_run.bundle, tmp_path / "e.zip", checkpoint=based_run.checkpoint)
    embedded = unzip(embedded, tmp_path / "embedded")
    work = tmp_path / "work"
    work.mkdir()

    def predict(bundle_dir, output_dir):
        arguments = ["run", "--config_file", bundle_dir / "configs" / "inference.json", "--images_dir", images_dir]
        run_isolated(UPSTREAM_COMMAND, [*arguments, "--output_dir", output_dir, "--save_logits", "True"], cwd=work)
        return read_logits(work / output_dir)

    with pytest.raises(AssertionError, match=r"error: .*which is missing.*download_large_files --bundle_path"):
        predict(linked, "nothing")
    fetch_from(based_run.base_file, linked)
    run_isolated(UPSTREAM_COMMAND, ["download_large_files", "--bundle_path", linked], cwd=work)
    expected = predict(embedded, "embedded")
    np.testing.assert_array_equal(predict(linked, "linked"), expected)
    assert np.ptp(expected) > 0

    run_isolated(whole_model_code(linked), [], cwd=work, PYTHONPATH=str(linked))
    whole, other = (torch.load(path / "models" / "model.pt", weights_only=True) for path in (linked, embedded))
    assert whole.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in whole.items())


def whole_model_code(bundle_dir):
    """Return the lines of Python that the archive's documentation gives for one whole file."""
    text = (bundle_dir / "docs" / "README.md").read_text().partition("want the whole model in one file")[2]
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    return code.replace("ROOT", str(bundle_dir))


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.parent.name for path in LARGE_FILES])
def test_upstream_command_traces_an_exported_bundle(name, tmp_path):
    bundle_dir = unzip(export_bundle(name, tmp_path / "e.zip", random_init=True), tmp_path / "unzipped")
    work = tmp_path / "work"
    work.mkdir()
    size = json.loads((bundle_dir / "models" / "plans.json").read_text())["nnunet_ext"]["image_size"]
    arguments = documented_export(bundle_dir, [1, 1, *size])
    run_isolated(UPSTREAM_COMMAND, arguments, cwd=work, PYTHONPATH=str(bundle_dir))
    parser = ConfigParser()
    parser.read_config(str(BUNDLES / name / "configs" / "inference.json"))
    parser["checkpoint"] = str(bundle_dir / "models" / "model.pt")
    eager = parser.get_parsed_content("network_def").eval()
    eager.load_state_dict(torch.load(bundle_dir / "models" / "model.pt", weights_only=True))
    traced = torch.jit.load(work / "model.ts")
    x = torch.randn(1, 1, *size)
    with torch.no_grad():
        torch.testing.assert_close(traced(x), eager(x), rtol=1e-4, atol=1e-5)


def documented_export(bundle_dir, shape):
    """Return the arguments of `ckpt_export` that the archive's documentation gives, tracing included."""
    text = (bundle_dir / "docs" / "README.md").read_text().replace("ROOT", str(bundle_dir))
    command = re.search(r"python -m monai\.bundle (ckpt_export .*\\\n.*)", text)[1].replace("\\\n", " ")
    flags = re.search(r"`(--use_trace True) (--input_shape) \"(.*)\"`", text)
    assert json.loads(flags[3]) == shape
    return [*command.split(), *flags[1].split(), flags[2], flags[3]]
