"""A run that is killed at any instant goes on and ends with the very weights it would have had."""

import json
import os
import re
import signal
import subprocess
import sys
import time

from tests.conftest import ROOT

# The program itself, killed by itself with SIGKILL at the n-th rename of a file of the given name: what stands on
# the disk then is a whole temporary file and no new state. "write" kills while the temporary file is half written.
KILLED = """
import os, signal, sys
from keras_aip.cli import main

instant, needle, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen = 0
real_replace, real_fsync = os.replace, os.fsync

def is_the_instant(hit):
    global seen
    seen += hit
    return hit and seen == number

def replace(a, b, **options):
    if is_the_instant(instant == "rename" and needle in str(b)):
        os.kill(os.getpid(), signal.SIGKILL)
    real_replace(a, b, **options)

def fsync(descriptor):
    if is_the_instant(instant == "write" and needle in os.readlink(f"/proc/self/fd/{descriptor}")):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    real_fsync(descriptor)

os.replace, os.fsync = replace, fsync
sys.exit(main(sys.argv[4:]))
"""

# The program again and again in one process: what each time came out, on stdout and on stderr.
ONE_AFTER_THE_OTHER = """
import contextlib, io, json, sys
from keras_aip.cli import main

said = []
for line in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        code = main(line)
    said.append((code, out.getvalue(), errors.getvalue()))
print(json.dumps(said))
"""


def options(teacher, out):
    return (
        f"distill --teacher {teacher} --out {out} --image sklearn:china.jpg --student small_cnn --student-width 2 "
        "--views 40 --batch-size 16 --epochs 5 --steps-per-epoch 3 --optimizer adamw --schedule cosine --warmup 0.2 "
        "--deterministic --threads 1"
    ).split()


def run(arguments, kill=None):
    program = ["-m", "keras_aip"] if kill is None else ["-c", KILLED, *map(str, kill)]
    return python(*program, *arguments)


def python(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_run_killed_at_several_instants_ends_with_the_same_weights(teacher, tmp_path):
    out = tmp_path / "killed"
    instants = [
        ("write", "state-", 2),  # while the second state is being written
        ("rename", "state-", 1),  # the next one is whole but has no name yet
        ("rename", "card.json", 1),  # while the finished student is written
    ]
    arguments = options(teacher, out)
    for instant in instants:
        died = run(arguments, kill=instant)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert not (out / "result.json").exists()
        arguments = [*options(teacher, out), "--resume"]
    # The rest in one process, as each costs TensorFlow's start. The options come from the run itself.
    go_on = ["distill", "--resume", "--out", str(out)]
    changes = (["--image", "sklearn:flower.jpg"], ["--seed", "1"], ["--temperature", "4"])
    refused_lines = [[*options(teacher, out), *change, "--resume"] for change in changes]
    lines = [go_on, options(teacher, tmp_path / "whole"), go_on, *refused_lines]
    done = python("-c", ONE_AFTER_THE_OTHER, json.dumps(lines))
    assert done.returncode == 0, done.stderr
    resumed, whole, again, *refused = json.loads(done.stdout)
    assert resumed[0] == whole[0] == 0, (resumed, whole)
    for name in ("student/weights.safetensors",):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (out, tmp_path / "whole")
    ]
    for mine, theirs in zip(*lines):
        assert {k: v for k, v in mine.items() if k != "seconds"} == {k: v for k, v in theirs.items() if k != "seconds"}
    assert [line["step"] for line in lines[0]] == [3, 6, 9, 12, 15]
    assert not list(out.rglob("*.tmp"))

    assert again[0] == 0 and "finished already" in again[1]
    for change, (code, _, errors) in zip(changes, refused):
        assert code == 2 and "Traceback" not in errors
        assert change[0].strip("-").replace("image", "datum") in errors


def test_interrupted_run_says_how_to_go_on(teacher, tmp_path):
    out = tmp_path / "run"
    arguments = [*options(teacher, out), "--epochs", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_aip", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(out.glob("state/state-*.npz")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert re.search(r"Saved up to step \d+: continue with the same line and --resume", errors), errors
