"""Clone a service that tells labels and nothing else, from one photograph; killed in the middle, and nothing lost.

    python examples/label_only.py [--queries 3200] [--epochs 26] [--out runs/label-only]

A teacher of handwritten digits goes behind an address of this machine, so that all that is known of it is which class
it names for a picture. The clone is killed while it asks, and resumed: nobody is asked twice. Then the same for as many
answers in probabilities, to see what labels alone cost. A service of your own: `bridge.teachers.remote` says how it is
asked, or wrap a function in `bridge.teachers.asking.Asked`.
"""

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from bridge.teachers.answer_log import AnswerLog

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--queries", type=int, default=3200, help="views the teacher is asked about, in batches of 32")
parser.add_argument("--epochs", type=int, default=26)
parser.add_argument("--teacher", type=Path, help="a teacher's folder; else one is trained on digits")
parser.add_argument("--mixing", default="cutmix")
parser.add_argument("--split", default="test", help="choose on validation, report test")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path, default=Path("runs/label-only"))
arguments = parser.parse_args()
PROGRAM = [sys.executable, "-m"]


def clone(outputs, loss, killed):
    """Ask a service that gives `outputs`, distil what it said, and return the result."""
    out = arguments.out / outputs
    serving = [*PROGRAM, "bridge", "serve", str(teacher), "--port", "0", "--outputs", outputs]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            url = service.stdout.readline().partition(" at ")[2].split()[0]
            line = [
                *(*PROGRAM, "keras_aip", "distill", "--preset", "fast-digits", "--teacher", url, "--loss", loss),
                *("--store-teacher", str(out / "answers"), "--query-budget", str(arguments.queries + 500)),
                *("--steps-per-epoch", str(arguments.queries // 32), "--epochs", str(arguments.epochs)),
                *("--mixing", arguments.mixing, "--split", arguments.split, "--seed", str(arguments.seed)),
                *("--steps-per-execution", "1", "--out", str(out / "run"), "--strategy", "one_device"),
            ]
            if killed:
                print(f"A clone asks {url}, and is killed half-way.")
                with subprocess.Popen(line) as first:
                    while first.poll() is None and AnswerLog(out / "answers").answers < arguments.queries // 2:
                        time.sleep(0.2)
                    first.kill()
                print(f"\n{AnswerLog(out / 'answers').answers:,} answers are on the disk. It goes on:")
            subprocess.run([*line, *(["--resume"] if killed else [])], check=True)
            with urllib.request.urlopen(url) as response:
                answered = json.load(response)["answered"]
        finally:
            service.terminate()
    result = json.loads((out / "run" / "result.json").read_text())
    asked = arguments.queries + result["n"]
    print(f"The service was asked about {answered:,} pictures; the views and the test images are {asked:,}.")
    return result


teacher = arguments.teacher or arguments.out / "teacher"
if not teacher.exists():
    subprocess.run(
        [*PROGRAM, "keras_aip", "train-teacher", "--preset", "fast-digits", "--out", str(teacher)], check=True
    )
began = time.monotonic()
results: dict[str, dict] = {
    "labels": clone("labels", "argmax", killed=True),
    "probabilities": clone("probabilities", "kl", killed=False),
}
result: dict = {}
for outputs, result in results.items():
    print(
        f"{arguments.queries:,} queries, answered with {outputs}: the clone reads {result['student_top1']:.1%} of "
        f"{result['n']} real digits and agrees with its teacher on {result['agreement']:.1%}"
    )
print(f"the teacher reads {result['teacher_top1']:.1%}; {time.monotonic() - began:.0f} seconds")
