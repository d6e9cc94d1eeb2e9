"""What the student will hear, as pictures: spectrograms."""

from __future__ import annotations

import numpy as np

FLOOR = 80.0
"""How many dB below the loudest point of a picture its darkest lies."""
# Nine of the colours of matplotlib's viridis; between them straight lines.
_VIRIDIS = np.array(
    [
        (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
        (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
    ],
    np.float32,
)  # fmt: skip


def log_mel(
    waveforms: np.ndarray, rate: int, *, bands: int = 64, window: float = 0.025, hop: float = 0.01
) -> np.ndarray:
    """Log-mel spectrogram for the eye: power under a Hann window, HTK mel scale from 60 Hz to nearly half the rate.

    Args:
        waveforms: float [batch, samples].
        rate: samples per second.
        bands: mel bands.
        window, hop: of a frame and between two, in seconds; less where a waveform is shorter than four windows or 32
            hops. The defaults, with 64 bands, are those of COLA (Saeed et al. 2021).

    Returns:
        float32 [batch, frames, bands] in dB, the lowest band first.
    """
    samples = waveforms.shape[1]
    length, step = max(2, min(round(window * rate), samples // 4)), max(1, min(round(hop * rate), samples // 32))
    frames = np.lib.stride_tricks.sliding_window_view(waveforms, length, axis=1)[:, ::step]
    size = 2 << (length - 1).bit_length()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    low, high = (1127 * np.log1p(hertz / 700) for hertz in (60.0, 0.4875 * rate))
    mel = 1127 * np.log1p(np.arange(size // 2 + 1) * rate / size / 700)
    place = (mel - low) / (high - low) * (bands + 1)
    triangles = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(1, bands + 1)))
    decibels = np.empty((*frames.shape[:2], bands), np.float32)
    for k, some in enumerate(frames):  # one by one, to bound memory
        decibels[k] = 10 * np.log10(np.abs(np.fft.rfft(some * hann, size)) ** 2 @ triangles + 1e-10)
    return decibels


def spectrogram_pictures(
    waveforms: np.ndarray, rate: int, *, bands: int = 64, colour: bool = True, together: bool = False
) -> np.ndarray:
    """Spectrograms as pictures: time to the right, pitch upwards, loud is bright.

    Args:
        waveforms: float [batch, samples].
        rate: samples per second.
        bands: height in pixels.
        colour: in the colours of viridis, else grey.
        together: one scale for all instead of one for each, to tell loud views from quiet ones.

    Returns:
        uint8 [batch, bands, frames, 3], RGB.
    """
    return pictures_of(log_mel(waveforms, rate, bands=bands), colour=colour, together=together)


def pictures_of(decibels: np.ndarray, *, colour: bool = True, together: bool = False) -> np.ndarray:
    """Spectrograms in dB, [batch, frames, bands], as `spectrogram_pictures` draws them."""
    # Under -60 dB all is silence, or its picture would be one of rounding errors.
    top = np.maximum(decibels.max(axis=None if together else (1, 2), keepdims=True), -60.0)
    shade = np.clip((decibels - top) / FLOOR + 1, 0, 1).transpose(0, 2, 1)[:, ::-1]
    if not colour:
        return np.repeat(np.rint(shade * 255).astype(np.uint8)[..., None], 3, axis=-1)
    knots = np.linspace(0, 1, len(_VIRIDIS))
    return np.stack([np.rint(np.interp(shade, knots, channel)).astype(np.uint8) for channel in _VIRIDIS.T], axis=-1)
