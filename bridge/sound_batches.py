"""Labelled sounds in batches: the shifted and noisy ones that a teacher is trained on."""

from __future__ import annotations

import numpy as np

from bridge.audio_facts import SILENCE
from bridge.batches import usable
from bridge.datum.audio_tables import noise_values
from bridge.datum.counter import shuffled_index, uniforms
from bridge.errors import DatasetError
from bridge.sounds import FULL_SCALE, LabelledSounds, Sounds, floats
from bridge.video_layouts import key

_DRAWS = 4  # shift, whether there is noise, how loud, where in it
_OWN_LOUDNESS = 0.1  # root mean square of noise of our own, about that of Speech Commands'
_MOST_NOISE = 2048  # sounds of silence kept as noise


class RandomSounds:
    """Sounds as TensorFlow's own example trains on Speech Commands, each known from its number.

    Every sound is shifted with silence behind it; to most of them noise is added. Silence is not shifted: it becomes
    quieter by any factor.

    Args:
        data: with labels.
        shift: at most, in seconds, either way (0.1, as there), and of short sounds by half of them.
        noisy: to which share noise is added (0.8, as there).
        loudness: by which the noise is multiplied at most (0.1, as there).
        noise: float in [-1, 1] or int16 [values] at the rate of the data; None: the sounds of class silence one after
            the other, or without such a class pink noise (ours).
        seed: of order and augmentation.

    Raises:
        DatasetError: there are no labels, or the noise is none.
    """

    def __init__(
        self,
        data: LabelledSounds,
        *,
        shift: float = 0.1,
        noisy: float = 0.8,
        loudness: float = 0.1,
        noise: np.ndarray | None = None,
        seed: int = 0,
    ) -> None:
        if data.labels is None:
            raise DatasetError(f"{data.name} has no labels: expected one folder per class to train on.")
        if not (0 <= noisy <= 1 and 0 <= loudness <= 1 and shift >= 0):
            raise DatasetError(
                f"noisy is {noisy}, loudness {loudness} and shift {shift}: expected shares from 0 to 1, and seconds."
            )
        self.waveforms, self.labels, self.seed = data.waveforms, data.labels.astype(np.int64), seed
        self._noisy, self._loudness = noisy, loudness
        self._shift = min(round(shift * data.rate), data.waveforms.shape[1] // 2)
        silence = [label for label, name in enumerate(data.class_names or ()) if key(name) == key(SILENCE)]
        self._silent = np.isin(self.labels, silence)
        self.noise = self._noise_of(data.rate) if noise is None else _checked(noise)
        samples = self.waveforms.shape[1]
        if len(self.noise) < samples:
            self.noise = np.tile(self.noise, -(-samples // len(self.noise)))

    def draw(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some samples and their labels; sounds in files are decoded by several threads.

        In place of a sound that cannot be used comes the next one that can; a warning names it.

        Args:
            numbers: int64 [k], numbers of samples; everything drawn for a sample follows from its number.

        Returns:
            float32 [k, samples] in [-1, 1]; int64 [k].

        Raises:
            DatasetError: no sound can be used.
        """
        sounds, samples = self.waveforms, self.waveforms.shape[1]
        picked = shuffled_index(self.seed, numbers, len(sounds))
        if isinstance(sounds, Sounds):
            found, picked = usable(sounds, picked, lambda row, _: sounds.read(row), "sound")
        else:
            found = sounds[picked]
        u = uniforms(self.seed, "teacher_training", numbers, _DRAWS)
        silent = self._silent[picked]
        shifts = np.where(silent, 0, np.floor(u[0] * (2 * self._shift + 1)).astype(np.int64) - self._shift)
        gains = np.where(silent, u[2], 1.0).astype(np.float32)
        loud = np.where((u[1] < self._noisy) & ~silent, u[2] * self._loudness, 0.0).astype(np.float32)
        places = np.floor(u[3] * (len(self.noise) - samples + 1)).astype(np.int64)
        out = np.zeros((len(numbers), samples), np.float32)
        for row, waveform, shift, gain, volume, place in zip(out, floats(found), shifts, gains, loud, places):
            row[max(shift, 0) : samples + min(shift, 0)] = gain * waveform[max(-shift, 0) : samples - max(shift, 0)]
            if volume:
                row += volume / FULL_SCALE * self.noise[place : place + samples]
        return np.clip(out, -1, 1, out=out), self.labels[picked]

    def _noise_of(self, rate: int) -> np.ndarray:
        """int16 [values]: the silence of the set, or noise of our own."""
        rows = np.flatnonzero(self._silent)
        if len(rows) and self._noisy and self._loudness:
            rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MOST_NOISE)).astype(np.int64)]
            kept = self.waveforms[rows]
            kept = kept[(kept != 0).any(axis=1)]
            if len(kept):
                return kept.reshape(-1)
        return pink_noise(rate)


def pink_noise(rate: int) -> np.ndarray:
    """Sixteen seconds of it at 16 kHz, from 20 Hz on, always the same: int16 [262,144]."""
    white = noise_values(1)
    hertz = np.arange(len(white)) * (rate / 2 / (len(white) - 1))
    spectrum = np.where(hertz < 20, 0, white / np.sqrt(np.maximum(hertz, 20)))
    sound = np.fft.irfft(spectrum)
    sound *= _OWN_LOUDNESS / np.sqrt(np.mean(sound**2))
    return np.rint(np.clip(sound, -1, 1) * (FULL_SCALE - 1)).astype(np.int16)


def _checked(noise: np.ndarray) -> np.ndarray:
    given = f"the noise is {noise.dtype} of shape {list(noise.shape)}"
    if noise.ndim != 1 or not noise.size or not (noise.dtype == np.int16 or np.issubdtype(noise.dtype, np.floating)):
        raise DatasetError(f"{given}: expected int16 or float in [-1, 1], [values].")
    if noise.dtype == np.int16:
        return noise
    peak = float(np.abs(noise).max())
    if not peak <= 1:  # also NaN
        raise DatasetError(f"{given} with values to {peak:g}: expected [-1, 1].")
    return np.rint(noise * (FULL_SCALE - 1)).astype(np.int16)
