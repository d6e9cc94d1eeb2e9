"""What all views of a clip share: the source to read from, its pitch, echoes of rooms and noise."""

from __future__ import annotations

import math

import numpy as np

from bridge.datum.counter import STREAMS, philox4x32

FINER = 2
"""How many values the source to read from has for each of its samples. Read between them by straight lines, 6 kHz at 16
kHz loses 1 dB instead of 4."""
_ROOM_VALUES = 2**20
NOISE_VALUES = 2**17
"""Noise begins at any of so many values, and lasts as long as a view needs from there."""
PITCH_STEP = 256
"""Samples from one measured pitch to the next."""
_PITCHES = (50.0, 500.0)  # Hz, of speech
_ALIKE = 0.6  # correlation of a period with the one before, below which a sound has no pitch
_LOWEST = 20.0  # Hz, below which there is no noise
PIVOT = 1000.0
"""Hz at which noise of every colour is equally strong before it is scaled to what is asked for."""


def finer(samples: np.ndarray) -> np.ndarray:
    """The source with `FINER` values per sample: float32 [n] → float32 [FINER · n]."""
    from scipy.signal import resample_poly

    return resample_poly(samples, FINER, 1, window=("kaiser", 8.0)).astype(np.float32)


def periods(samples: np.ndarray, rate: int) -> np.ndarray:
    """How long a period of the sound is, measured every `PITCH_STEP` samples.

    The best match of 44 ms with what follows 2 to 20 ms later, so also two or three periods of a high voice: whoever
    jumps by it lands in step.

    Args:
        samples: float32 [n].
        rate: samples per second.

    Returns:
        float32 [⌈n / PITCH_STEP⌉] in samples; 0 where there is no pitch.
    """
    shortest, longest = int(rate / _PITCHES[1]), int(rate / _PITCHES[0])
    window = round(0.044 * rate)
    size = 1 << (window + longest - 1).bit_length()
    count = -(-len(samples) // PITCH_STEP)
    padded = np.pad(samples, (0, size + PITCH_STEP))
    lags = np.arange(shortest - 1, longest + 1)
    found = np.zeros(count, np.float32)
    rows = max(1, 2**21 // size)
    for first in range(0, count, rows):
        starts = np.arange(first, min(first + rows, count)) * PITCH_STEP
        frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts].astype(np.float32)
        frames[:, window + longest :] = 0
        short = frames.copy()
        short[:, window:] = 0
        match = np.fft.irfft(np.conj(np.fft.rfft(short)) * np.fft.rfft(frames), size)[:, lags]
        energy = np.cumsum(np.pad(frames.astype(np.float64) ** 2, ((0, 0), (1, 0))), axis=1)
        moved = energy[:, lags + window] - energy[:, lags]
        match = match / np.sqrt(np.maximum(moved * energy[:, [window]], 1e-12))
        peak = match[:, 1:-1].argmax(axis=1) + 1
        before, here, after = (np.take_along_axis(match, (peak + k)[:, None], 1)[:, 0] for k in (-1, 0, 1))
        bend = before - 2 * here + after
        refined = lags[peak] + np.where(bend < -1e-9, 0.5 * (before - after) / np.minimum(bend, -1e-9), 0.0)
        # At the edge of what is searched there is a slope, not a peak.
        found[first : first + rows] = np.where((here > _ALIKE) & (here >= before) & (here >= after), refined, 0.0)
    return found


def rooms(transform: int) -> int:
    """How many rooms there are: 64 for views of a second at 16 kHz, fewer for longer ones, which bounds memory."""
    return int(np.clip(_ROOM_VALUES // transform, 4, 64))


def room_spectra(rate: int, transform: int, decay: tuple[float, float]) -> np.ndarray:
    """Echoes of all rooms: noise that decays exponentially, of energy 1.

    Args:
        rate: samples per second.
        transform: samples of the Fourier transform.
        decay: shortest and longest time in which they fall by 60 dB, in seconds; in between log-uniform.

    Returns:
        complex64 [rooms, transform / 2 + 1], from the shortest to the longest.
    """
    low, high = np.log(decay)
    count = rooms(transform)
    seconds = np.exp(low + (high - low) * (np.arange(count) + 0.5) / count)
    fall = np.exp(-math.log(1000) * np.arange(transform) / rate / seconds[:, None])
    tails = _normals(1, count * transform).reshape(count, transform) * fall
    tails[:, 0] = 0  # the sound itself
    tails /= np.sqrt((tails**2).sum(axis=1, keepdims=True))
    return np.fft.rfft(tails).astype(np.complex64)


def noise_values(bins: int) -> np.ndarray:
    """White noise in frequencies: complex64 [NOISE_VALUES + bins], real and imaginary part normal."""
    count = NOISE_VALUES + bins
    return _normals(2, 2 * count).astype(np.float32).view(np.complex64)


def frequencies(rate: int, transform: int) -> np.ndarray:
    """Of every bin, in Hz: float32 [transform / 2 + 1]. The first is half the second, so that all can be divided by."""
    hertz = np.arange(transform // 2 + 1) * (rate / transform)
    hertz[0] = hertz[1] / 2
    return hertz.astype(np.float32)


def heard(hertz: np.ndarray) -> np.ndarray:
    """1 where there may be noise, else 0: float32 of the same shape."""
    return (hertz >= _LOWEST).astype(np.float32)


def edges(hop: int) -> np.ndarray:
    """How much of the later of two windows sounds: float32 [hop], from 0 towards 1 along half a cosine."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(hop) + 0.5) / hop)).astype(np.float32)


def _normals(key: int, count: int) -> np.ndarray:
    """Normal numbers, always the same ones: float64 [count], by Box and Muller."""
    pairs = -(-count // 2)
    counter = np.zeros((4, -(-pairs // 2)), np.uint64)
    counter[0] = np.arange(counter.shape[1])
    counter[3] = STREAMS["augmentation"]
    words = (philox4x32(counter, (key, 0)) + 0.5) * 2.0**-32
    radius, angle = np.sqrt(-2 * np.log(words[:2].ravel())), 2 * np.pi * words[2:].ravel()
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
