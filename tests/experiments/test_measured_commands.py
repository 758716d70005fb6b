"""Commands of the comparison are measured by what they and their children compute, and leave nothing running."""

import re
import sys
import time

import psutil
import pytest
from compare_methods import BUNDLE_TRIAL
from measured_commands import run_measured

SPIN = """
import time
def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
"""


@pytest.fixture
def measure(tmp_path):
    """Return the CPU seconds of a Python program that can spin for some of its own."""

    def run(program: str, **marks) -> float:
        return run_measured([sys.executable, "-c", SPIN + program], tmp_path / "work/log.txt", 1, **marks)

    run.log = tmp_path / "work/log.txt"
    return run


def test_whole_command_counts_with_its_children(measure):
    own = measure("spin(0.5)")
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN + 'spin(1.5)'!r}])"
    assert 0.5 <= own < 1.5 <= measure(child)


def test_between_marks_counts_what_they_enclose_at_once_when_they_are_printed(measure, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    program = "spin(1); print('begin'); time.sleep(3); spin(1); print('end'); time.sleep(3); spin(3)"
    # marks are looked for every 0.2 s: what is computed before they are seen counts too
    assert 0.7 <= measure(program, first="begin", last="end") < 1.7
    assert 1.7 <= measure(program, last="end") < 3


def test_child_that_has_ended_before_the_mark_still_counts(measure):
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SPIN + 'spin(1.5)'!r}]);"
    assert measure(f"{child} print('end'); time.sleep(1)", last="end") >= 1.5


def test_command_is_ended_at_the_last_mark_if_so_asked(measure):
    start = time.monotonic()
    measure("print('begin', 'end'); time.sleep(60)", first="begin", last="end", stop=True)
    assert time.monotonic() - start < 30
    with pytest.raises(SystemExit, match=r"ended with exit code 0; see .*log\.txt"):
        measure("print('begin')", first="begin", last="end", stop=True)


def test_marks_of_an_earlier_command_in_the_log_do_not_count(measure):
    measure("print('end')")
    assert measure("spin(1); print('end'); time.sleep(2)", last="end") >= 1
    assert measure.log.read_text().split() == ["end", "end"]


def test_failure_is_an_error_that_names_the_log(measure):
    with pytest.raises(SystemExit, match=r"ended with exit code 3; see .*log\.txt"):
        measure("raise SystemExit(3)")


def test_interrupted_command_leaves_nothing_running(measure, monkeypatch):
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(321)'])"

    def interrupt(_) -> None:
        if any("time.sleep(321)" in " ".join(p.cmdline()) for p in psutil.Process().children(recursive=True)):
            raise KeyboardInterrupt

    monkeypatch.setattr("measured_commands.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure(child, last="end")
    monkeypatch.undo()
    psutil.wait_procs(psutil.Process().children(recursive=True), timeout=10)
    assert not [p for p in psutil.process_iter(["cmdline"]) if "time.sleep(321)" in str(p.info["cmdline"])]


@pytest.mark.parametrize(("of_user", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_do_not_spin_unless_the_user_says_so(measure, monkeypatch, of_user, expected):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if of_user:
        monkeypatch.setenv("OMP_WAIT_POLICY", of_user)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    measure("import os; print(*(os.environ[name] for name in ('OMP_WAIT_POLICY', 'OMP_NUM_THREADS')))")
    assert measure.log.read_text() == f"{expected} 1\n"


@pytest.mark.slow
def test_trial_of_a_bundle_is_its_second_epoch_and_no_validation(tiny_phantom, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    places = ["--dataset_dir", str(tiny_phantom), "--output_dir", str(tmp_path), "--cache_dir", str(tmp_path / "cache")]
    length = ["--max_epochs", "2", "--iterations_per_epoch", "20", "--val_interval", "3"]
    small = ["--image_size", "[32,32]", "--batch_size", "2"]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "bundles/enet/train.json"]
    log = tmp_path / "log.txt"
    assert run_measured([*command, *places, *length, *small], log, 1, **BUNDLE_TRIAL, stop=True) > 0.1
    before, _, after = log.read_text(encoding="utf-8").partition("training [2/2]: [20/20]")
    assert re.search(BUNDLE_TRIAL["first"], before) and not re.search(BUNDLE_TRIAL["last"], before)
    # the bar of a validation is there only when its first case is done
    assert re.search(BUNDLE_TRIAL["last"], before + after.partition("validation [")[0])
