"""CIFAR-10 on a processor: a teacher trained on real images, a student from one photograph, and one from noise.

    python benchmarks/cifar10.py --image img_b.jpg --data-dir data/

Preset `fast-cifar10`, three commands as typed in a shell, each a process of its own. The steps are fixed beforehand so
that all three together take less than an hour on two cores; both students get the same. The recipe was chosen on the
agreement of student and teacher over views; the test images are read once per network, here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, machine, write_results


def run(*words: object) -> dict[str, float]:
    """Run a command of keras_aip; its wall time and the most memory it held."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "keras_aip", *map(str, words)], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(map(str, words))}")
    return {"minutes": (time.monotonic() - started) / 60, "peak_gib": usage.ru_maxrss / 2**20}


def startup(folder: Path, options: list[object]) -> float:
    """Seconds from the command to the end of its first step."""
    out = folder / "startup"
    started = time.time()
    run(*options, "--epochs", 1, "--steps-per-epoch", 1, "--out", out)
    return (out / "metrics.jsonl").stat().st_mtime - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", help="keep the runs here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("more", nargs="*", help="after --: further options of distill, such as --epochs 3")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.out or temporary)
        data = ["--data-dir", arguments.data_dir]
        teacher = folder / "teacher"
        if not teacher.is_dir():
            print("teacher", run("train-teacher", "--preset", "fast-cifar10", *data, "--out", teacher), flush=True)
        rows: dict[str, Any] = {}
        for source in (arguments.image, "control:noise"):
            out = folder / f"student-{Path(source).stem.replace(':', '-')}"
            line = ["distill", "--preset", "fast-cifar10", *data, "--teacher", teacher, "--image", source]
            line += ["--seed", arguments.seed, *arguments.more]
            spent = run(*line, "--out", out)
            result = json.loads((out / "result.json").read_text())
            rows[Path(source).name] = {**spent, **result}
            print(
                f"{Path(source).name:16s} student {result['student_top1']:.2%}  teacher {result['teacher_top1']:.2%}  "
                f"{result['views']:,} views   {spent['minutes']:.1f} minutes   {spent['peak_gib']:.2f} GiB",
                flush=True,
            )
        first_step = startup(folder, line)
        print(f"command to first step: {first_step:.1f} s")
        results = {"machine": machine(), "preset": "fast-cifar10", "more": arguments.more, "rows": rows}
        results["seconds_to_first_step"] = first_step
        write_results(ROOT / "benchmarks" / "results" / "cifar10.json", results)


if __name__ == "__main__":
    main()
