"""Time our mean-field CRF against crfseg's layer, forward, and print the ratio.

Each layer runs once, in a process of its own, on the same random logits with the defaults that both share: 5
iterations, a window of 11 voxels, the smoothness term only. `--appearance` adds a run of ours with the appearance term,
which crfseg lacks. Memory is the growth of the process's highest memory during the run.

    pip install -e '.[benchmark]'
    python scripts/benchmark_crf.py
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time

import torch

SIDES = ("ours", "crfseg", "ours with appearance")


def measure(side: str, size: int, classes: int, threads: int) -> dict[str, float]:
    """Run one layer forward once in this process.

    Args:
        side: One of `SIDES`.
        size: Side of the cube in voxels.
        classes: Number of classes.
        threads: Threads of torch.

    Returns:
        "seconds", "cpu_seconds" (of all threads, without what other programs take) and "mb", the growth of the
        process's highest memory.
    """
    from nnunet_ext.networks.crf import make_field

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    options = {"appearance_weight": 1.0} if side == SIDES[2] else {}
    layer = make_field("crfseg" if side == "crfseg" else "exact", 3, options)
    logits, image = torch.randn(1, classes, *[size] * 3), torch.randn(1, 1, *[size] * 3)
    with torch.inference_mode():
        layer(logits[..., :8, :8, :8], image[..., :8, :8, :8])  # loads what torch loads late
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, cpu_start = time.perf_counter(), time.process_time()
        layer(logits, image)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def main() -> int:
    """Measure both and print a table; exit code 1 if ours takes more than a tenth of crfseg's time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="side of the cube in voxels (default: 128)")
    parser.add_argument("--classes", type=int, default=5, help="number of classes (default: 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch (default: all)")
    parser.add_argument("--appearance", action="store_true", help="time ours with the appearance term too")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.size, args.classes, args.threads)))
        return 0
    print(f"{args.size}^3 voxels, {args.classes} classes, {args.threads} threads, torch {torch.__version__}")
    print(platform.processor() or platform.machine())
    results = {}
    for side in SIDES if args.appearance else SIDES[:2]:
        own = ["--side", side, "--size", args.size, "--classes", args.classes, "--threads", args.threads]
        run = subprocess.run([sys.executable, __file__, *map(str, own)], capture_output=True, text=True)
        if run.returncode:
            print(f"{side}: {run.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return 2
        results[side] = json.loads(run.stdout)
        seconds, cpu_seconds, mb = (results[side][key] for key in ("seconds", "cpu_seconds", "mb"))
        print(f"{side:22s}{seconds:8.2f} s {cpu_seconds:8.2f} s of CPU {mb:8.0f} MB", flush=True)
    ratio, cpu_ratio = (results["ours"][key] / results["crfseg"][key] for key in ("seconds", "cpu_seconds"))
    print(f"ours / crfseg: {ratio:.3f} (goal: <= 0.100), of CPU: {cpu_ratio:.3f}")
    return 0 if ratio <= 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
