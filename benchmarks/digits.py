"""The table at the head of the README: the digits, distilled from one photograph and from two controls.

    python benchmarks/digits.py [--out runs/digits]

One teacher by preset `fast-digits`, then one distillation per source and seed, each a process of its own, exactly as
typed in a shell. The recipe was chosen on the validation split; the test digits are read once per run, here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, machine, write_results

SOURCES = ("sklearn:china.jpg", "control:noise", "control:constant")


def command(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "keras_aip", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="keep the runs here; what is finished there is not done again")
    arguments = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.out or Path(temporary)
        teacher = folder / "teacher"
        if not teacher.is_dir():
            command("train-teacher", "--preset", "fast-digits", "--out", teacher)
        for source in SOURCES:
            results = []
            for seed in range(arguments.seeds):
                out = folder / f"{source.partition(':')[2]}-{seed}"
                line = ["--preset", "fast-digits", "--teacher", teacher, "--image", source, "--seed", seed]
                if not (out / "result.json").is_file():
                    shutil.rmtree(out, ignore_errors=True)
                    command("distill", *line, "--out", out)
                results.append(json.loads((out / "result.json").read_text()))
            accuracies = [r["student_top1"] for r in results]
            rows[source] = {
                "student_top1": accuracies,
                "median": statistics.median(accuracies),
                "worst": min(accuracies),
                "agreement": [r["agreement"] for r in results],
                "seconds": [r["seconds"] for r in results],
                "teacher_top1": results[0]["teacher_top1"],
                "n": results[0]["n"],
                "views": results[0]["views"],
            }
            shown = "  ".join(f"{a:.1%}" for a in accuracies)
            print(
                f"{source:18s} {shown}   median {rows[source]['median']:.1%}   teacher {results[0]['teacher_top1']:.1%}"
                f"   {statistics.median(rows[source]['seconds']):.0f} s each"
            )
    write_results(
        ROOT / "benchmarks" / "results" / "digits.json", {"machine": machine(), "preset": "fast-digits", "rows": rows}
    )


if __name__ == "__main__":
    main()
