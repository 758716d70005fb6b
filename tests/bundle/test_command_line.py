"""The option check knows every way to type an option, and refuses only what the configuration doesn't know."""

import json
import sys

import pytest

from nnunet_ext.bundle import command_line, guard_command_line
from nnunet_ext.errors import DatasetError, OptionError


@pytest.fixture
def config(tmp_path, monkeypatch) -> str:
    """A configuration, an overlay and an arguments file in the working directory."""
    monkeypatch.chdir(tmp_path)
    train = {"max_epochs": 5, "dataset_dir": "", "train": {"trainer": {"max_epochs": 1}}, "run": []}
    (tmp_path / "train.json").write_text(json.dumps(train))
    (tmp_path / "demo.json").write_text(json.dumps({"+extra": 1, "train::trainer::amp": True}))
    (tmp_path / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    (tmp_path / "args.json").write_text(json.dumps({"config_file": ["train.json", "demo.json"], "seed": 3}))
    (tmp_path / "train.yaml").write_text("max_epochs: 5\n")
    return "train.json"


def guard(*arguments: str) -> None:
    guard_command_line(["monai/bundle/__main__.py", "run", *arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config_file", "train.json"),
        ("--config_file=train.json", "--max_epochs=3"),
        ("--config_file", "train.json", "--max_epochs", "3"),
        ("--config-file", "train.json", "--max-epochs", "3"),
        ("-config_file", "train.json", "-max_epochs", "3"),
        ("--max_epochs", "3", "--config_file", "train.json"),
        ("--config_file", "train.json", "--train::trainer::max_epochs", "3"),
        ("--config_file", "train.json", "--train#trainer#max_epochs=3"),
        ("--config_file", "train.json", "--+train::trainer::x", "3"),
        ("--config_file", "train.json", "--dataset_dir", "a=b", "--max_epochs", "@train::trainer::max_epochs"),
        ("--config_file", "['train.json','demo.json']", "--extra", "3"),
        ("--config_file", "[train.json, demo.json]", "--extra", "3"),
        ("--config_file", "('train.json','demo.json')", "--extra", "3"),
        ("--config_file", "train.yaml", "--max_epochs", "3"),
        ("--args_file", "args.json", "--max_epochs", "3", "--seed", "4"),
        ("--config_file", "train.json", "--meta_file", "metadata.json", "--version", "2"),
        ("--config_file", "train.json", "--logging_file", "logging.conf", "--run_id", "run", "--init_id", "x"),
        ("--config_file", "train.json", "--tracking", "mlflow", "--tracking_uri", "file:x", "--run_name", "y"),
        ("run", "--config_file", "train.json"),
    ],
    ids=" ".join,
)
def test_known_option_is_accepted(config, arguments):
    guard(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max_epohcs", "3"), "--max_epohcs: unknown option; did you mean --max_epochs?"),
        (("--max_epohcs=3",), "--max_epohcs: unknown option; did you mean --max_epochs?"),
        (("--max-epohcs", "3"), "--max_epohcs: unknown option; did you mean --max_epochs?"),
        (("-max_epohcs", "3"), "--max_epohcs: unknown option"),
        (("--trian::trainer::max_epochs", "3"), "--trian::trainer::max_epochs: unknown option; did you mean --train?"),
        (("--xyz", "3"), "--xyz: unknown option; Options: args_file, config_file, dataset_dir"),
        (("--tracking_uri", "file:x"), "--tracking_uri: unknown option"),
    ],
)
def test_unknown_option_is_refused_by_name(config, arguments, message):
    with pytest.raises(OptionError) as error:
        guard("--config_file", config, *arguments)
    assert message in str(error.value)


def test_every_known_option_is_listed(config):
    with pytest.raises(OptionError) as error:
        guard("--config_file", config, "--xyz", "1")
    assert all(key in str(error.value) for key in ("dataset_dir", "max_epochs", "train", "config_file"))


def test_other_programs_that_run_the_workflow_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/pytest", "--whatever", "1"])
    before = sys.excepthook
    guard_command_line()
    assert sys.excepthook is before


def error_output(capsys, error: BaseException) -> str:
    command_line._print_user_errors(type(error), error, None)
    return capsys.readouterr().err


def test_error_of_the_user_is_printed_without_a_traceback_even_if_wrapped(capsys):
    try:
        try:
            raise DatasetError("labelsTr/a.nii.gz: wrong")
        except DatasetError as inner:
            raise RuntimeError("Failed to evaluate expression") from inner
    except RuntimeError as error:
        assert error_output(capsys, error) == "error: labelsTr/a.nii.gz: wrong\n"


def test_interruption_is_printed_without_a_traceback(capsys):
    assert "interrupted" in error_output(capsys, KeyboardInterrupt())


def test_error_of_the_code_keeps_its_traceback(capsys):
    assert "ZeroDivisionError" in error_output(capsys, ZeroDivisionError())


def test_value_that_a_network_refuses_is_one_line(capsys):
    from sam_lora import SAMed

    with pytest.raises(ValueError, match="variant must be one of") as refused:
        SAMed(1, 2, variant="vit_x")
    error = RuntimeError("Failed to instantiate component 'sam_lora.SAMed'")
    error.__cause__ = refused.value
    command_line._print_user_errors(RuntimeError, error, None)
    printed = capsys.readouterr().err
    assert printed.startswith("error: variant must be one of vit_b") and printed.count("\n") == 1


def test_error_of_a_library_keeps_its_traceback(capsys):
    with pytest.raises(ValueError, match="invalid literal") as failed:
        int("x")
    command_line._print_user_errors(ValueError, failed.value, failed.tb)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "four", ""])
def test_number_of_epochs_that_is_none_is_refused(config, value):
    with pytest.raises(OptionError, match=f"--max_epochs: need a whole number >= 1, got {value}"):
        guard("--config_file", "train.json", f"--max_epochs={value}")
