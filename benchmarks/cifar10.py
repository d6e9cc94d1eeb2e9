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
import time
from pathlib import Path

from against_noise import against_noise, spent, start
from common import ROOT, machine, write_results


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
        teaching = start("keras_aip", "train-teacher", "--preset", "fast-cifar10", *data, "--out", folder / "teacher")
        costs["teacher"] = spent(teaching, began)
        notes.write_text(json.dumps(costs))
    options = ["--preset", "fast-cifar10", *data, "--teacher", folder / "teacher", *arguments.more]
    rows = against_noise("keras_aip", "image", [arguments.image], folder, options)
    costs = json.loads(notes.read_text())
    rows = {name: {**row, "teacher": "wrn_10_2"} for name, row in rows.items()}
    results = {"machine": machine(), "preset": "fast-cifar10", "more": arguments.more, "spent": costs, "rows": rows}
    write_results(ROOT / "benchmarks" / "results" / "cifar10.json", results)


if __name__ == "__main__":
    main()
