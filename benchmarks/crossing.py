"""What crossing costs: a PyTorch ResNet-56 in TensorFlow, converted through ONNX, against the same written in Keras.

    python benchmarks/crossing.py [--architecture resnet56] [--batch-size 64] [--repeats 7]

Seconds to load the teacher the first time (converting, each time into an empty cache) and again (from the cache), both
in a process of its own without the seconds in which TensorFlow is imported; and images per second of process CPU time
of every way to run it, taking turns. Random weights: they cost what trained ones do.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import ROOT, machine, rates, summary, write_results

LOAD = """
import sys, time, keras_aip
began = time.monotonic()
keras_aip.load_teacher(sys.argv[1], form="onnx")
print(time.monotonic() - began)
"""


def make_folder(architecture: str, folder: Path) -> None:
    """A PyTorch network of random weights as a teacher folder, with both forms."""
    import torch

    from bridge.teachers.export import export
    from bridge.teachers.options import ExportConfig
    from torch_aip import models

    torch.manual_seed(0)
    weights = folder.parent / "weights.pt"
    torch.save(models.build(architecture, classes=10).state_dict(), weights)
    half, quarter = (0.5,) * 3, (0.25,) * 3
    export(
        ExportConfig(
            model=architecture, weights=str(weights), dataset="cifar10", mean=half, std=quarter, out=str(folder)
        )
    )  # fmt: skip


def load_seconds(folder: Path, cache: Path) -> float:
    """Seconds until the teacher is there, in a process of its own."""
    environment = {**os.environ, "AIP_CACHE": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3"}
    line = [sys.executable, "-c", LOAD, str(folder)]
    done = subprocess.run(line, check=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def ways(folder: Path, batch: int) -> dict[str, Callable[[], int]]:
    """Name → a function that answers one batch and returns how many images that were."""
    import numpy as np
    import tensorflow as tf
    import torch

    import keras_aip
    import torch_aip
    from bridge.teachers.runtime import Runtime

    images = np.random.default_rng(0).random((batch, 32, 32, 3), dtype=np.float32)
    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    given = tf.constant(images)
    teachers = {"Keras by hand": "safetensors", "converted": "onnx"}
    found: dict[str, Callable[[], int]] = {}

    def tensorflow(name: str, form: str, xla: bool) -> None:
        teacher = keras_aip.load_teacher(folder, form=form)
        answer = tf.function(teacher.__call__, jit_compile=xla)
        found[name] = lambda: len(answer(given).numpy())

    for name, form in teachers.items():
        tensorflow(name, form, False)
        tensorflow(f"{name}, XLA", form, True)
    runtime = Runtime(folder / "model.onnx")
    found["onnxruntime"] = lambda: len(runtime(first))
    module, tensor = torch_aip.load_teacher(folder, form="safetensors"), torch.from_numpy(first)

    def in_torch() -> int:
        with torch.inference_mode():
            return len(module(tensor))

    found["PyTorch"] = in_torch
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet56")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU seconds per way and turn")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "crossing.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "teacher"
        make_folder(arguments.architecture, folder)
        first = [load_seconds(folder, Path(temporary) / f"cache{number}") for number in range(3)]
        again = [load_seconds(folder, Path(temporary) / "cache0") for _ in range(arguments.repeats)]
        os.environ["AIP_CACHE"] = str(Path(temporary) / "cache0")
        found = rates(ways(folder, arguments.batch_size), arguments.repeats, arguments.seconds)
    by_hand = found["Keras by hand"]
    speed = {
        name: {
            "images per CPU second": summary(values),
            "times Keras by hand": summary([a / b for a, b in zip(values, by_hand)]),
        }
        for name, values in found.items()
    }
    print(f"first load {summary(first)['median']:.1f} s, again {summary(again)['median']:.2f} s")
    for name, figures in speed.items():
        rate, times = figures["images per CPU second"], figures["times Keras by hand"]
        print(
            f"{name:20s} {rate['median']:8.0f} images/s  {times['median']:.2f}× ({times['min']:.2f}–{times['max']:.2f})"
        )
    write_results(
        arguments.out,
        {
            "machine": machine(), "architecture": arguments.architecture, "batch": arguments.batch_size,
            "n": arguments.repeats, "first_load_seconds": summary(first), "again_seconds": summary(again),
            "speed": speed, "date": time.strftime("%Y-%m-%d"),
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
