"""What labels alone cost: clones of a service that names classes, beside clones that are told probabilities.

    python benchmarks/label_only.py --out runs/label-only [--program keras_aip] [--seeds 3]

Handwritten digits and one photograph; both clones of a seed ask an address of this machine about equally many views.
Every clone that asks for labels is killed (SIGKILL) while it asks, and resumed; the service counts what it was asked.
Each seed is one call of examples/label_only.py on one thread. What is finished in --out is not done again, and refused
if it was made with other options; a half-finished seed is begun anew. Results go to benchmarks/results/label_only.json.

The views were chosen on the validation split (297 images, PyTorch, seed 0), for 3,200 labels: jittered ones (recipe
"cifar") with CutMix 99.0 %; of steady ones with CutMix 88.6 %, unmixed 78.1 %, with MixUp 60.6 %.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import ROOT, machine, summary, write_results

from bridge.folders import differences
from bridge.teachers.card import Card

OUTPUTS = ("labels", "probabilities")
KEPT = ("student_top1", "agreement", "teacher_top1", "n", "answered", "asked_again")


def of_seed(seed: int, folder: Path, teacher: Path, options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Results of both clones, which are made if they are not there; ends the program if they were made otherwise."""
    out = folder / f"seed_{seed}"
    asked = {**options, "teacher": Card.load(teacher).digest}
    if not (out / "label_only.json").is_file():
        for outputs in OUTPUTS:
            shutil.rmtree(out / outputs, ignore_errors=True)
        write_results(out / "options.json", asked)
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        line = [sys.executable, ROOT / "examples" / "label_only.py", *words, "--teacher", teacher]
        subprocess.run([*line, "--seed", str(seed), "--out", out], check=True, cwd=ROOT)
    made = json.loads((out / "options.json").read_text()) if (out / "options.json").is_file() else {}
    if changed := differences(made, asked):
        sys.exit(f"{out} was made with other options: {', '.join(changed)}. Give the same, or choose another --out.")
    told = json.loads((out / "label_only.json").read_text())
    return {outputs: {key: told[outputs][key] for key in KEPT} for outputs in OUTPUTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="torch_aip", choices=["keras_aip", "torch_aip"])
    parser.add_argument("--teacher", type=Path, help="a teacher's folder; else one is trained on digits")
    parser.add_argument("--queries", type=int, default=3200, help="views each clone asks about, in batches of 32")
    parser.add_argument("--epochs", type=int, default=26)
    parser.add_argument("--split", default="test", help="choose on validation, report test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "label_only.json")
    arguments = parser.parse_args()
    folder = arguments.out.absolute()
    teacher = (arguments.teacher or folder / "teacher").absolute()
    if not teacher.is_dir():
        line = [sys.executable, "-m", arguments.program, "train-teacher", "--preset", "fast-digits", "--threads", "1"]
        subprocess.run([*line, "--out", teacher], check=True, cwd=ROOT)
    options = {"program": arguments.program, "queries": arguments.queries, "epochs": arguments.epochs}
    options |= {"split": arguments.split, "threads": 1}
    rows = [of_seed(seed, folder, teacher, options) for seed in range(arguments.seeds)]
    found: dict[str, Any] = {}
    for outputs in OUTPUTS:
        found[outputs] = {
            key: summary([row[outputs][key] for row in rows])
            for key in ("student_top1", "agreement", "answered", "asked_again")
        }
        top1 = found[outputs]["student_top1"]
        print(
            f"{outputs:14s} {top1['median']:.1%} ({top1['min']:.1%} to {top1['max']:.1%}) of {rows[0][outputs]['n']} "
            f"images, n = {len(rows)}; asked about {max(row[outputs]['answered'] for row in rows):,} pictures, at most "
            f"{max(row[outputs]['asked_again'] for row in rows)} of them twice"
        )
    teacher_top1 = rows[0]["labels"]["teacher_top1"]
    print(f"{'teacher':14s} {teacher_top1:.1%}")
    results = {
        "machine": machine(), "options": options, "source": "sklearn:china.jpg", "n": len(rows),
        "teacher_top1": teacher_top1, **found, "seeds": rows,
    }  # fmt: skip
    write_results(arguments.results, results)


if __name__ == "__main__":
    main()
