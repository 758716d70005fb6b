"""Time our scores against other packages' on the same volumes, compare the values, and print the ratios.

Every measurement runs in a process of its own, after a warm-up on a small volume: CPU seconds, wall seconds, and the
memory that scoring adds to the two arrays. `--files` times the commands instead, from files on disk to written scores.
A package that isn't installed is left out by name: pip install -e '.[benchmark]'.
"""

import argparse
import contextlib
import importlib.util
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from benchmark_peers import PEERS, Values
from benchmark_volumes import SPACING_MM, VOLUMES, make_pair

LARGEST_DIFFERENCE = 1e-4
"""Largest difference of values that agree: MONAI and torchmetrics compute in float32."""


def measure(peer: str, folder: Path) -> dict:
    """Score a volume in this process.

    Args:
        peer: One of `PEERS`.
        folder: Where the volume lies.

    Returns:
        CPU and wall seconds, the memory added in MB, and the values.
    """
    reference, prediction = np.load(folder / "reference.npy"), np.load(folder / "prediction.npy")
    labels = [int(label) for label in np.flatnonzero(np.bincount(reference.reshape(-1))) if label]
    function = PEERS[peer][1]
    small = np.zeros((2, 24, 40, 40), np.uint8)
    small[0, 4:12, 4:20, 4:20] = small[1, 6:14, 5:21, 4:20] = 1
    function(small[0], small[1], [1])
    if peer.startswith("ours"):
        from evaluation.scoring import warm_up

        warm_up()
    before = _reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    values = function(reference, prediction, labels)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_s": cpu, "wall_s": wall, "added_mb": _peak_mb() - before, "values": values}


