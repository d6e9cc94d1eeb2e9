"""`python -m keras_aip`: train a teacher, distil it from one image, measure, and look at views."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge.commands import REFERENCE, SMOKE, VIEWS, measure
from bridge.config import (
    DemoAudioConfig,
    DemoConfig,
    DistillConfig,
    EvaluateConfig,
    ImportReferenceConfig,
    SweepConfig,
    TrainTeacherConfig,
)
from bridge.errors import ConfigError
from bridge.insight.options import FidelityConfig, InspectConfig, ScoreConfig, VisualizeConfig
from bridge.shell import Command
from bridge.shell import main as run_program

ABOUT = "Clone or compress a classifier from a single photograph or a single sound (TensorFlow / Keras)."


def _distill(config: DistillConfig) -> None:
    from bridge.distilling import summary_of
    from keras_aip.distill import distill

    result = distill(config)
    if not result:  # one of several hosts; the first one says and writes what came out
        return
    print("\n".join(summary_of(result)))
    print(f"Report: {Path(config.out) / 'report.html'}\nStudent: {Path(config.out) / 'student'}")


def _sweep(config: SweepConfig) -> None:
    from keras_aip.sweep import sweep

    sweep(config)


def _train_teacher(config: TrainTeacherConfig) -> None:
    from keras_aip.train_teacher import train_teacher

    train_teacher(config)


def _import_reference(config: ImportReferenceConfig) -> None:
    from bridge.teachers.shelf import folder_for
    from keras_aip.reference import import_reference

    if config.checkpoint is None:
        raise ConfigError("Which checkpoint? Give --checkpoint, such as teacher_models/cifar10/cifar_wrn_40_4.tf.")
    card = import_reference(config.checkpoint, config.dataset, config.out)
    folder = config.out or folder_for(config.dataset, str(card.architecture))
    print(f"Teacher {card.architecture} for {config.dataset}, {card.parameters:,} parameters. Written to {folder}.")
    print(f"Measure it: python -m keras_aip evaluate --dataset {config.dataset} --model {folder}")


def _demo(config: DemoConfig) -> None:
    from keras_aip.demo import demo

    demo(config)


def _demo_audio(config: DemoAudioConfig) -> None:
    from keras_aip.demo import demo_audio

    demo_audio(config)


def _evaluate(config: EvaluateConfig) -> dict[str, Any]:
    from keras_aip.datasets import load, load_audio
    from keras_aip.evaluate import evaluate
    from keras_aip.run import set_up
    from keras_aip.teachers import load_teacher

    set_up(config.threads, 0)
    return measure(config, load, load_teacher, evaluate, load_audio=load_audio)


def _visualize(config: VisualizeConfig) -> None:
    from keras_aip.visualize import visualize

    print("\n".join(map(str, visualize(config))))


def _score(config: ScoreConfig) -> None:
    from bridge.insight.score_picture import table
    from keras_aip.insight import score_sources

    print(table(score_sources(config)))
    print(f"Picture: {Path(config.out) / 'score.png'}")


def _fidelity(config: FidelityConfig) -> None:
    from bridge.insight.fidelity_page import summary_of
    from keras_aip.fidelity import fidelity

    print("\n".join(summary_of(fidelity(config))))
    print(f"{Path(config.out) / 'fidelity.html'}\n{Path(config.out) / 'fidelity.json'}")


def _inspect(config: InspectConfig) -> None:
    from bridge.insight.preflight import shown
    from keras_aip.insight import inspect_teacher

    print(shown(inspect_teacher(config)))


COMMANDS = {
    "demo": Command(DemoConfig, _demo, smoke={}, aliases={}),
    "demo-audio": Command(DemoAudioConfig, _demo_audio, smoke={}, aliases={}),
    "distill": Command(DistillConfig, _distill, smoke=SMOKE["distill"], aliases=REFERENCE),
    "sweep": Command(SweepConfig, _sweep, smoke=SMOKE["sweep"], aliases={}, of_each=DistillConfig),
    "train-teacher": Command(TrainTeacherConfig, _train_teacher, smoke=SMOKE["train-teacher"], aliases={}),
    "import-reference": Command(ImportReferenceConfig, _import_reference, smoke={}, aliases={}),
    "evaluate": Command(EvaluateConfig, _evaluate, smoke={}, aliases={}, writes_file=True),
    "views": VIEWS,
    "visualize": Command(VisualizeConfig, _visualize, smoke={"steps": 8}, aliases={}),
    "score": Command(ScoreConfig, _score, smoke={"views": 128}, aliases={}),
    "fidelity": Command(FidelityConfig, _fidelity, smoke={}, aliases={}),
    "inspect": Command(InspectConfig, _inspect, smoke={"views": 64}, aliases={}),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The program `keras-aip`; returns its exit code."""
    import tensorflow as tf

    try:
        return run_program("keras-aip", ABOUT, COMMANDS, arguments)
    except tf.errors.OpError as error:  # a full disk under TensorFlow's own files, no memory left on a device, …
        if os.environ.get("AIP_DEBUG"):
            raise
        print(f"keras-aip: TensorFlow: {error.message.splitlines()[0]}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
