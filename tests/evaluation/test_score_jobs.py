"""`--slurm`: shards of the cases in jobs, here processes of this machine; the same files as without."""

import os
import re
import signal
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("submitit")

from submitit.core.core import Job

from evaluation import cases, jobs
from evaluation.case_scores import CaseScores
from evaluation.case_task import CaseTask
from evaluation.score_case import score_case

LOCAL = ("--slurm", "--slurm-cluster", "local")


@pytest.fixture
def four(workspace, cube, monkeypatch):
    """Four cases; jobs are asked often whether they have ended."""
    for number in range(4):
        workspace.pair(cube(8).astype(np.uint8), cube(8, shift=number).astype(np.uint8), case=f"case_{number}")
    monkeypatch.setattr(jobs, "_POLL_S", 0.1)
    monkeypatch.setattr(Job, "_results_timeout_s", 1)
    return workspace


@pytest.fixture
def scored_by(monkeypatch):
    """Return what makes jobs score by a function of the case's name and of what scores it really."""

    def use(action):
        # a function that isn't importable travels into the jobs by value
        monkeypatch.setattr(cases, "score_case", lambda task: action(task.case, lambda: score_case(task)))

    return use


FAKE_SLURM = {
    "sbatch": """
        text = open(sys.argv[-1]).read()  # like Slurm's, which copies it: submitit renames the file at once
        open(os.environ["SUBMITTED"], "w").write(text)
        last = int(re.search(r"--array=0-(\\d+)", text)[1])
        for number in range(last + 1):
            own = {"SLURM_JOB_ID": f"7{number}", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(number)}
            subprocess.Popen(["bash", "-c", text], env=os.environ | own, stdout=-3, stderr=-3)
        print("Submitted batch job 7")
    """,
    "srun": """
        command = sys.argv[sys.argv.index("--error") + 2:]
        os.execvp(command[0], command)
    """,
    "sacct": "print('JobID|State|NodeList')",
    "scancel": "",
}
"""Slurm's programs as far as a job array needs them; all jobs run here, at once."""


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """Put programs like Slurm's on the path; return the file that holds what was submitted."""
    for name, body in FAKE_SLURM.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{sys.executable}\nimport os, re, subprocess, sys\n{textwrap.dedent(body)}")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SUBMITTED", str(tmp_path / "submitted"))
    return tmp_path / "submitted"


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_jobs_leave_the_same_files_as_a_run_without(four):
    four.run("--nsd-tolerance-mm", "1", output=four.root / "here")
    run = four.run("--nsd-tolerance-mm", "1", *LOCAL, "--slurm-shards", "2")
    assert run.code == 0
    assert sorted(path.name for path in four.scores.iterdir()) == ["metrics.csv", "summary.json"]
    for name in ("metrics.csv", "summary.json"):
        assert (four.scores / name).read_bytes() == (four.root / "here" / name).read_bytes()


def test_slurm_gets_one_job_array_with_the_options(four, fake_slurm):
    expected = four.run(output=four.root / "here").rows
    run = four.run("--slurm", "--slurm-shards", "2", "--slurm-options", "slurm_partition=cpu", "timeout_min=7")
    assert run.code == 0
    assert run.rows == expected
    submitted = fake_slurm.read_text()
    for flag in ("--array=0-1", "--partition=cpu", "--time=7", "--job-name=medseg-evaluate"):
        assert f"#SBATCH {flag}" in submitted


def test_slices_are_scored_in_jobs_too(four):
    expected = four.run2d("--axis", "1", output=four.root / "here").rows
    assert four.run2d("--axis", "1", *LOCAL, "--slurm-shards", "1").rows == expected


def test_relative_paths_mean_the_same_in_jobs(four, monkeypatch):
    monkeypatch.chdir(four.root)
    arguments = ["--predictions", "predictions", "--references", "references", "--output", "scores", *LOCAL]
    from evaluation import test3d

    assert test3d.main([*arguments, "--slurm-shards", "1"]) == 0


def test_corrupt_case_is_named_and_the_next_run_scores_only_that(four, scored_by, cube):
    bad = four.predictions / "case_1.nii.gz"
    bad.write_bytes(bad.read_bytes()[:100])
    run = four.run(*LOCAL, "--slurm-shards", "2")
    assert run.code == 1
    assert f"error: case case_1 not scored: {bad}" in run.err
    assert {row["case"] for row in run.rows} == {"case_0", "case_2", "case_3"}
    four.nifti(bad, cube(8, shift=1).astype(np.uint8))
    names = []
    scored_by(lambda case, score: names.append(case) or score())
    assert four.run().code == 0
    assert names == ["case_1"]
    assert not (four.scores / ".jobs").exists()


