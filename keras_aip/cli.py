"""`python -m keras_aip`: train a teacher, distil it from one image, measure, and look at views."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge.commands import VIEWS
from bridge.config import DemoConfig, DistillConfig, EvaluateConfig, TrainTeacherConfig
from bridge.errors import ConfigError
from bridge.shell import Command
from bridge.shell import main as run_program

ABOUT = "Clone or compress an image classifier from a single photograph (TensorFlow / Keras)."

# The reference's own spellings.
_REFERENCE = {
    "--student-arch": "--student",
    "--teacher-arch": "--teacher",
    "--lr": "--learning-rate",
    "--bs": "--batch-size",
}


def _distill(config: DistillConfig) -> None:
    from keras_aip.distill import distill, summary_of

    result = distill(config)
    print("\n".join(summary_of(result)))
    print(f"Report: {Path(config.out) / 'report.html'}\nStudent: {Path(config.out) / 'student'}")


def _train_teacher(config: TrainTeacherConfig) -> None:
    from keras_aip.train_teacher import train_teacher

    train_teacher(config)


def _demo(config: DemoConfig) -> None:
    from keras_aip.demo import demo

    demo(config)


def _evaluate(config: EvaluateConfig) -> dict[str, Any]:
    from bridge.files import atomic_write, json_text
    from keras_aip.evaluate import evaluate
    from keras_aip.run import set_up
    from keras_aip.teachers import load_model, load_teacher

    if config.model is None:
        raise ConfigError("Which network? Give --model FOLDER, such as runs/distill/student.")
    set_up(config.threads, 0)
    model, _ = load_model(config.model)
    teacher = load_teacher(config.teacher) if config.teacher else None
    result = evaluate(model, config.dataset, teacher=teacher, batch_size=config.batch_size)
    if result["student_top1"] is None and teacher is None:
        raise ConfigError(f"{config.dataset} has no labels; give --teacher FOLDER to measure agreement with it.")
    text = json_text(result)
    if config.out:
        atomic_write(Path(config.out), text)
    print(json.dumps(json.loads(text), indent=2))
    return result


COMMANDS = {
    "demo": Command(DemoConfig, _demo, smoke={}, aliases={}),
    "distill": Command(
        DistillConfig,
        _distill,
        smoke={"epochs": 2, "steps_per_epoch": 5, "batch_size": 16, "steps_per_execution": 1},
        aliases=_REFERENCE,
    ),
    "train-teacher": Command(TrainTeacherConfig, _train_teacher, smoke={"epochs": 1, "batch_size": 64}, aliases={}),
    "evaluate": Command(EvaluateConfig, _evaluate, smoke={}, aliases={}),
    "views": VIEWS,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program `keras-aip`; returns its exit code."""
    return run_program("keras-aip", ABOUT, COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
