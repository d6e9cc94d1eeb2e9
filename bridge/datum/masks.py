"""Masks over spectrograms (SpecAugment) as numbers: which frames and bands are hidden, from seed and step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bridge.datum.counter import uniforms
from bridge.errors import RecipeError

_DRAWS = 4  # of a pair of masks: width and place of each
_LARGEST = 100


@dataclass(frozen=True)
class Masks:
    """How spectrograms are masked, after SpecAugment (Park et al. 2019).

    As there, widths are uniform from 0 up, and places uniform over all that fit. Their limits as shares are ours.

    Attributes:
        count: masks of time, and as many of frequency; they may overlap. 0: none.
        time: width of a mask of time at most, as a share of the frames.
        frequency: width of a mask of frequency at most, as a share of the bands.
    """

    count: int = 1
    time: float = 0.2
    frequency: float = 0.2

    def __post_init__(self) -> None:
        whole = isinstance(self.count, int) and not isinstance(self.count, bool)
        if not whole or not 0 <= self.count <= _LARGEST:
            raise RecipeError(f"masks count (={self.count!r}) must be a whole number in [0, {_LARGEST}].")
        for name in ("time", "frequency"):
            share = getattr(self, name)
            number = isinstance(share, (int, float)) and not isinstance(share, bool) and math.isfinite(share)
            if not number or not 0 <= share <= 1:
                raise RecipeError(f"masks {name} (={share!r}) must be a share in [0, 1].")


class MaskNumbers(NamedTuple):
    """One batch's masks: what has its centre between begin and end is hidden.

    Attributes:
        time: float32 [batch, count, 2], begin and end as shares of the frames.
        frequency: float32 [batch, count, 2], of the bands.
    """

    time: Any
    frequency: Any


def mask_numbers(masks: Masks, seed: int, step: int | np.ndarray, batch: int) -> MaskNumbers:
    """The masks of one step, or of several steps one after the other: a pure function of its arguments.

    Args:
        masks: their settings.
        seed: 0 ≤ seed < 2**64.
        step: number of the step, or int64 [k].
        batch: rows per step.

    Returns:
        `MaskNumbers` of k · batch rows; a mask never depends on how many there are.
    """
    steps = np.atleast_1d(np.asarray(step, dtype=np.int64))
    index = (steps[:, None] * 2**24 + np.arange(batch)).ravel()
    u = uniforms(seed, "masks", index, _DRAWS * masks.count).reshape(masks.count, _DRAWS, index.size)
    u = u.transpose(1, 2, 0)  # [draws, rows, count]

    def edges(width: np.ndarray, place: np.ndarray) -> np.ndarray:
        begin = place * (1 - width)
        return np.stack([begin, begin + width], axis=-1).astype(np.float32)

    return MaskNumbers(edges(masks.time * u[0], u[1]), edges(masks.frequency * u[2], u[3]))


def masked(spectrograms: np.ndarray, numbers: MaskNumbers) -> np.ndarray:
    """Hide what the masks cover: it takes the mean of its own spectrogram (ours).

    Args:
        spectrograms: float [batch, frames, bands].
        numbers: of the same rows.

    Returns:
        The same shape and type.
    """
    frames, bands = spectrograms.shape[1:]
    hidden = _hidden(numbers.time, frames)[:, :, None] | _hidden(numbers.frequency, bands)[:, None, :]
    mean = spectrograms.mean(axis=(1, 2), keepdims=True)
    return np.where(hidden, mean, spectrograms).astype(spectrograms.dtype)


def centres(length: int) -> np.ndarray:
    """Where the middles of so many frames or bands lie: float32 [length], as shares."""
    return ((np.arange(length) + 0.5) / length).astype(np.float32)


def _hidden(edges: np.ndarray, length: int) -> np.ndarray:
    """Begins and ends [batch, count, 2] → bool [batch, length]."""
    at = centres(length)
    return np.any((at > edges[..., :1]) & (at < edges[..., 1:]), axis=1)
