"""Tiny sounds that tell their number, written by the tests themselves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

RATE = 8_000
LENGTH = 800  # a tenth of a second
SECONDS = LENGTH / RATE


def level(number: int) -> int:
    """The value of all samples of a sound with this number."""
    return 100 + 100 * number


def steady(number: int, samples: int = LENGTH) -> np.ndarray:
    """A sound whose every sample says its number: int16 [samples]."""
    return np.full(samples, level(number), np.int16)


def counting(pieces: int, first: int = 0) -> np.ndarray:
    """A long sound: one steady piece after the other, each of `LENGTH`, numbered on: int16 [pieces · LENGTH]."""
    return np.concatenate([steady(first + k) for k in range(pieces)])


def numbers_of(waveforms: np.ndarray) -> list[int]:
    """The numbers of sounds out of their first samples."""
    return ((np.asarray(waveforms)[:, 0].astype(int) - 100) // 100).tolist()


def write(path: Path, sound: np.ndarray, rate: int = RATE, **how) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, **how)
    return path


def classes(root: Path, *names: str, each: int = 1, suffix: str = "wav") -> Path:
    """A folder for every class with so many numbered sounds."""
    for label, name in enumerate(names):
        for k in range(each):
            write(root / name / f"{k:02d}.{suffix}", steady(label * each + k))
    return root


def speech_commands(root: Path, words: Iterable[str], lists: bool = True, each: int = 20, noise: float = 2.25) -> Path:
    """As the archive unpacks, with noises that last so many sounds: two to train and the one that is held out."""
    listed: dict[str, list[str]] = {"testing": [], "validation": []}
    for word in words:
        for k in range(each):
            name = f"{k:08x}_nohash_0.wav"
            write(root / word / name, steady(k))
            if k % 10 in (8, 9):
                listed["validation" if k % 10 == 8 else "testing"].append(f"{word}/{name}")
    for k, name in enumerate(("doing_the_dishes", "pink_noise", "running_tap")):
        write(root / "_background_noise_" / f"{name}.wav", counting(4, 40 + 10 * k)[: int(noise * LENGTH)])
    (root / "_background_noise_" / "README.md").write_text("noises")
    if lists:
        for part, names in listed.items():
            (root / f"{part}_list.txt").write_text("\n".join(names) + "\n")
    return root
