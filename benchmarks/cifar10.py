"""CIFAR-10 on a processor: a teacher trained on real images, a student from one photograph, and one from noise.

    python benchmarks/cifar10.py --image img_b.jpg --data-dir data/ --out runs/cifar10

Preset `fast-cifar10`, commands as typed in a shell, each a process of its own. Their steps were fixed beforehand so
that all of it takes less than an hour on two cores. The two students are trained side by side, each with half of the
cores, and get the same steps. The recipe was chosen on the agreement of student and teacher over views; the test images
are read once per network, here. What is finished in --out is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, machine, write_results


def start(*words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "keras_aip", *map(str, words)], cwd=ROOT)


def spent(process: subprocess.Popen[bytes], started: float) -> dict[str, float]:
    """Wait for a command; its wall time and the most memory it held."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"failed: {process.args}")
    return {"minutes": (time.monotonic() - started) / 60, "peak_gib": usage.ru_maxrss / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("more", nargs="*", help="after --: further options of distill, such as --epochs 3")
    arguments = parser.parse_args()
    folder, data = arguments.out.absolute(), ["--data-dir", Path(arguments.data_dir).absolute()]
    folder.mkdir(parents=True, exist_ok=True)
    notes = folder / "spent.json"
    costs = json.loads(notes.read_text()) if notes.exists() else {}
    if "teacher" not in costs:
        began = time.monotonic()
        teaching = start("train-teacher", "--preset", "fast-cifar10", *data, "--out", folder / "teacher")
        costs["teacher"] = spent(teaching, began)
        notes.write_text(json.dumps(costs))
    line = ["distill", "--preset", "fast-cifar10", *data, "--teacher", folder / "teacher", *arguments.more]
    outs = {source: folder / Path(source).stem.replace(":", "-") for source in (arguments.image, "control:noise")}
    began, threads = time.monotonic(), max(1, (os.cpu_count() or 2) // 2)
    running = {
        source: start(*line, "--image", source, "--out", out, "--threads", threads)
        for source, out in outs.items()
        if Path(source).name not in costs
    }
    for source, process in running.items():
        costs[Path(source).name] = spent(process, began)
        notes.write_text(json.dumps(costs))
    rows = {}
    for source, out in outs.items():
        name = Path(source).name
        rows[name] = {**costs[name], **json.loads((out / "result.json").read_text()), "teacher": "wrn_10_2"}
        print(
            f"{name:16s} student {rows[name]['student_top1']:.2%}  teacher {rows[name]['teacher_top1']:.2%}  "
            f"{rows[name]['views']:,} views  {rows[name]['minutes']:.1f} minutes  {rows[name]['peak_gib']:.2f} GiB"
        )
    results = {"machine": machine(), "preset": "fast-cifar10", "more": arguments.more, "spent": costs, "rows": rows}
    write_results(ROOT / "benchmarks" / "results" / "cifar10.json", results)


if __name__ == "__main__":
    main()
