"""What teachers are asked in order to compare their answers: seeded noise, and real views of one image."""

from __future__ import annotations

from typing import Any

import numpy as np

from bridge.datum.render import render
from bridge.datum.views import make_view_set
from bridge.errors import TeacherError
from bridge.teachers.card import RANGES, Card
from bridge.teachers.engines import sample_shape

DEFAULT_IMAGE = "sklearn:china.jpg"
NOISE = 64  # noise inputs before the views; ours
_TONES = 3


class Probes:
    """Inputs known by their number: first `NOISE` of noise, then views. Only those asked for are made.

    Noise is uniform over the range of the card. Views are augmented views of an image by the recipe for its size; for
    audio, mixtures of chirps with noise; for video, such views that slide sideways from frame to frame.

    Args:
        card: Tells kind and size of an input.
        image: Whatever `bridge.datum.sources.load_source` takes; None: scikit-learn's photograph. Not for audio.
        views: How many views.
        seed: 0 ≤ seed < 2**64.

    Raises:
        TeacherError: The card gives no input size, or an image is given for audio.
        DatumError: The image cannot be read.
    """

    def __init__(self, card: Card, image: Any = None, views: int = 2048, seed: int = 0) -> None:
        self.shape, self.range, self.seed = sample_shape(card), RANGES[card.kind], seed
        self.rate = card.rate
        self.views, self.total = views, NOISE + views
        self._view_set = None
        if card.kind != "audio":
            image, side = DEFAULT_IMAGE if image is None else image, max(self.shape[-3:-1])
            self._view_set = make_view_set(image, side, None, patches=False, views=None, seed=seed)
        elif image not in (None, DEFAULT_IMAGE):
            raise TeacherError("This teacher takes waveforms: leave the image out, it is asked about synthetic sounds.")

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """Inputs by number: float32 [n, height, width, 3] or [n, frames, height, width, 3] in [0, 1]; [n, samples]."""
        numbers = np.asarray(numbers, dtype=np.int64)
        out = np.empty((len(numbers), *self.shape), dtype=np.float32)
        seen = numbers >= NOISE
        for row in np.flatnonzero(~seen):
            out[row] = np.random.default_rng([self.seed, 0, numbers[row]]).uniform(*self.range, self.shape)
        if seen.any():
            out[seen] = self._views(numbers[seen] - NOISE)
        return out

    def described(self) -> dict[str, Any]:
        """What ``parity.json`` says of the inputs."""
        views: dict[str, Any] = {"n": self.views, "source": "chirps with noise"}
        if self._view_set is not None:
            source, recipe = self._view_set.source, self._view_set.recipe
            views |= {"source": source.name, "source_sha256": source.sha256, "recipe": recipe.digest}
        return {"noise": {"n": NOISE, "range": self.range}, "views": views, "shape": self.shape, "seed": self.seed}

    def _views(self, numbers: np.ndarray) -> np.ndarray:
        if self._view_set is None:
            return np.stack([self._sound(number) for number in numbers])
        *frames, height, width, _ = self.shape  # views are square
        views = render(self._view_set, numbers)[:, :height, :width]
        if not frames:
            return views
        step = max(1, width // 16)
        return np.stack([np.roll(views, frame * step, axis=2) for frame in range(frames[0])], axis=1)

    def _sound(self, number: int) -> np.ndarray:
        random, samples, rate = np.random.default_rng([self.seed, 1, number]), self.shape[0], self.rate or 1
        position = np.linspace(0, 1, samples)
        low, high = np.geomspace(50, 0.45 * rate, 2)
        begin, end = low * (high / low) ** random.random((2, _TONES, 1))
        turns = (begin * position + (end - begin) * position**2 / 2) * (samples / rate) + random.random((_TONES, 1))
        tones = (random.random((_TONES, 1)) * np.sin(2 * np.pi * turns)).sum(axis=0)
        start, stop = np.sort(random.random(2))
        sound = tones * ((position >= start) & (position <= stop))
        sound += 10 ** random.uniform(-4, -0.5) * random.standard_normal(samples)
        return (random.uniform(0.05, 1) * sound / np.abs(sound).max()).astype(np.float32)