def test_cases_of_a_job_that_dies_are_named_and_the_others_kept(four, scored_by):
    scored_by(lambda case, score: os._exit(9) if case == "case_2" else score())
    run = four.run(*LOCAL, "--slurm-shards", "1")
    assert run.code == 1
    assert {row["case"] for row in run.rows} == {"case_0", "case_1"}
    assert "case case_2 not scored" in run.err and "case case_3 not scored" in run.err
    assert "its job ended without a result" in run.err and ".err" in run.err
    (log,) = (four.scores / ".jobs").rglob("*.err")
    assert str(log) in run.err


def test_ctrl_c_cancels_the_jobs_and_the_next_run_goes_on(four, scored_by, monkeypatch):
    marker = four.root / "pid"

    def hang_at_the_third(case, score):
        if case == "case_2":
            marker.write_text(str(os.getpid()))
            time.sleep(300)
        return score()

    def interrupted_when_it_hangs(seconds):
        if marker.exists() and marker.read_text():
            raise KeyboardInterrupt
        sleep(seconds)

    sleep = time.sleep
    scored_by(hang_at_the_third)
    monkeypatch.setattr(jobs.time, "sleep", interrupted_when_it_hangs)
    killed = four.run(*LOCAL, "--slurm-shards", "1")
    assert killed.code == 130 and "goes on where it was" in killed.err
    assert not (four.scores / "metrics.csv").exists()
    deadline = time.monotonic() + 30
    while is_running(int(marker.read_text())):
        assert time.monotonic() < deadline, "the job must end when it is cancelled"
        sleep(0.1)
    monkeypatch.undo()
    names = []
    scored_by(lambda case, score: names.append(case) or score())
    assert four.run().code == 0
    assert names == ["case_2", "case_3"]


def test_ctrl_c_while_jobs_are_submitted_cancels_all_of_them(four, scored_by, monkeypatch):
    from submitit.local import local

    started, start = [], local.start_controller

    def interrupted_after_the_first(**options):
        started.append(start(**options))
        if len(started) == 1:
            signal.raise_signal(signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(local, "start_controller", interrupted_after_the_first)
    scored_by(lambda case, score: time.sleep(300))
    run = four.run(*LOCAL, "--slurm-shards", "2")
    assert run.code == 130 and "goes on where it was" in run.err
    assert len(started) == 2
    for process in started:
        process.wait(30)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_job_that_is_started_again_skips_what_it_had_finished(four, tmp_path):
    names = []

    def score(task):
        names.append(task.case)
        return score_case(task)

    found, known = cases.find_both(four.predictions, four.references)
    metrics = cases.choose_metrics(cases.MetricOptions(), 2.0, None, None)
    tasks = tuple(CaseTask(case, found[case], known[case], "auto", None, False, None, metrics, None) for case in found)
    log = tmp_path / "log"
    jobs._Shard(score, tasks[:2], log, Path.cwd())()
    again = jobs._Shard(score, tasks, log, Path.cwd()).checkpoint().result()
    assert names == ["case_0", "case_1", "case_2", "case_3"]
    assert all(isinstance(result, CaseScores) for result in again)


def test_jobs_compile_what_their_cases_need(four, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(jobs, "warm_up_for", compiled.append)
    found, known = cases.find_both(four.predictions, four.references)
    metrics = cases.choose_metrics(cases.MetricOptions(also=("calibration",)), 2.0, None, None)
    tasks = tuple(CaseTask(case, found[case], known[case], "auto", None, False, None, metrics, None) for case in found)
    jobs._Shard(score_case, tasks, tmp_path / "log", Path.cwd())()
    assert compiled == [tasks[0]]


def test_cases_are_shared_evenly():
    assert jobs.JobOptions(shards=3).split(7) == [range(0, 7, 3), range(1, 7, 3), range(2, 7, 3)]
    assert len(jobs.JobOptions().split(41)) == 3  # 20 cases a job
    assert len(jobs.JobOptions().split(10**6)) == 64
    assert len(jobs.JobOptions(shards=9).split(2)) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--slurm",), "needs the program sbatch, which isn't found; .* --slurm-cluster local"),
        ((*LOCAL, "--slurm-shards", "0"), "--slurm-shards: must be >= 1, got 0"),
        (("--slurm-shards", "2"), "--slurm-shards: is for --slurm only"),
        (("--slurm-shards", "0"), "--slurm-shards: is for --slurm only"),
        ((*LOCAL, "--slurm-options", "cpu"), "must be NAME=VALUE, got 'cpu'"),
        ((*LOCAL, "--slurm-options", "slurm_colour=red"), "--slurm-options: Unknown argument 'colour'"),
        ((*LOCAL, "--slurm-options", "timeout_min=soon"), '--slurm-options: .*"timeout_min"'),
    ],
)
def test_options_that_make_no_sense_are_named(four, monkeypatch, options, message):
    monkeypatch.setattr(jobs.shutil, "which", lambda program: None)
    run = four.run(*options)
    assert run.code == 2
    assert re.search(message, run.err), run.err


def test_missing_package_says_how_to_install_it(four, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    run = four.run(*LOCAL)
    assert run.code == 2 and "pip install submitit" in run.err
