"""The fixed arrays that front ends multiply frames of a waveform with; NumPy alone, float64, made once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Bases(NamedTuple):
    """What turns frames into features, one matrix product after the other.

    A frame times ``fourier`` gives the real, then the imaginary part of the bins of its spectrum; the sum of their
    squares (`root`: its square root) times ``mel`` the bands; these, kept within ``smallest`` and ``largest``, their
    natural logarithm; and that times ``cosines``, where there are any, the features.

    Attributes:
        fourier: float32 ``[window, 2 bins]``, with the window's weights in it.
        mel: float32 ``[bins, bands]``.
        cosines: float32 ``[bands, coefficients]``, or None: the bands are the features.
        root: Bands sum magnitudes instead of powers.
        smallest: Lowest value of a band.
        largest: Highest value of a band; None: any.
        first: First bin of the spectrum that is heard.
    """

    fourier: np.ndarray
    mel: np.ndarray
    cosines: np.ndarray | None
    root: bool
    smallest: float
    largest: float | None
    first: int


def fourier(window: int, fft: int, first: int, last: int) -> np.ndarray:
    """Cosines, then sines, of some bins, weighted by a periodic Hann window; zeros pad a frame on the right to `fft`.

    Args:
        window: Samples per frame.
        fft: Length of the transform in samples, at least `window`.
        first: First bin.
        last: Last bin.

    Returns:
        float64 ``[window, 2 (last - first + 1)]``.
    """
    time = np.arange(window)
    angle = 2 * np.pi * np.outer(time, np.arange(first, last + 1)) / fft
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1) * hann(window)[:, None]


def hann(window: int) -> np.ndarray:
    """The periodic Hann window: its next value, not its last, is the first one again."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)


def triangles(places: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """How much of each bin each band hears: a triangle of height 1 (no area normalisation) over three corners.

    Args:
        places: Where the bins lie, ``[bins]``, in hertz or mel; the triangles are straight in that unit.
        corners: Where the bands begin, peak and end, ``[bands + 2]``, in the same unit, ascending.

    Returns:
        float64 ``[bins, bands]``.
    """
    steps = np.diff(corners)
    rising = (places[:, None] - corners[:-2]) / steps[:-1]
    falling = (corners[2:] - places[:, None]) / steps[1:]
    return np.clip(np.minimum(rising, falling), 0, None)


def cosines(bands: int, coefficients: int) -> np.ndarray:
    """The orthogonal DCT-II without the extra factor for coefficient 0, ``[bands, coefficients]``."""
    angle = np.pi / bands * np.outer(np.arange(bands) + 0.5, np.arange(coefficients))
    return np.sqrt(2 / bands) * np.cos(angle)


def mel_of(hertz: np.ndarray | float) -> np.ndarray:
    """HTK's mel scale."""
    return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)


def hertz_of(mel: np.ndarray | float) -> np.ndarray:
    """The frequencies HTK's mel scale gives these numbers."""
    return 700.0 * np.expm1(np.asarray(mel, np.float64) / 1127.0)
