"""From the command to the end of the first step, and the most memory held: WRN-40-4 → WRN-16-4 on CIFAR-10.

    python benchmarks/startup.py --image img_b.jpg --data-dir data/ [--batch-size 64]

The reference's line as typed in a shell, stopped after its first step. The teacher is a random one of that size.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, machine, write_results

RANDOM_TEACHER = "import sys, keras_aip as k; k.save_teacher(k.models.wrn_40_4(classes=10), sys.argv[1])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    seconds, peaks = [], []
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "cifar10_wrn_40_4"
        subprocess.run([sys.executable, "-c", RANDOM_TEACHER, teacher], check=True, cwd=ROOT)
        line = (
            "-m keras_aip distill --dataset cifar10 --student wrn_16_4 --teacher wrn_40_4 --epochs 2 "
            f"--steps-per-epoch 1 --batch-size {arguments.batch_size}"
        ).split()
        line += [
            "--image",
            str(Path(arguments.image).absolute()),
            "--data-dir",
            str(Path(arguments.data_dir).absolute()),
        ]
        for number in range(arguments.repeats):
            out = Path(folder) / f"run{number}"
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, *line, "--out", str(out)], cwd=ROOT, env={**os.environ, "AIP_TEACHERS": folder}
            )
            while process.poll() is None and not (out / "metrics.jsonl").exists():
                time.sleep(0.02)
            seconds.append(time.monotonic() - began)
            process.kill()
            peaks.append(os.wait4(process.pid, 0)[2].ru_maxrss / 2**20)
    print(f"first step after {', '.join(f'{s:.1f}' for s in seconds)} s; at most {max(peaks):.2f} GiB")
    results = {"machine": machine(), "batch": arguments.batch_size, "seconds": seconds, "peak_gib": peaks}
    write_results(ROOT / "benchmarks" / "results" / "startup.json", results)


if __name__ == "__main__":
    main()
