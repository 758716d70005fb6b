"""`python -m nnunet_ext`: configure, list, path, phantom; what they write and what they refuse."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_ext import cli, overview, plans
from nnunet_ext.configure import configure
from nnunet_ext.errors import OptionError
from nnunet_ext.options import option_fields
from nnunet_ext.overview import trainers

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def handmade(tmp_path, monkeypatch):
    """A minimal planned data set: 2d, 3d and a cascade."""
    dataset_dir, results = tmp_path / "preprocessed" / "Dataset004_Hand", tmp_path / "results"
    (dataset_dir / "nnUNetPlans_2d").mkdir(parents=True)
    results.mkdir()
    flat = {
        "data_identifier": "nnUNetPlans_2d",
        "patch_size": [56, 40],
        "spacing": [1.5, 0.75],
        "batch_size": 58,
        "architecture": {"arch_kwargs": {"strides": [[1, 1], [2, 2], [2, 2], [2, 2]]}},
    }
    volume = {
        "data_identifier": "nnUNetPlans_3d",
        "patch_size": [32, 32, 32],
        "spacing": [3.0, 1.5, 1.5],
        "batch_size": 2,
        "architecture": {"arch_kwargs": {"strides": [[1, 1, 1], [2, 2, 2]]}},
    }
    configurations = {
        "2d": flat,
        "3d_fullres": volume,
        "3d_lowres": {**volume, "next_stage": "3d_cascade_fullres"},
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        "2d_by_hand": {"inherits_from": "2d", "batch_size": 4},
    }
    path = dataset_dir / "nnUNetPlans.json"
    path.write_text(json.dumps({"plans_name": "nnUNetPlans", "configurations": configurations}))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("nnUNet_results", str(results))
    return SimpleNamespace(path=path, results=results, root=tmp_path)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_configure_writes_a_complete_section_and_inherits(handmade, capsys):
    command = "configure -d 4 -c 2d --name 2d_enet --set network=enet epochs=50 batch_size=8 patch_size=64,48"
    code, out, _ = run(capsys, *command.split())
    written = json.loads(handmade.path.read_text())["configurations"]
    entry = written["2d_enet"]
    assert code == 0
    assert (entry["inherits_from"], entry["batch_size"], entry["patch_size"]) == ("2d", 8, [64, 48])
    assert set(entry["nnunet_ext"]) == set(option_fields()) - {"batch_size", "patch_size"}
    assert entry["nnunet_ext"]["epochs"] == 50
    assert written["2d"]["batch_size"] == 58
    assert "nnUNetv2_train 4 2d_enet 0 -tr CustomTrainer" in out


@pytest.mark.parametrize("form", ["pretrained={}", "init=genesis:{}"])
def test_files_of_weights_are_kept_as_absolute_paths(handmade, capsys, monkeypatch, form):
    (handmade.root / "weights.pt").touch()
    monkeypatch.chdir(handmade.root)
    code, _, _ = run(capsys, "configure", "-d", "4", "-c", "2d", "--name", "x", "--set", form.format("weights.pt"))
    assert code == 0
    name, value = form.format(handmade.root / "weights.pt").split("=")
    assert json.loads(handmade.path.read_text())["configurations"]["x"]["nnunet_ext"][name] == value


def test_configure_again_says_that_nothing_changes(handmade, capsys):
    command = ["configure", "-d", "Dataset004_Hand", "-c", "2d", "--name", "2d_enet", "--set", "epochs=50"]
    run(capsys, *command)
    before = handmade.path.stat().st_mtime_ns
    code, out, _ = run(capsys, *command)
    assert code == 0
    assert "Nothing to change" in out
    assert handmade.path.stat().st_mtime_ns == before


def test_dry_run_writes_nothing(handmade, capsys):
    before = handmade.path.read_text()
    code, out, _ = run(capsys, *["configure", "-d", "4", "-c", "2d", "--name", "2d_enet", "--dry-run"])
    assert (code, handmade.path.read_text()) == (0, before)
    assert "Would write" in out


def test_a_configuration_without_preprocessed_data_names_the_command(handmade, capsys):
    command = "configure -d 4 -c 3d_fullres --name 3d_short --set network=planned epochs=5"
    _, out, _ = run(capsys, *command.split())
    assert "nnUNetv2_preprocess -d 4 -c 3d_fullres" in out


def test_the_first_stage_of_a_cascade_forgets_the_second(handmade):
    entry = configure("4", "3d_lowres", "3d_low_short", {"network": "planned"}).entry
    assert entry["next_stage"] is None


def test_a_failed_write_leaves_the_plans_as_they_were(handmade, monkeypatch):
    before = handmade.path.read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        configure("4", "2d", "2d_enet", {})
    assert handmade.path.read_text() == before
    assert list(handmade.path.parent.glob("*.tmp*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-d 4 -c 2d --name 2d__enet", "--name must not contain '__'"),
        ("-d 4 -c 2d --name 2d/enet", "--name must be letters, digits"),
        ("-d 4 -c 2d --name _2d", "--name must be letters, digits"),
        ("-d 4 -c 2d --name 2d", "--name must differ from the planned configuration '2d'; take 2d_custom"),
        ("-d 4 -c 2d --name 3d_fullres", "configuration '3d_fullres' exists and was not made by configure"),
        ("-d 4 -c 2d --name 2d_by_hand", "configuration '2d_by_hand' exists and was not made by configure"),
        ("-d 4 -c 2D --name 2d_enet", "configuration '2D' is not in the plans; there are: 2d, 3d_fullres"),
        ("-d 4 -c 3d_cascade_fullres --name x", "second stage of a cascade"),
        ("-d 4 -c 2d --name x -p Other", "has no plans 'Other'; there are: nnUNetPlans"),
        ("-d 5 -c 2d --name x", "data set 5 is not planned yet .*nnUNetv2_plan_and_preprocess -d 5"),
        ("-d Dataset005_No -c 2d --name x", "first run: nnUNetv2_plan_and_preprocess -d 5"),
        ("-d Hippocampus -c 2d --name x", "-d must be a number such as 4 or a name"),
        ("-d 4 -c 2d --name x --set epohcs=1", "unknown option 'epohcs'; did you mean epochs\\? known: network"),
        ("-d 4 -c 2d --name x --set patch_size=64", "patch_size must have 2 numbers .*got 1: 64"),
        ("-d 4 -c 2d --name x --set network.input_scale=0.5", "network enet: input_scale must be"),
        (
            "-d 4 -c 2d --name x --set network=planned patch_size=60,44",
            r"multiples of \[8, 8\] for network=planned, got \[60, 44\]; the nearest is patch_size=64,48",
        ),
        ("-d 4 -c 3d_fullres --name x", "3D configuration has no default network"),
        (
            "-d 4 -c 2d --name x --set init=nnunet:no.pth",
            r"option init: /.*/no\.pth does not exist; name a file of weights",
        ),
        ("-d 4 -c 2d --name x --set pretrained=no.pth", r"option pretrained: /.*/no\.pth does not exist"),
    ],
)
def test_configure_refuses_with_the_next_step(handmade, capsys, arguments, message):
    before = handmade.path.read_text()
    code, _, err = run(capsys, "configure", *arguments.split())
    assert code == 2
    assert err.startswith("error: ")
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(err)
    assert handmade.path.read_text() == before


def test_a_configured_configuration_is_no_parent(handmade, capsys):
    configure("4", "2d", "2d_enet", {})
    _, _, err = run(capsys, *["configure", "-d", "4", "-c", "2d_enet", "--name", "2d_more"])
    assert "give -c 2d and all settings" in err


def train_by_name(results: Path, name: str) -> None:
    fold = results / "Dataset004_Hand" / f"CustomTrainer__nnUNetPlans__{name}" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_latest.pth").touch()


def test_an_untrained_configuration_can_be_changed(handmade):
    configure("4", "2d", "2d_enet", {"epochs": 5})
    assert configure("4", "2d", "2d_enet", {"epochs": 6}).entry["nnunet_ext"]["epochs"] == 6


def test_a_trained_configuration_is_not_changed(handmade):
    configure("4", "2d", "2d_enet", {"epochs": 5})
    train_by_name(handmade.results, "2d_enet")
    assert not configure("4", "2d", "2d_enet", {"epochs": 5}).changed
    with pytest.raises(OptionError, match=r"trained with other options .*2d_enet\); choose another --name"):
        configure("4", "2d", "2d_enet", {"epochs": 6})


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
def test_a_missing_folder_of_nnunet_is_named(handmade, monkeypatch, variable):
    configure("4", "2d", "2d_enet", {"epochs": 5})
    monkeypatch.setenv(variable, str(handmade.root / "nowhere"))
    with pytest.raises(OptionError, match=f"{variable} must name a folder, got .*nowhere"):
        configure("4", "2d", "2d_enet", {"epochs": 6})
    monkeypatch.delenv(variable)
    with pytest.raises(OptionError, match=f"{variable} is not set; .*export {variable}="):
        configure("4", "2d", "2d_enet", {"epochs": 6})


def test_two_data_sets_of_one_number_are_told_apart(handmade):
    (handmade.root / "preprocessed" / "Dataset004_Twin").mkdir()
    with pytest.raises(OptionError, match=r"not unique in .*Dataset004_Hand, Dataset004_Twin; give the full name"):
        configure("4", "2d", "2d_enet", {})


def test_a_file_that_is_no_plans_file_is_refused(handmade):
    (handmade.path.parent / "dataset.json").write_text("{}")
    with pytest.raises(OptionError, match="is not an nnU-Net plans file"):
        configure("4", "2d", "2d_enet", {}, plans_identifier="dataset")


def test_inheritance_is_shallow_and_circles_are_named():
    configurations = {
        "a": {"x": {"y": 1}, "z": 1},
        "b": {"inherits_from": "a", "x": {}},
        "c": {"inherits_from": "d"},
        "d": {"inherits_from": "c"},
    }
    assert plans.resolve_configuration({"configurations": configurations}, "b") == {
        "x": {},
        "z": 1,
        "inherits_from": "a",
    }
    with pytest.raises(OptionError, match="circle: c -> d -> c"):
        plans.resolve_configuration({"configurations": configurations}, "c")


def test_list_shows_networks_trainers_and_options_with_one_line_each(capsys):
    code, out, _ = run(capsys, "list")
    lines = [line.split() for line in out.splitlines() if line.startswith("  ")]
    assert code == 0
    assert all(len(words) > 1 for words in lines)
    names = [words[0] for words in lines]
    assert {"enet", "planned", "CustomTrainer", "nnUNetTrainerENet", "network.input_scale", *option_fields()} <= {
        *names
    }


def test_list_says_which_networks_take_options_that_not_all_take(capsys):
    printed = run(capsys, "list")[1].partition("Optimisers")[0]  # a loss may have a network's name
    lines = {line.split()[0]: line for line in printed.splitlines() if line.startswith("  ")}
    assert lines["samed"].endswith("(2D, loss_resolution=low)")
    assert lines["sam2unet"].endswith("(2D, deep_supervision)")
    assert lines["enet"].endswith("(2D)")
    assert "one of full, low [full]" in lines["loss_resolution"]
    assert "planned: true" in lines["deep_supervision"]  # another default than the [false] before it
    assert lines["save_every"].endswith("[1; planned: 10]")


def test_a_network_that_cannot_be_imported_hides_no_option(capsys, monkeypatch):
    def refuse(key):
        raise OptionError(f"network {key!r} can't be used")

    monkeypatch.setattr(overview, "training_defaults", refuse)
    overview._recommendations.cache_clear()
    code, out, _ = run(capsys, "list")
    overview._recommendations.cache_clear()
    assert code == 0
    assert "[1]" in next(line for line in out.splitlines() if line.startswith("  save_every"))


def test_a_broken_trainer_is_listed_as_broken(tmp_path):
    (tmp_path / "Broken.py").write_text("class Broken(:")
    (tmp_path / "Empty.py").write_text("")
    (tmp_path / "Good.py").write_text('class Good:\n    """Fine."""')
    texts = dict(trainers(tmp_path))
    assert texts["Good"] == "Fine."
    assert all(texts[name].startswith("broken: ") for name in ("Broken", "Empty"))


def test_phantom_refuses_bad_numbers_without_a_traceback(tmp_path, capsys):
    code, _, err = run(capsys, "phantom", str(tmp_path / "Dataset900_P"), "--num-training", "0")
    assert code == 2
    assert err.startswith("error: ")


def test_phantom_writes_a_data_set(tmp_path, capsys):
    folder = tmp_path / "Dataset900_P"
    words = ["phantom", str(folder), "--num-training", "1", "--num-test", "1", "--shape", "32", "32", "16"]
    code, _, err = run(capsys, *words)
    assert code == 0, err
    assert len(list((folder / "imagesTr").glob("*.nii.gz"))) == 1


def test_path_is_printed_alone_and_without_importing_torch(tmp_path):
    script = "import sys; from nnunet_ext.cli import main; main(['path']); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    assert [path.name for path in Path(done.stdout.strip()).glob("*.py")] == ["__init__.py", "nnunet_ext_trainers.py"]


def test_an_unknown_command_is_a_usage_error():
    with pytest.raises(SystemExit) as error:
        cli.main(["no-such-command"])
    assert error.value.code == 2
