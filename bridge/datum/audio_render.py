"""The reference renderer: numbers of audio views to waveforms with NumPy on the host."""

from __future__ import annotations

import numpy as np

from bridge.datum import audio_tables as tables
from bridge.datum.audio import FADE, AudioNumbers, AudioSet

QUIET = 1e-6
"""Amplitudes below this count as silence, which nothing makes louder."""


def render_audio(views: AudioSet, n: np.ndarray) -> np.ndarray:
    """Samples `n` (integers [batch]) of an audio set, as `render_audio_numbers` plays them."""
    return render_audio_numbers(views.numbers(n), views)


def render_audio_numbers(numbers: AudioNumbers, views: AudioSet) -> np.ndarray:
    """Play a batch of views.

    Returns:
        float32 [batch, samples] in [-1, 1].
    """
    recipe = views.recipe
    second, echo, noise, gain = (column[:, None] for column in numbers.level.T)
    sound = _stretched(numbers, views)
    if recipe.base.mixed:
        other = _read(
            views.sound, numbers.start[:, 1:], np.arange(recipe.samples, dtype=np.float32) * numbers.step[:, 1:]
        )
        sound = sound + second * np.sqrt(_power(sound) / np.maximum(_power(other), QUIET**2)) * other
    if recipe.augmentation is None:
        return np.clip(sound, -1, 1)
    time, fade = np.arange(recipe.samples, dtype=np.float32), np.float32(FADE * recipe.rate)
    begin, end = (column[:, None] for column in numbers.window.T)
    sound = sound * np.clip((time - begin) / fade, 0, 1) * np.clip((end - time) / fade, 0, 1)
    if recipe.filters:
        hertz = tables.frequencies(recipe.rate, recipe.transform)
        low, high = (column[:, None] for column in numbers.band.T)
        passed = 1 / np.sqrt((1 + (low / hertz) ** 8) * (1 + (hertz / high) ** 8))
        echoed = (1 + echo * views.rooms[numbers.room]) / np.sqrt(1 + echo**2)
        spectrum = np.fft.rfft(sound, recipe.transform) * passed * echoed
        hiss = np.stack([views.noise[first : first + len(hertz)] for first in numbers.noise])
        hiss = hiss * tables.heard(hertz) * (hertz / tables.PIVOT) ** numbers.colour[:, None]
        spectrum += noise * np.sqrt(_energy(spectrum) / np.maximum(_energy(hiss), QUIET)) * hiss
        sound = np.fft.irfft(spectrum, recipe.transform)[:, : recipe.samples]
    return np.clip(gain * sound, -1, 1).astype(np.float32)


def _stretched(numbers: AudioNumbers, views: AudioSet) -> np.ndarray:
    """The first clip, window by window: float32 [batch, samples]."""
    recipe, start = views.recipe, numbers.start[:, :1, None]
    since = np.arange(recipe.hop, dtype=np.float32) * numbers.step[:, :1, None]
    before = since - np.float32(recipe.hop) * numbers.step[:, :1, None]
    falling = _read(views.sound, start, numbers.reads[:, :-1, None] + since)
    if recipe.base.stretched:
        rising = _read(views.sound, start, numbers.reads[:, 1:, None] + before)
        falling = falling + tables.edges(recipe.hop) * (rising - falling)
    return falling.reshape(len(falling), -1)[:, : recipe.samples]


def _read(sound: np.ndarray, start: np.ndarray, position: np.ndarray) -> np.ndarray:
    """The sound at these positions, by straight lines between its values; its ends go on."""
    whole = np.floor(position)
    index = np.clip(start + whole.astype(np.int32), 0, len(sound) - 2)
    here, after = sound[index], sound[index + 1]
    return here + (position - whole) * (after - here)


def _power(sound: np.ndarray) -> np.ndarray:
    """Mean square of every view: [batch, 1]."""
    return np.mean(sound**2, axis=1, keepdims=True)


def _energy(spectrum: np.ndarray) -> np.ndarray:
    """[batch, 1]"""
    return np.sum(spectrum.real**2 + spectrum.imag**2, axis=1, keepdims=True)
