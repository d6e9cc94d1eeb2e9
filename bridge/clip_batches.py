"""Labelled videos in batches: the random clips of them that a teacher is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bridge.batches import usable
from bridge.clips import Clips
from bridge.datum.counter import shuffled_index, uniforms
from bridge.videos import read_frames, resized

MEMORY = 2 * 2**30
"""Sets whose frames take less, in bytes, are decoded once and kept. Ours."""
# A clip of 160 pixels is cut out of frames whose short side has 183 to 229 (reference code).
_LARGEST = 229 / 183
_DRAWS = 5  # moment, short side, corner, flip


@dataclass(frozen=True)
class _Video:
    """A whole video: times float64 [n] in seconds, frames uint8 [n, h, w, 3]."""

    times: np.ndarray
    frames: np.ndarray


class _TooLarge(Exception):
    """A video takes more than its share of the memory."""


class RandomClips:
    """Clips of videos as networks for video are trained on them (reference code), each known from its number.

    A clip begins at any moment; its frames are resized so that their short side is between the one of the sampling and
    229/183 of it, and a square is cut out at any place, the same of all frames.

    Args:
        clips: the videos, and with their sampling the frames of a clip, its stride and its size.
        flip: mirror half of them. Off where left and right mean something.
        seed: of order and augmentation.
        memory: bytes of decoded frames to keep, shared out evenly; a video that takes more than its share is decoded
            again whenever it is asked for. Its clips are the same either way, but for those of a damaged video: after
            the first of them that cannot be decoded, others come in its place.
    """

    def __init__(self, clips: Clips, *, flip: bool = True, seed: int = 0, memory: int = MEMORY) -> None:
        self.clips, self.flip, self.seed = clips, flip, seed
        self._share = memory / max(len(clips.files), 1)
        # None: too large to keep. Of large sets all are, and none is decoded to find out.
        size = clips.sampling.frames * clips.sampling.crop**2 * 3
        self._kept: dict[Path, _Video | None] = dict.fromkeys(clips.files if size > self._share else ())

    def draw(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The clips of some samples, decoded by several threads.

        In place of a video that cannot be decoded comes the next one that can; a warning names it.

        Args:
            numbers: int64 [k], numbers of samples; everything drawn for a sample follows from its number.

        Returns:
            uint8 [k, frames, crop, crop, 3]; which videos these are, int64 [k].

        Raises:
            DatasetError: no video can be decoded.
        """
        picked = shuffled_index(self.seed, numbers, len(self.clips.files))
        u = uniforms(self.seed, "teacher_training", numbers, _DRAWS).T

        def read(video: int, position: int) -> np.ndarray | None:
            return self.clips.read(video, lambda path: self._clip(path, u[position]))

        return usable(self.clips, picked, read, "video")

    def _clip(self, path: Path, u: np.ndarray) -> np.ndarray:
        """One clip: uint8 [frames, crop, crop, 3]."""
        if path not in self._kept:
            self._kept[path] = self._whole(path)
        video = self._kept[path]
        if video is None:
            return read_frames(path, lambda times: self._chosen(times, u), lambda frame: self._cropped(frame, u))
        rows, places = np.unique(self._chosen(video.times, u), return_inverse=True)
        return np.stack([self._cropped(video.frames[row], u) for row in rows])[places.reshape(-1)]

    def _whole(self, path: Path) -> _Video | None:
        """All frames of a video, where they may be kept."""
        found: list[np.ndarray] = []

        def every(times: np.ndarray) -> np.ndarray:
            found.append(times)
            return np.arange(len(times))

        def kept(frame: np.ndarray) -> np.ndarray:
            if len(found[0]) * frame.nbytes > self._share:
                raise _TooLarge
            return frame

        try:
            frames = read_frames(path, every, kept)
        except _TooLarge:
            return None
        return _Video(found[0], frames)

    def _chosen(self, times: np.ndarray, u: np.ndarray) -> np.ndarray:
        return self.clips.sampling.chosen(times, [u[0]])[0]

    def _cropped(self, frame: np.ndarray, u: np.ndarray) -> np.ndarray:
        """uint8 [crop, crop, 3]"""
        low, crop = self.clips.sampling.short_side, self.clips.sampling.crop
        frame = resized(frame, low + int(u[1] * (round(low * _LARGEST) - low + 1)))
        top, left = (int(share * (length - crop + 1)) for share, length in zip(u[2:4], frame.shape))
        square = frame[top : top + crop, left : left + crop]
        return square[:, ::-1] if self.flip and u[4] < 0.5 else square
