"""Pictures that a unit of a network likes best: their parameters, first values and moves, without a framework.

Activation maximisation (Erhan et al. 2009) as Olah, Mordvintsev & Schubert 2017 ("Feature Visualization", distill.pub)
do it: the picture is the sigmoid of an inverse Fourier transform whose frequencies are weighted by 1/f and whose
channels are mixed as those of natural images, and it is moved and scaled a little before each step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bridge.datum.counter import uniforms

_DEVIATION = 0.01
"""Of the first parameters (Olah et al. 2017)."""
_CONTRAST = 0.25
"""Factor on the picture before the sigmoid, which the learning rate belongs to (Olah et al. 2017)."""
# How red, green and blue go together in the photographs of ImageNet: a square root of their covariance. Its columns
# are brightness, red against blue, and green against both. The numbers are those that Olah et al. 2017 published.
_COLOUR_ROOT = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
COLOURS: NDArray[np.float32] = (_COLOUR_ROOT / np.linalg.norm(_COLOUR_ROOT, axis=0).max()).astype(np.float32)
"""float32 [3, 3]: red, green and blue, each of three channels that do not go together."""
# Of the counter: moves of step s have index _MOVES + s, the noise of a picture its own number.
_MOVES = 2**32


@dataclass(frozen=True)
class Unit:
    """What is maximised.

    Attributes:
        index: of the class, or of the channel.
        layer: that has the channel; None: a class.
        label: for the eye.
    """

    index: int
    layer: str | None = None
    label: str = ""


@dataclass(frozen=True)
class Canvas:
    """What a picture is made of.

    Attributes:
        height, width: in pixels; of a spectrogram its bands and frames.
        channels: 3, or 1 of a spectrogram.
        decay: power of the frequency in the weights.
        level: in (0, 1): what all values begin near.
    """

    height: int
    width: int
    channels: int = 3
    decay: float = 1.0
    level: float = 0.5

    @property
    def offset(self) -> float:
        """What the sigmoid turns into `level`."""
        return float(np.log(self.level / (1 - self.level)))

    def weights(self) -> NDArray[np.float32]:
        """Of the frequencies: float32 [height, width // 2 + 1, 1], for an inverse transform that divides by the number
        of pixels. The lowest have the weight of frequency 1 / the longer side."""
        high, wide = np.fft.fftfreq(self.height)[:, None], np.fft.rfftfreq(self.width)[None]
        lowest, pixels = 1 / max(self.height, self.width), self.height * self.width
        frequency = np.maximum(np.hypot(high, wide), lowest)
        # of the lowest frequency a parameter of 1 makes a wave of the same height, whatever the size and the decay
        scale = (lowest / frequency) ** self.decay * max(self.height, self.width) * np.sqrt(pixels)
        return (_CONTRAST * scale)[..., None].astype(np.float32)

    def first(self, seed: int, indices: Sequence[int]) -> NDArray[np.float32]:
        """First parameters, normally distributed: a picture's depend on the seed and its unit's index alone.

        Returns:
            float32 [units, channels, height, width // 2 + 1, 2]: real and imaginary parts.
        """
        shape = (self.channels, self.height, self.width // 2 + 1)
        numbers = uniforms(seed, "neurons", np.asarray(indices), 2 * int(np.prod(shape)))
        radius, angle = np.sqrt(-2 * np.log(numbers[0::2])), 2 * np.pi * numbers[1::2]
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
        return (_DEVIATION * np.moveaxis(pairs, 1, 0).reshape(len(indices), *shape, 2)).astype(np.float32)

    def pixels(self, parameters: NDArray[np.float32]) -> NDArray[np.float32]:
        """The picture that parameters stand for, as both backends compute it: the definition, in NumPy.

        Returns:
            float32 [units, channels, height, width] in (0, 1).
        """
        spectrum = parameters * self.weights()
        values = np.fft.irfft2(spectrum[..., 0] + 1j * spectrum[..., 1], (self.height, self.width))
        if self.channels == 3:
            values = np.einsum("rc,nchw->nrhw", COLOURS, values)
        return (0.5 + 0.5 * np.tanh((values + self.offset) / 2)).astype(np.float32)


@dataclass(frozen=True)
class Ascent:
    """How a picture is made better.

    Attributes:
        steps, learning_rate: of Adam.
        jitter: largest move in each direction, as a share of the side.
        scaling: largest change of size, as a share.
        seed: of first noise and moves.
        canvas: what the picture is.
        shown: height and width of what the network takes.
        moves: whether pictures move upwards, too; spectrograms move in time alone, and keep their size.
    """

    steps: int
    learning_rate: float
    jitter: float
    scaling: float
    seed: int
    canvas: Canvas
    shown: tuple[int, int]
    moves_up: bool = True

    def views(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the network sees in a step: ``rows @ picture @ columns.T``, of fixed shapes.

        Returns:
            rows float32 [shown height, canvas height] and columns float32 [shown width, canvas width].
        """
        up, right, size = 2 * uniforms(self.seed, "neurons", np.array([_MOVES + step]), 3)[:, 0] - 1
        zoom = (1 + self.scaling) ** size if self.moves_up else 1.0
        rows = sampler(self.shown[0], self.canvas.height, zoom, self.jitter * up if self.moves_up else 0.0)
        return rows, sampler(self.shown[1], self.canvas.width, zoom, self.jitter * right)

    def still(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same of the picture as it is."""
        return sampler(self.shown[0], self.canvas.height), sampler(self.shown[1], self.canvas.width)


def sampler(outside: int, inside: int, zoom: float = 1.0, move: float = 0.0) -> NDArray[np.float32]:
    """Resampling along one side as a matrix: bilinear, antialiased where it makes smaller, mirrored beyond the edge.

    Args:
        outside: pixels of the result.
        inside: pixels there are.
        zoom: how much larger things get, about the middle.
        move: by how much what is seen moves, as a share of the side.

    Returns:
        float32 [outside, inside]; rows sum to one.
    """
    step = inside / (outside * zoom)
    centres = (np.arange(outside) + 0.5 - outside / 2) * step + inside * (0.5 + move) - 0.5
    reach = max(1.0, step)
    around = np.arange(-int(np.ceil(reach)) - 1, int(np.ceil(reach)) + 2)
    places = np.floor(centres)[:, None] + around
    weights = np.maximum(0.0, 1 - np.abs(places - centres[:, None]) / reach)
    matrix = np.zeros((outside, inside))
    mirrored = places.astype(int) % (2 * inside)
    mirrored = np.minimum(mirrored, 2 * inside - 1 - mirrored)
    np.add.at(matrix, (np.arange(outside)[:, None], mirrored), weights / weights.sum(axis=1, keepdims=True))
    return matrix.astype(np.float32)
