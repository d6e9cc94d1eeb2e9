"""Images per second of the whole training loop, against a plain Keras loop on the same networks, in one run.

    python benchmarks/train_step.py [--only speed]

WRN-40-4 → WRN-16-4 at 32 px, batch 64. "Plain" is what a user would write: stock Keras, float32, a custom `train_step`
with teacher, student and KL divergence, fed with ready-made views from memory and without mixing. Ours draws the view
numbers, renders, mixes, asks the teacher and trains the student. Modes take turns, so that a noisy machine is noisy for
all. The faster modes' accuracy on the digits stands beside: preset `fast-digits`, three seeds, each run as typed in a
shell; with stored answers 20,480 fixed views, shown four times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import ROOT, machine, write_results

BATCH = 64
STEPS = 4
PHOTO = "sklearn:china.jpg"
MODES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16 teacher": {"teacher_dtype": "bfloat16"},
    "mixed bfloat16": {"teacher_dtype": "bfloat16", "student_dtype": "mixed_bfloat16"},
    "stored answers": {"stored": True},
    "stored answers, mixed bfloat16 student": {"stored": True, "student_dtype": "mixed_bfloat16"},
    "bfloat16 teacher, constant batch": {"teacher_dtype": "bfloat16", "constant": True},
}


def plain_loop(teacher: Any, student: Any, images: Any) -> Callable[[], object]:
    """The loop everyone writes; one call runs STEPS steps."""
    import keras
    import tensorflow as tf

    class Plain(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.teacher, self.student = teacher, student
            self.teacher.trainable = False

        def call(self, x: Any) -> Any:
            return self.student(x)

        def train_step(self, data: Any) -> dict[str, Any]:
            answers = tf.nn.softmax(self.teacher(data, training=False) / 8)
            with tf.GradientTape() as tape:
                logits = self.student(data, training=True)
                loss: Any = keras.losses.kl_divergence(answers, tf.nn.softmax(logits / 8))
                loss = tf.reduce_mean(loss)
            weights = self.student.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
            return {"loss": loss}

    model: Any = Plain()
    model(images[:1])
    model.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices(images).repeat().batch(BATCH, drop_remainder=True).prefetch(2)
    model.make_train_function()
    iterator, function = iter(data), model.train_function
    return lambda: [float(function(iterator)["loss"]) for _ in range(STEPS)]


def our_loop(teacher: Any, student: Any, images: Any, folder: Path, mode: dict[str, Any]) -> Callable[[], object]:
    """What `Distiller.fit` runs, with the paper's views; one call runs STEPS steps."""
    import tensorflow as tf

    import keras_aip
    from keras_aip.feed import Stored, feed
    from keras_aip.stored import answered, replay

    distiller: Any = keras_aip.Distiller(student, teacher)
    distiller.compile(steps_per_execution=STEPS)
    distiller.optimizer.build(student.trainable_variables)
    views = keras_aip.single_image_dataset(PHOTO, image_size=32, batch_size=BATCH, views=4 * STEPS * BATCH)
    strategy, stored = tf.distribute.get_strategy(), None
    if mode.get("stored"):
        store = answered(folder, distiller.teacher, views, distiller.mixing, 0, 4 * STEPS)
        stored = Stored(replay(store, 0), store.read)
    if mode.get("constant"):
        data = feed(views, distiller.mixing, 0, 0, strategy).take(1).cache().repeat()
    else:
        data = feed(views, distiller.mixing, 0, 0, strategy, stored)
    iterator, function = iter(data), distiller.make_train_function()
    return lambda: float(function(iterator)["loss"])


def speed(rounds: int) -> dict[str, Any]:
    """Images per second of every mode, and each round's ratio to the plain loop of that round."""
    import numpy as np

    import keras_aip
    from keras_aip import models

    def network(name: str, dtype: str | None = None) -> Any:
        return models.build(name, classes=10, dtype=dtype)

    images = np.concatenate([batch.numpy() for batch in keras_aip.single_image_dataset(PHOTO, batch_size=256).take(2)])
    loops: dict[str, Callable[[], object]] = {"plain": plain_loop(network("wrn_40_4"), network("wrn_16_4"), images)}
    with tempfile.TemporaryDirectory() as folder:
        for name, mode in MODES.items():
            teacher = keras_aip.Teacher(network("wrn_40_4"), dtype=mode.get("teacher_dtype"))
            student = network("wrn_16_4", mode.get("student_dtype"))
            loops[name] = our_loop(teacher, student, images, Path(folder) / name, mode)
        for loop in loops.values():
            loop()  # traces and warms up
        rates: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(rounds):
            for name, loop in loops.items():
                time.sleep(0.5)  # the mode before still fills its buffers
                started = time.perf_counter()
                loop()
                rates[name].append(STEPS * BATCH / (time.perf_counter() - started))
    return {name: summary(values, rates["plain"]) for name, values in rates.items()} | {
        "input side": {
            "cost": statistics.median(
                1 - whole / constant
                for whole, constant in zip(rates["bfloat16 teacher"], rates["bfloat16 teacher, constant batch"])
            )
        }
    }


def summary(rates: list[float], plain: list[float]) -> dict[str, Any]:
    ratios = [rate / base for rate, base in zip(rates, plain)]
    return {
        "images_per_second": statistics.median(rates), "ratio": statistics.median(ratios), "lowest": min(ratios),
        "highest": max(ratios), "n": len(rates),
    }  # fmt: skip


def accuracy(seeds: int) -> dict[str, list[float]]:
    """Top-1 on the test digits of the faster modes, by preset `fast-digits`."""
    options = {
        "float32": [],
        "bfloat16 teacher": ["--teacher-dtype", "bfloat16"],
        "mixed bfloat16": ["--teacher-dtype", "bfloat16", "--student-dtype", "mixed_bfloat16"],
        "stored answers": ["--store-teacher", "answers-{seed}", "--epochs", "4", "--steps-per-epoch", "640"],
    }
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:

        def command(*words: object) -> None:
            line = [sys.executable, "-m", "keras_aip", *map(str, words)]
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL, cwd=folder)

        command("train-teacher", "--preset", "fast-digits", "--out", "teacher")
        for name, more in options.items():
            found[name] = []
            for seed in range(seeds):
                out = f"{name.replace(' ', '-')}-{seed}"
                words = [word.format(seed=seed) for word in more]
                command(
                    "distill", "--preset", "fast-digits", "--teacher", "teacher", "--seed", seed, "--out", out, *words
                )
                found[name].append(json.loads((Path(folder) / out / "result.json").read_text())["student_top1"])
            print(f"{name:40s} digits {'  '.join(f'{value:.1%}' for value in found[name])}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only", choices=("speed", "accuracy"), help="measure one of the two, keep the other's results"
    )
    arguments = parser.parse_args()
    path = ROOT / "benchmarks" / "results" / "train_step.json"
    results = json.loads(path.read_text()) if path.exists() and arguments.only else {}
    results |= {"machine": machine(), "batch": BATCH, "steps_per_round": STEPS}
    if arguments.only != "accuracy":
        results["speed"] = rows = speed(arguments.rounds)
        for name, row in rows.items():
            if "ratio" in row:
                spread = f"{row['lowest']:.2f}–{row['highest']:.2f}"
                print(f"{name:40s} {row['images_per_second']:6.1f} images/s   {row['ratio']:.2f}× ({spread})")
        print(f"{'input side':40s} {rows['input side']['cost']:.1%} of the time of a step", flush=True)
    if arguments.only != "speed":
        results["digits_top1"] = accuracy(arguments.seeds)
    write_results(path, results)


if __name__ == "__main__":
    main()
