"""The `demo` commands: from one photograph to a network that reads digits, from babble to one that knows sounds."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bridge import synthetic_sounds
from bridge.config import DemoAudioConfig, DemoConfig, DistillConfig, TrainTeacherConfig
from bridge.config_check import updated
from bridge.datum.audio_files import encode_wav
from bridge.datum.audio_preview import spectrogram_pictures
from bridge.errors import ConfigError
from bridge.grids import image_grid, png_bytes
from bridge.presets import preset_options
from keras_aip.distill import distill
from keras_aip.train_teacher import train_teacher

# Chosen on other sounds than those the demo is measured on.
_TEACHING_SOUNDS = dict(
    architecture="dscnn_s", sample_rate=synthetic_sounds.RATE, seconds=synthetic_sounds.SECONDS, epochs=8,
    batch_size=32, spec_augment=0, hold_out=False,
)  # fmt: skip
_DISTILLING_SOUNDS = dict(
    student="dscnn_s", recipe="audio", views=None, mixing="none", temperature=4.0, batch_size=32, epochs=24,
    steps_per_epoch=100, steps_per_execution=20, optimizer="adam", learning_rate=1e-2, schedule="cosine", warmup=0.1,
)  # fmt: skip
_TRAIN_SOUNDS, _TEST_SOUNDS = 2048, 800


def demo(config: DemoConfig) -> dict[str, object]:
    """Train a teacher on scikit-learn's digits, distil it from one photograph and say what happened.

    Returns:
        The result of the distillation.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    out, began = _free(Path(config.out)), time.monotonic()
    preset = config.preset or "fast-digits"
    print("1. A teacher learns to read handwritten digits from real examples.")
    _teach(config, out, {**preset_options(preset, "train-teacher"), "preset": preset})
    print(f"2. A student that has never seen a digit learns from views of one picture, {config.image}.")
    result = _distil(config, out, {**preset_options(preset, "distill"), "preset": preset, "image": config.image})
    print(
        f"""
Done in {time.monotonic() - began:.0f} seconds.
  The student looked at {result["views"]:,} distorted pieces of one picture ({config.image}),
  and the teacher told it, for each piece, how much it resembles a 0, a 1, … a 9.
  It was shown no digit and no label. Now both read {result["n"]} real handwritten digits, set apart before:
{_outcome(result, out)}
  Next: the same from a picture of your own:
    {_program()} -m keras_aip demo --image your-photo.jpg --out runs/my-demo"""
    )
    return result


def demo_audio(config: DemoAudioConfig) -> dict[str, object]:
    """Make sounds, train a teacher on them, distil it from a clip that holds none, and say what happened.

    Returns:
        The result of the distillation.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    out, began = _free(Path(config.out)), time.monotonic()
    classes = len(synthetic_sounds.CLASSES)
    out.mkdir(parents=True, exist_ok=True)
    train, test = (20 * classes, 5 * classes) if config.smoke else (_TRAIN_SOUNDS, _TEST_SOUNDS)
    synthetic_sounds.write_sounds(out / "sounds.npz", train, test)
    _show(out / "classes", synthetic_sounds.labelled_sounds("train", 4 * classes)[0], classes)
    print(
        f"""1. A teacher learns to tell {classes} kinds of sounds apart: whistles that rise, fall or warble, two beeps,
   the vowels a, i and u, a hiss. All are made by formula, with ever another pitch, speed, voice and noise.
   Listen: {out / "classes.wav"}; look: {out / "classes.png"}, one kind in each column."""
    )
    _teach(config, out, {**_TEACHING_SOUNDS, "dataset": str(out / "sounds.npz")})
    if (clip := config.audio) is None:
        clip = str(out / "babble.wav")
        pieces = synthetic_sounds.babble().reshape(-1, synthetic_sounds.RATE)
        _show(out / "babble", pieces, 6)
        print(
            f"""2. A student that has never heard one of them learns from views of one clip, {len(pieces)} s of babble:
   made-up syllables of random pitch and timbre, each shorter than any sound of the {classes} kinds, none of them an
   a, i or u. Listen: {clip}; look: {out / "babble.png"}, a second in each picture."""
        )
    else:
        print(f"2. A student that has never heard one of them learns from views of one clip, {clip}.")
    result = _distil(config, out, {**_DISTILLING_SOUNDS, "dataset": str(out / "sounds.npz"), "audio": clip})
    print(
        f"""
Done in {time.monotonic() - began:.0f} seconds.
  The student listened to {result["views"]:,} distorted pieces of one clip ({clip}),
  and the teacher told it, for each piece, how much it resembles {_listed(synthetic_sounds.CLASSES)}.
  It heard none of those and was told no label. Now both hear {result["n"]} sounds made apart from the first ones:
{_outcome(result, out)}
  Next: the same from a sound of your own, of any kind (wav, flac, ogg, mp3), or from mere noise (control:noise):
    {_program()} -m keras_aip demo-audio --audio your-sound.wav --out runs/my-demo-audio"""
    )
    return result


def _teach(config: DemoConfig | DemoAudioConfig, out: Path, options: Mapping[str, Any]) -> None:
    """Train the teacher; its seed is always the same, as the demo's is the student's."""
    teaching = updated(
        TrainTeacherConfig(), {**options, **_common(config), "out": str(out / "teacher"), "seed": 0}, "demo"
    )
    train_teacher(replace(teaching, epochs=2) if config.smoke else teaching)


def _distil(config: DemoConfig | DemoAudioConfig, out: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    distilling = updated(
        # a machine with many devices needs no more than one for this
        DistillConfig(), {**options, **_common(config), "strategy": "one_device", "teacher": str(out / "teacher"),
                          "out": str(out / "student-run")},
        "demo",
    )  # fmt: skip
    if config.smoke:
        distilling = replace(distilling, epochs=2, steps_per_epoch=10, steps_per_execution=1)
    return distill(distilling)


def _common(config: DemoConfig | DemoAudioConfig) -> dict[str, Any]:
    return {"seed": config.seed, "threads": config.threads, "smoke": config.smoke}


def _outcome(result: Mapping[str, Any], out: Path) -> str:
    run = out / "student-run"
    return f"""    teacher   {result["teacher_top1"]:7.1%} right
    student   {result["student_top1"]:7.1%} right   (guessing would give {100 / result["classes"]:.3g} %)
    they agree on {result["agreement"]:.1%}
  Look: {run / "report.html"}
  Keep: {run / "student"} is the trained network."""


def _show(path: Path, sounds: np.ndarray, columns: int) -> None:
    """Spectrograms of these sounds as a picture, `columns` side by side, and as a sound.

    Args:
        path: of both, without what tells them apart.
        sounds: float32 [n, samples]; the first row of the picture is heard, of the clip all.
    """
    pictures = spectrogram_pictures(sounds, synthetic_sounds.RATE)
    path.with_suffix(".png").write_bytes(png_bytes(image_grid(pictures, columns, scale=3)))
    path.with_suffix(".wav").write_bytes(encode_wav(sounds.ravel(), synthetic_sounds.RATE))


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _program() -> str:
    return os.path.relpath(sys.executable) if Path(sys.executable).is_relative_to(Path.cwd()) else sys.executable


def _free(out: Path) -> Path:
    """The folder asked for, or the next one with a number if it holds an earlier demo."""
    if not out.absolute().name:
        raise ConfigError(f"--out {out} cannot be used; name a folder.")
    out = out if out.name else out.absolute()
    names = itertools.chain([out.name], (f"{out.name}-{number}" for number in itertools.count(2)))
    return next(path for name in names if not (path := out.with_name(name)).exists() or _is_empty(path))


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