def _reset_peak() -> float:
    """Forget the highest memory so far where the system can (Linux); return that of now in MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_mb()


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(text for text in status.read_text(encoding="ascii").splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def compare(volumes: Iterable[str], peers: Iterable[str], repeats: int, limit_s: float) -> bool:
    """Measure every peer on every volume and print a table for each.

    Args:
        volumes: Some of `VOLUMES`.
        peers: Some of `PEERS`.
        repeats: Measurements of each, of which the fastest counts.
        limit_s: Time after which a measurement is given up.

    Returns:
        Whether some values were compared, and all that should agree do.
    """
    agree, n_compared = True, 0
    print(f"{platform.machine()}, Python {platform.python_version()}, one process each, {time.strftime('%Y-%m-%d')}")
    for volume in volumes:
        with tempfile.TemporaryDirectory() as folder:
            for name, array in zip(("reference", "prediction"), make_pair(volume), strict=True):
                np.save(Path(folder) / name, array)
            print(f"\n{volume}: {array.shape}\n")
            print("| package | CPU s | times ours | wall s | added MB | largest difference to ours, of values |")
            print("|---|---|---|---|---|---|", flush=True)
            known: Values = {}
            base = math.nan
            for peer in peers:
                result = _best_of(peer, folder, repeats, limit_s)
                if isinstance(result, str):
                    print(f"| {peer} | {result} | | | | |", flush=True)
                    continue
                base = result["cpu_s"] if peer == "ours" else base
                apart = differences(result["values"], known)
                n_compared += len(apart)
                agree = agree and max(apart, default=0.0) <= LARGEST_DIFFERENCE
                if peer.startswith("ours"):
                    known = result["values"] | known
                shown = f"{max(apart):.1g} of {len(apart)}" if apart else "" if peer == "ours" else "nan: none compared"
                print(
                    f"| {peer} | {result['cpu_s']:.3f} | {result['cpu_s'] / base:.1f} | {result['wall_s']:.3f} "
                    f"| {result['added_mb']:.0f} | {shown} |",
                    flush=True,
                )
    if not n_compared:
        print("error: needs values of ours and of another package to compare, got none; see --peers", file=sys.stderr)
    return agree and n_compared > 0


def differences(values: Values, known: Values) -> list[float]:
    """Return how far apart values are that have the same name.

    Args:
        values: Values of one package.
        known: Values of another.

    Returns:
        Absolute differences, >= 0; 0 where both are nan or the same infinity, inf where only one of them is.
    """
    apart = []
    for key in values.keys() & known.keys():
        one, other = values[key], known[key]
        same = one == other or (math.isnan(one) and math.isnan(other))
        apart.append(0.0 if same else abs(one - other) if math.isfinite(one) and math.isfinite(other) else math.inf)
    return apart


def _best_of(peer: str, folder: str, repeats: int, limit_s: float) -> dict | str:
    if importlib.util.find_spec(PEERS[peer][0]) is None:
        return "not installed"
    results = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--measure", peer, "--folder", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return f"more than {limit_s:.0f} s"
        if done.returncode:
            return f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:120]}"
        results.append(json.loads(done.stdout.splitlines()[-1]))
        if results[-1]["wall_s"] > 30:
            break
    return min(results, key=lambda result: result["cpu_s"])


def compare_commands(n_cases: int, workers: int) -> None:
    """Time our command and nnU-Net's from files on disk to written scores, and print a table.

    Args:
        n_cases: Number of cases, all like `abdomen`.
        workers: Processes of each command.
    """
    import nibabel as nib

    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        (folder / "references").mkdir()
        (folder / "predictions").mkdir()
        for side, array in zip(("references", "predictions"), make_pair("abdomen"), strict=True):
            first = folder / side / "case_000.nii.gz"
            nib.save(nib.Nifti1Image(array.T, np.diag([*SPACING_MM[::-1], 1.0])), first)
            for number in range(1, n_cases):
                shutil.copy(first, folder / side / f"case_{number:03d}.nii.gz")
        labels = {"background": 0, **{f"organ {label}": label for label in range(1, VOLUMES["abdomen"][1] + 1)}}
        content = {"labels": labels, "file_ending": ".nii.gz", "channel_names": {"0": "CT"}, "numTraining": n_cases}
        (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
        (folder / "plans.json").write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}), encoding="utf-8")
        sides = [str(folder / side) for side in ("references", "predictions")]
        ours = [sys.executable, "-m", "evaluation.test3d", "--predictions", sides[1], "--references", sides[0]]
        ours += ["--output", str(folder / "scores"), "--workers", str(workers)]
        ours += ["--dataset-json", str(folder / "dataset.json")]
        theirs = [str(Path(sys.executable).with_name("nnUNetv2_evaluate_folder")), *sides, "-np", str(workers)]
        theirs += ["-djfile", str(folder / "dataset.json"), "-pfile", str(folder / "plans.json")]
        fresh = {"NUMBA_CACHE_DIR": str(folder / "cache")}
        times = {
            "ours, first run after installation": _timed(ours, fresh),
            "ours": _timed(ours, fresh),
            "nnUNetv2_evaluate_folder (overlap only)": _timed(theirs, {}),
        }
        print(f"\n{n_cases} cases of {array.shape} on disk, {workers} processes\n")
        print("| command | wall s | CPU s | times ours (wall) |\n|---|---|---|---|")
        for name, (wall, cpu) in times.items():
            print(f"| {name} | {wall:.1f} | {cpu:.1f} | {wall / times['ours'][0]:.1f} |")


def _timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Run the command line.

    Returns:
        Exit code: 1 if values that should agree don't, or if none were compared.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", nargs="+", choices=VOLUMES, default=list(VOLUMES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each, the fastest counts")
    parser.add_argument("--limit-s", type=float, default=900, help="give a measurement up after so many seconds")
    parser.add_argument("--files", type=int, metavar="N", help="time commands on N cases on disk instead")
    parser.add_argument("--workers", type=int, default=2, help="processes of the commands")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder)))
        return 0
    if args.files:
        compare_commands(args.files, args.workers)
        return 0
    return 0 if compare(args.volumes, args.peers, args.repeats, args.limit_s) else 1


if __name__ == "__main__":
    sys.exit(main())
