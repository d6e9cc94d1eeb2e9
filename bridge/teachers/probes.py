"""What teachers are asked in order to compare their answers: seeded noise, and real views of one image or clip."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from bridge.clips import LabelledVideos, load_video, readable_videos, thinned_videos
from bridge.datum.audio import AudioSet, make_audio_set
from bridge.datum.audio_render import render_audio
from bridge.datum.render import render
from bridge.datum.video import make_clip_set
from bridge.datum.views import SampleSet, make_view_set
from bridge.errors import TeacherError
from bridge.teachers.card import RANGES, Card
from bridge.teachers.engines import sample_shape

DEFAULT_IMAGE = "sklearn:china.jpg"
SUBJECTS = {"image": "images", "audio": "waveforms", "video": "clips"}
# A clip costs as much as dozens of images, so networks for video are asked fewer. All ours.
NOISE, CLIPS_OF_NOISE = 64, 4  # noise inputs before the views
_VIEWS, _BATCH = {"video": 12}, {"video": 2}
_SPAN = 48  # that a clip spans: 4 at stride 12, as X3D-XS takes them
_TONES = 3
SYNTHETIC = "chirps with noise"


def views_of(card: Card, views: int | None, usual: int) -> int:
    """How many views are asked about unless told otherwise: 12 clips, else the usual."""
    return _VIEWS.get(card.kind, usual) if views is None else views


def batch_of(card: Card, batch_size: int | None) -> int:
    """How many of them at once: 2 clips, else 64."""
    return _BATCH.get(card.kind, 64) if batch_size is None else batch_size


def noise_of(card: Card) -> int:
    """How many inputs of noise come before them: 4 clips, else 64."""
    return CLIPS_OF_NOISE if card.kind == "video" else NOISE


class Probes:
    """Inputs known by their number: first `noise` of noise, then views. Only those asked for are made.

    Noise is uniform over the range of the card. Views are augmented views of an image by the recipe for its size; for
    audio, views of a clip or, without one, mixtures of chirps with noise; for video, fake clips of the image, or clips
    of real videos.

    Args:
        card: Tells kind and size of an input.
        image: Whatever `bridge.datum.sources.load_source` takes; None: scikit-learn's photograph. Not for audio.
        views: How many views; None: 2048, of video 12.
        seed: 0 ≤ seed < 2**64.
        videos: For video alone, in place of the image: a folder or list of videos, as `bridge.clips.load_video` takes.

    Attributes:
        noise: How many inputs of noise.
        views: How many views.
        total: Both together.

    Raises:
        TeacherError: The card gives no input size, an image is given for audio, a clip for anything but audio, or
            videos for anything but video.
        DatumError: The image or clip cannot be read, or the clip is shorter than a view.
        DatasetError: There are no such videos, or none can be decoded.
    """

    def __init__(
        self,
        card: Card,
        image: Any = None,
        views: int | None = None,
        seed: int = 0,
        videos: str | os.PathLike[str] | None = None,
        audio: Any = None,
    ) -> None:
        self.shape, self.range, self.seed = sample_shape(card), RANGES[card.kind], seed
        self.rate = card.rate
        self.noise, self.views = noise_of(card), views_of(card, views, 2048)
        self.total = self.noise + self.views
        self._view_set: SampleSet | None = None
        self._videos: LabelledVideos | None = None
        self._sounds: AudioSet | None = None
        if videos is not None and card.kind != "video":
            raise TeacherError(f"This teacher takes {SUBJECTS[card.kind]}, not clips: leave the videos out.")
        if audio is not None and card.kind != "audio":
            raise TeacherError(f"This teacher takes {SUBJECTS[card.kind]}, not waveforms: leave the audio out.")
        if card.kind == "audio":
            if image not in (None, DEFAULT_IMAGE):
                raise TeacherError(
                    "This teacher takes waveforms: leave the image out, it is asked about views of --audio, or "
                    "synthetic sounds."
                )
            if audio is not None:
                rate = int(self.rate or 0)
                self._sounds = make_audio_set(audio, rate, self.shape[0] / rate, None, views=None, seed=seed)
            return
        image, side = DEFAULT_IMAGE if image is None else image, max(self.shape[-3:-1])
        if videos is not None:
            self._videos = _usable(videos, self.shape[0], side, self.views)
        elif card.kind == "video":
            self._view_set = make_clip_set(image, side, self.shape[0], "linear", None, clips=None, seed=seed)
        else:
            self._view_set = make_view_set(image, side, None, patches=False, views=None, seed=seed)

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """Inputs by number: float32 [n, height, width, 3] or [n, frames, height, width, 3] in [0, 1]; [n, samples]."""
        numbers = np.asarray(numbers, dtype=np.int64)
        out = np.empty((len(numbers), *self.shape), dtype=np.float32)
        seen = numbers >= self.noise
        for row in np.flatnonzero(~seen):
            out[row] = np.random.default_rng([self.seed, 0, numbers[row]]).uniform(*self.range, self.shape)
        if seen.any():
            out[seen] = self._views(numbers[seen] - self.noise)
        return out

    def described(self) -> dict[str, Any]:
        """What ``parity.json`` says of the inputs."""
        views: dict[str, Any] = {"n": self.views, "source": SYNTHETIC}
        view_set = self._view_set or self._sounds
        if view_set is not None:
            source, recipe = view_set.source, view_set.recipe
            views |= {"source": source.name, "source_sha256": source.sha256, "recipe": recipe.digest}
        if self._videos is not None:
            files = len(self._videos.clips.files)
            views = {"n": self.views, "source": self._videos.name, "videos": files}
        return {"noise": {"n": self.noise, "range": self.range}, "views": views, "shape": self.shape, "seed": self.seed}

    def _views(self, numbers: np.ndarray) -> np.ndarray:
        if self._sounds is not None:
            return render_audio(self._sounds, numbers)
        if self._view_set is None and self._videos is None:
            return np.stack([self._sound(number) for number in numbers])
        height, width = self.shape[-3:-1]  # views and clips are square
        if self._videos is not None:
            clips = self._videos.clips
            number = np.asarray(numbers) % self.views
            # The first clip of each video before the second of any.
            rows = (number % len(clips.files)) * clips.views + number // len(clips.files)
            return clips[rows][..., :height, :width, :].astype(np.float32) / 255
        assert self._view_set is not None
        return render(self._view_set, numbers)[..., :height, :width, :]

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


def _usable(videos: str | os.PathLike[str], frames: int, side: int, views: int) -> LabelledVideos:
    """Those of the videos that can be decoded, at most as many as views, with as many clips each as that takes."""
    data = load_video(videos, frames=frames, stride=_SPAN / frames, crop=side, clips=1)
    data = thinned_videos(data, views)
    for video in range(len(data.clips.files)):
        data.clips.read(video)
    kept = data.clips.take(readable_videos(data))
    kept.sampling = replace(kept.sampling, clips=-(-views // len(kept.files)))
    return replace(data, clips=kept, labels=None)
