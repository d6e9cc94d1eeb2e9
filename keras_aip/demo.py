"""The `demo` command: from one photograph to a network that reads digits, told as a story."""

from __future__ import annotations

import itertools
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from bridge.config import DemoConfig, DistillConfig, TrainTeacherConfig, updated
from bridge.errors import ConfigError
from bridge.presets import preset_options
from keras_aip.distill import distill
from keras_aip.train_teacher import train_teacher


def demo(config: DemoConfig) -> dict[str, object]:
    """Train a teacher on scikit-learn's digits, distil it from one photograph and say what happened.

    Returns:
        The result of the distillation.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    out = _free(Path(config.out))
    began = time.monotonic()
    preset = config.preset or "fast-digits"
    common = {"preset": preset, "seed": config.seed, "threads": config.threads, "smoke": config.smoke}
    teaching = updated(TrainTeacherConfig(), preset_options(preset, "train-teacher"), preset)
    teaching = updated(teaching, {**common, "out": str(out / "teacher"), "seed": 0}, "demo")
    distilling = updated(DistillConfig(), preset_options(preset, "distill"), preset)
    distilling = updated(
        # a machine with many devices needs no more than one for this
        distilling, {**common, "strategy": "one_device", "teacher": str(out / "teacher"),
                     "out": str(out / "student-run"), "image": config.image},
        "demo",
    )  # fmt: skip
    if config.smoke:
        teaching = replace(teaching, epochs=2)
        distilling = replace(distilling, epochs=2, steps_per_epoch=10, steps_per_execution=1)
    print("1. A teacher learns to read handwritten digits from real examples.")
    train_teacher(teaching)
    print(f"2. A student that has never seen a digit learns from views of one picture, {config.image}.")
    result = distill(distilling)
    report = out / "student-run" / "report.html"
    program = os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable
    print(
        f"""
Done in {time.monotonic() - began:.0f} seconds.
  The student looked at {result["views"]:,} distorted pieces of one picture ({config.image}),
  and the teacher told it, for each piece, how much it resembles a 0, a 1, … a 9.
  It was shown no digit and no label. Now both read {result["n"]} real handwritten digits, set apart before:
    teacher   {result["teacher_top1"]:7.1%} right
    student   {result["student_top1"]:7.1%} right   (guessing would give 10 %)
    they agree on {result["agreement"]:.1%}
  Look: {report}
  Keep: {out / "student-run" / "student"} is the trained network.
  Next: the same from a picture of your own:
    {program} -m keras_aip demo --image your-photo.jpg --out runs/my-demo"""
    )
    return result


def _free(out: Path) -> Path:
    """The folder asked for, or the next one with a number if it holds an earlier demo."""
    if not out.absolute().name:
        raise ConfigError(f"--out {out} cannot be used; name a folder.")
    out = out if out.name else out.absolute()
    names = itertools.chain([out.name], (f"{out.name}-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := out.with_name(name)).exists() or _is_empty(path))


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
