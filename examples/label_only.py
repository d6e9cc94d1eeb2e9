"""Clone a service that tells labels and nothing else, from one photograph; killed in the middle, and nothing lost.

    python examples/label_only.py [--program keras_aip] [--queries 3200] [--epochs 26] [--out runs/label-only]

A teacher of handwritten digits goes behind an address of this machine, so that all that is known of it is which class
it names for a picture. The clone is killed while it asks, and resumed: what was answered is not asked again. Then the
same for as many answers in probabilities, to see what labels alone cost (benchmarks/label_only.py does it over several
seeds). A service of your own: `bridge.teachers.remote` says how it is asked, or wrap a function in
`bridge.teachers.asking.Asked`.
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
parser.add_argument("--program", default="keras_aip", choices=["keras_aip", "torch_aip"])
parser.add_argument("--outputs", nargs="+", default=["labels", "probabilities"], choices=["labels", "probabilities"])
parser.add_argument("--queries", type=int, default=3200, help="views the teacher is asked about, in batches of 32")
parser.add_argument("--epochs", type=int, default=26, help="over those same views")
parser.add_argument("--teacher", type=Path, help="a teacher's folder; else one is trained on digits")
parser.add_argument("--recipe", default="cifar", help="how views are made; this and mixing: see the benchmark")
parser.add_argument("--mixing", default="cutmix")
parser.add_argument("--split", default="test", help="choose on validation, report test")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--threads", type=int, help="CPU threads of teacher and clones")
parser.add_argument("--out", type=Path, default=Path("runs/label-only"), help="a new folder")
arguments = parser.parse_args()
PROGRAM = [sys.executable, "-m", arguments.program]
THREADS = [] if arguments.threads is None else ["--threads", str(arguments.threads)]


def clone(outputs):
    """Ask a service that gives `outputs`, distil what it said, and return the result."""
    out, killed = arguments.out / outputs, outputs == "labels"
    loss = {"labels": "argmax", "probabilities": "kl"}[outputs]
    serving = [sys.executable, "-m", "bridge", "serve", str(teacher), "--port", "0", "--outputs", outputs]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            url = service.stdout.readline().partition(" at ")[2].partition(" ")[0]
            line = [
                *(*PROGRAM, "distill", "--preset", "fast-digits", "--teacher", url, "--loss", loss, *THREADS),
                *("--store-teacher", str(out / "answers"), "--query-budget", str(arguments.queries + 500)),
                *("--steps-per-epoch", str(arguments.queries // 32), "--epochs", str(arguments.epochs)),
                *("--recipe", arguments.recipe, "--mixing", arguments.mixing, "--split", arguments.split),
                *("--seed", str(arguments.seed), "--steps-per-execution", "1", "--strategy", "one_device"),
                *("--out", str(out / "run")),
            ]
            if killed:
                print(f"\nA clone asks {url}, and is killed half-way.", flush=True)
                with subprocess.Popen(line) as first:
                    while first.poll() is None and AnswerLog(out / "answers").answers < arguments.queries // 2:
                        time.sleep(0.02)
                    first.kill()
                if first.returncode >= 0:
                    sys.exit("It ended before it was killed.")
                known = AnswerLog(out / "answers").answers
                print(f"\nKilled; {known:,} answers are on the disk. It goes on:", flush=True)
            else:
                print(f"\nAnother clone asks {url} for {outputs}.", flush=True)
            subprocess.run([*line, *(["--resume"] if killed else [])], check=True)
            with urllib.request.urlopen(url) as response:
                answered = json.load(response)["answered"]
        finally:
            service.terminate()
    result = json.loads((out / "run" / "result.json").read_text())
    again = answered - arguments.queries - result["n"]
    # At most the one question whose answer nobody was left to write down.
    twice = f"{again} of them twice: the kill came before their answer was on the disk" if again else "none twice"
    print(
        f"The service was asked about {arguments.queries:,} views and {result['n']} {arguments.split} images, {twice}."
    )
    return {**result, "answered": answered, "asked_again": again}


teacher = arguments.teacher or arguments.out / "teacher"
if not teacher.exists():
    subprocess.run([*PROGRAM, "train-teacher", "--preset", "fast-digits", "--out", str(teacher), *THREADS], check=True)
began = time.monotonic()
results = {outputs: clone(outputs) for outputs in arguments.outputs}
print()
for outputs, result in results.items():
    print(
        f"{arguments.queries:,} views, answered with {outputs}: the clone reads {result['student_top1']:.1%} of "
        f"{result['n']} real digits and agrees with its teacher on {result['agreement']:.1%}"
    )
print(f"the teacher reads {results[arguments.outputs[0]]['teacher_top1']:.1%}; {time.monotonic() - began:.0f} seconds")
(arguments.out / "label_only.json").write_text(json.dumps(results, indent=2) + "\n")
