"""Sounds made by formula: eight classes to tell apart, and babble that holds none of them. Nothing is recorded.

All are made alike: a voice or a hiss goes through two resonances and an envelope. Which classes there are, how much
they vary and what the babble is: ours. All numbers come from `bridge.datum.counter`: a sound is known from its number.
"""

from __future__ import annotations

import os

import numpy as np

from bridge.datum.counter import uniforms
from bridge.sounds import FULL_SCALE

RATE = 8_000
"""Samples per second."""
SECONDS = 0.5
"""Of a sound with a class."""
CLASSES = ("rising", "falling", "two beeps", "warble", "a", "i", "u", "hiss")
"""Whistles whose pitch rises, falls or wavers; two beeps; three vowels; a hiss."""

_FORMANTS = {"a": (730.0, 1090.0), "i": (270.0, 2290.0), "u": (300.0, 870.0)}
"""In Hz, of men (Peterson & Barney 1952)."""
# Where in the stream each begins: nothing is in two of them. Training draws from the stream's beginning.
_FIRST = {"train": 2**60, "test": 2**61, "babble": 2**62}
_DRAWS = 16
_FADE = 0.02
_AT_ONCE = 256
_LOUD = 0.1


def labelled_sounds(part: str, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sounds with their classes, which take turns.

    Pitch, speed, place, voice, loudness and the noise behind them vary.

    Args:
        part: "train" or "test".
        count: how many; more of them begin with the same ones.
        seed: 0 ≤ seed < 2**64.

    Returns:
        float32 [count, samples] in [-1, 1], `SECONDS` at `RATE`; int64 [count], places in `CLASSES`.
    """
    rows = np.arange(count)
    sounds = [_labelled(part, rows[k : k + _AT_ONCE], seed) for k in range(0, count, _AT_ONCE)]
    return np.concatenate(sounds), rows % len(CLASSES)


def write_sounds(path: str | os.PathLike[str], train: int, test: int, seed: int = 0) -> None:
    """Write so many of both parts as an ``.npz``, a data set of sounds for every command."""
    (x_train, y_train), (x_test, y_test) = (labelled_sounds(*part, seed) for part in (("train", train), ("test", test)))
    x_train, x_test = (np.rint((FULL_SCALE - 1) * sounds).astype(np.int16) for sounds in (x_train, x_test))
    np.savez(
        path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=np.array(CLASSES),
        rate=np.array(RATE),
    )  # fmt: skip


def babble(seconds: float = 30.0, seed: int = 0) -> np.ndarray:
    """Made-up syllables without end, three to eight in every half second.

    Each lasts 0.06 to 0.18 s, less than any sound of a class (0.24 to 0.4 s), and has pitch, overtones, breath and
    resonances of its own, drawn at random. Resonances keep away from those of the three vowels; pitch slides by less
    than in a sound that rises or falls.

    Returns:
        float32 [samples] in [-1, 1] at `RATE`.
    """
    out = np.zeros(round(seconds * RATE))
    syllables, samples = int(seconds / 0.08) + 1, round(0.2 * RATE)
    u = uniforms(seed, "teacher_training", _FIRST["babble"] + np.arange(syllables), _DRAWS + samples)
    time, noise = np.arange(samples) / RATE, _white(u[_DRAWS:])
    length = _between(u[0], 0.06, 0.18)
    pitch = _between(u[1], 90, 1100, log=True)[:, None] * np.exp(
        _between(u[2], -0.3, 0.3)[:, None] * time / length[:, None]
    )
    # Of four pairs of resonances the first that is far from all vowels, else one that always is.
    pairs = np.sort(_between(u[3:11].reshape(4, 2, -1), 250, 3500, log=True), axis=1)
    pairs = np.concatenate([pairs, np.broadcast_to([[1000.0], [3000.0]], pairs[:1].shape)])
    far = np.min([np.abs(np.log(pairs / np.array(pair)[:, None])).max(axis=1) for pair in _FORMANTS.values()], axis=0)
    resonances = np.take_along_axis(pairs, np.argmax(far > 0.3, axis=0)[None, None], axis=0)[0].T
    sound = _voiced(
        pitch, np.rint(_between(u[11], 1, 64, log=True)), noise, np.maximum(0, 2 * u[12] - 1), resonances,
        _between(u[13], 0.1, 0.8, log=True),
    )  # fmt: skip
    sound = _level(sound * _envelope(time, 0 * length, length)) * _decibels(_between(u[14], -9, 3))[:, None]
    begin = np.rint(np.cumsum(length + _between(u[15], -0.03, 0.03)) * RATE).astype(np.int64)
    for place, syllable in zip(begin - begin[0], sound):
        part = out[place : place + samples]
        part += syllable[: len(part)]
    return np.clip(out, -1, 1).astype(np.float32)


def _labelled(part: str, rows: np.ndarray, seed: int) -> np.ndarray:
    """float32 [rows, samples] of `labelled_sounds`."""
    samples = round(RATE * SECONDS)
    u = uniforms(seed, "teacher_training", _FIRST[part] + rows, _DRAWS + samples)
    noise, time = _white(u[_DRAWS:]), np.arange(samples) / RATE
    name = np.array(CLASSES)[rows % len(CLASSES)]
    is_vowel, is_hiss = np.isin(name, list(_FORMANTS)), name == "hiss"
    length = _between(u[0], 0.24, 0.4)
    begin = u[1] * (SECONDS - length)
    since = time - begin[:, None]
    octaves = _between(u[2], 0.6, 1.3)  # by which pitch rises or falls
    slide = np.select([name == "rising", name == "falling", is_vowel], [octaves, -octaves, 0.6 * u[3] - 0.3])
    depth = np.where(name == "warble", _between(u[4], 0.1, 0.25), 0)
    waver = depth[:, None] * np.sin(2 * np.pi * (_between(u[5], 7, 12)[:, None] * since + u[6][:, None]))
    middle = np.where(is_vowel, _between(u[7], 90, 220, log=True), _between(u[7], 350, 1000, log=True))
    pitch = middle[:, None] * 2 ** (slide[:, None] * (np.clip(since / length[:, None], 0, 1) - 0.5) + waver)
    resonances = np.full((len(rows), 2), np.inf)  # a whistle has none
    for vowel, pair in _FORMANTS.items():
        resonances[name == vowel] = pair
    resonances *= _between(u[8], 0.9, 1.2)[:, None]  # by the size of the speaker
    resonances[is_hiss, 0] = _between(u[8], 700, 3200, log=True)[is_hiss]
    sound = _voiced(
        pitch, np.where(is_vowel, 64, np.ceil(3 * u[9])), noise, np.where(is_hiss, 1.0, 0.1 * is_vowel * u[10]),
        resonances, np.where(is_hiss, _between(u[10], 0.3, 1.0), 0.15),
    )  # fmt: skip
    gap = _between(u[11], 0.25, 0.45) * length
    rest = (name == "two beeps")[:, None] * _envelope(time, begin + (length - gap) / 2, begin + (length + gap) / 2)
    sound = _level(sound * _envelope(time, begin, begin + length) * (1 - rest))
    sound += _LOUD * _decibels(-_between(u[12], 10, 40))[:, None] * np.roll(noise, samples // 2, axis=1)
    return np.clip(sound * _decibels(_between(u[13], -12, 6))[:, None], -1, 1).astype(np.float32)


def _voiced(
    pitch: np.ndarray,
    harmonics: np.ndarray,
    noise: np.ndarray,
    breath: np.ndarray,
    resonances: np.ndarray,
    width: np.ndarray,
) -> np.ndarray:
    """A hum and a hiss through resonances: float [n, samples].

    Args:
        pitch: [n, samples] in Hz.
        harmonics: [n], 1 or more; fewer where they would pass half the rate.
        noise: [n, samples], the hiss.
        breath: [n] in [0, 1], its share.
        resonances: [n, 2] in Hz; infinite ones let pass everything.
        width: [n], of resonances against their frequency.
    """
    count = np.maximum(1, np.minimum(harmonics, np.floor(0.48 * RATE / pitch.max(axis=1))))[:, None]
    half = np.pi * np.cumsum(pitch, axis=1) / RATE
    # the sum of that many cosines, in one
    hum = (np.sin((2 * count + 1) * half) / _not_zero(np.sin(half)) - 1) / np.sqrt(2 * count)
    spectrum = np.fft.rfft((1 - breath[:, None]) * hum + breath[:, None] * noise)
    hertz = np.linspace(0, RATE / 2, spectrum.shape[1])
    passed = np.zeros(spectrum.shape)
    for resonance in resonances.T[:, :, None]:
        with np.errstate(invalid="ignore"):
            off = (hertz - resonance) / (width[:, None] * resonance)
        passed += np.where(np.isfinite(resonance), 1 / (1 + 4 * off**2), 0)
    passed[np.isinf(resonances).all(axis=1)] = 1
    return np.fft.irfft(spectrum * passed, pitch.shape[1])


def _envelope(time: np.ndarray, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """1 from `begin` to `end` [n], which fades inside, else 0: [n, samples]."""
    inside = np.minimum(time - begin[:, None], end[:, None] - time)
    return np.sin(np.pi / 2 * np.clip(inside / _FADE, 0, 1)) ** 2


def _level(sound: np.ndarray) -> np.ndarray:
    """Every row equally loud, over the time in which there is something."""
    there = np.maximum((np.abs(sound) > 0).mean(axis=1, keepdims=True), 1e-3)
    return _LOUD * sound / np.sqrt((sound**2).mean(axis=1, keepdims=True) / there)


def _white(u: np.ndarray) -> np.ndarray:
    """[samples, n] in (0, 1) → noise [n, samples] of power 1."""
    return np.sqrt(3) * (2 * u.T - 1)


def _between(u: np.ndarray, low: float, high: float, log: bool = False) -> np.ndarray:
    return low * (high / low) ** u if log else low + (high - low) * u


def _decibels(level: np.ndarray) -> np.ndarray:
    """As amplitude."""
    return 10 ** (level / 20)


def _not_zero(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < 1e-9, 1e-9, values)
