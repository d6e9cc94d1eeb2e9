"""The same distillation from a photograph or sound and from noise, side by side, each with half of the cores.

    python benchmarks/against_noise.py torch_cifar10 --image img_b.jpg --out runs/torch-cifar10 -- \\
        --preset fast-cifar10 --data-dir data/ --teacher cifar10_resnet56 --student resnet20

    python benchmarks/against_noise.py keras_speech --program keras_aip --audio clip.flac --out runs/speech -- \\
        --preset fast-speech-commands --dataset speech.npz --teacher teachers/dscnn_l

With more than one source all of them are distilled from, two at a time. What follows `--` are options of `distill`; all
students get the same ones, and so the same steps. Each is a process of its own, as typed in a shell. Results go to
benchmarks/results/NAME.json; what is finished in --out is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import ROOT, machine, write_results

# Of a result, what no one else's machine has or what tells of this one.
_LEFT_OUT = ("teacher",)


def start(*words: object) -> subprocess.Popen[bytes]:
    """Begin `python -m` these words."""
    return subprocess.Popen([sys.executable, "-m", *map(str, words)], cwd=ROOT)


def spent(process: subprocess.Popen[bytes], started: float) -> dict[str, float]:
    """Wait for a command; its wall time, the time of all its threads on a core, and the most memory it held."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"failed: {process.args}")
    return {
        "minutes": (time.monotonic() - started) / 60,
        "core_minutes": (usage.ru_utime + usage.ru_stime) / 60,
        "peak_gib": usage.ru_maxrss / 2**20,
    }


def against_noise(
    program: str, kind: str, given: Sequence[str], folder: Path, options: Sequence[object]
) -> dict[str, dict[str, Any]]:
    """Distil from a source and from noise at the same time, then from further sources.

    Args:
        program: "keras_aip" or "torch_aip".
        kind: "image" or "audio".
        given: the photographs or sounds.
        folder: of all runs and of what they took.
        options: of `distill`, the same for all.

    Returns:
        Result and cost by source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notes = folder / "spent.json"
    costs = json.loads(notes.read_text()) if notes.exists() else {}
    outs = {source: folder / Path(source).stem.replace(":", "-") for source in (given[0], "control:noise", *given[1:])}
    threads = max(1, (os.cpu_count() or 2) // 2)
    missing = [source for source in outs if Path(source).name not in costs]
    for pair in (missing[:2], missing[2:4], missing[4:]):
        began = time.monotonic()
        running = {
            source: start(program, "distill", *options, f"--{kind}", source, "--out", out, "--threads", threads)
            for source, out in ((source, outs[source]) for source in pair)
        }
        for source, process in running.items():
            costs[Path(source).name] = spent(process, began)
            notes.write_text(json.dumps(costs))
    rows = {}
    for source, out in outs.items():
        result = json.loads((out / "result.json").read_text())
        row = {**costs[Path(source).name], **{key: value for key, value in result.items() if key not in _LEFT_OUT}}
        rows[Path(source).name] = row
        print(
            f"{Path(source).name:16s} student {row['student_top1']:.2%}  teacher {row['teacher_top1']:.2%}  "
            f"same answer {row['agreement']:.2%}  {row['views']:,} views  {row['minutes']:.1f} minutes  "
            f"{row['peak_gib']:.2f} GiB"
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the file of results")
    parser.add_argument("--program", default="torch_aip", choices=["keras_aip", "torch_aip"])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", nargs="+")
    source.add_argument("--audio", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    border = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    own, options = sys.argv[1:border], sys.argv[border + 1 :]  # options of distill, paths absolute
    arguments = parser.parse_args(own)
    kind = "image" if arguments.image else "audio"
    rows = against_noise(arguments.program, kind, getattr(arguments, kind), arguments.out.absolute(), options)
    # names of files alone: where they lie is nobody's business
    named = [Path(word).name if "/" in word else word for word in options]
    results = {"machine": machine(), "program": arguments.program, "options": named, "rows": rows}
    write_results(ROOT / "benchmarks" / "results" / f"{arguments.name}.json", results)


if __name__ == "__main__":
    main()
