"""`medseg-evaluate <command>` and `python -m evaluation <command>`: which command runs, and what it calls itself."""

import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

from evaluation import __main__ as commands
from evaluation import compare, test2d, test3d
from evaluation.command import Command, until_reader_leaves


@pytest.fixture
def started_as(monkeypatch):
    """Return what pretends that the process was started by some file."""
    return lambda path: monkeypatch.setattr(sys, "argv", [path])


def test_help_lists_every_command_and_nothing_is_an_error(capsys):
    assert commands.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert commands.main([]) == 2
    assert capsys.readouterr().out == listed
    assert all(f"\n  {name} " in listed for name in ("test3d", "test2d", "compare", "report", "threshold"))


@pytest.mark.parametrize("name", ["test3d", "test2d", "compare"])
def test_command_is_the_main_of_its_module(name, capsys):
    assert commands.main([name, "--help"]) == 0
    through_all = capsys.readouterr().out
    assert import_module(f"evaluation.{name}").main(["--help"]) == 0
    assert capsys.readouterr().out == through_all


@pytest.mark.parametrize("name", ["report", "threshold"])
def test_command_is_found_by_the_name_of_its_module(name, monkeypatch):
    received = []
    module = SimpleNamespace(main=lambda argv: received.append(argv) or 7)
    monkeypatch.setitem(sys.modules, f"evaluation.{name}", module)
    assert commands.main([name, "--output", "there"]) == 7
    assert received == [["--output", "there"]]


def test_options_without_a_command_mean_test3d(workspace, cube):
    workspace.pair(cube(8), cube(8, shift=1))
    run = workspace.run(module=commands)
    assert run.code == 0
    assert run.value("dice") == 7 / 8


def test_unknown_command_is_named_with_one_that_is_like_it(capsys):
    assert commands.main(["test4d"]) == 2
    assert "command must be one of test3d, test2d, compare, report, threshold, got 'test4d'; did you mean test" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/env/bin/medseg-evaluate", "medseg-evaluate compare"),
        ("/env/lib/evaluation/__main__.py", "python -m evaluation compare"),
        ("/env/lib/evaluation/compare.py", "python -m evaluation.compare"),
    ],
)
def test_help_says_what_was_typed(path, name, started_as, capsys):
    started_as(path)
    compare.main(["--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {name} ")
    assert f"\n  {name} --scores nnunet=" in text


@pytest.mark.parametrize("module", [test3d, test2d, compare])
def test_command_without_options_shows_an_example(module, capsys):
    assert module.main([]) == 2
    err = capsys.readouterr().err
    assert f"python -m {module.__name__} --" in err
    assert "usage" not in err and "required" not in err


def test_ctrl_c_says_how_to_go_on(capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    command = Command("any", "Do.", "Results: none.", ("--fast",), interrupted="nothing was lost")
    assert command.run(["--fast"], lambda parser: parser.add_argument("--fast", nargs="?"), interrupted) == 130
    assert capsys.readouterr().err == "interrupted: nothing was lost\n"


def test_reader_that_leaves_is_no_error():
    code = (
        "from evaluation.command import until_reader_leaves\n"
        "with until_reader_leaves():\n"
        "    print('x' * 10**7)\n"
        "print('more')\n"
        "raise SystemExit(3)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.read(5)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 3


def test_error_while_printing_is_not_hidden():
    with pytest.raises(ValueError, match="odd"), until_reader_leaves():
        raise ValueError("odd")


def test_module_that_starts_all_runs():
    done = subprocess.run([sys.executable, "-m", "evaluation"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.startswith("usage: python -m evaluation <command>")
