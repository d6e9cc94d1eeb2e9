"""Videos in files: which frames an evaluation sees, and their pixels, read with PyAV.

Frames are chosen by their time stamps, so that files of any rate, also a variable one, give the same moments. As in
the reference code (and pytorchvideo, SlowFast), "4 frames at stride 12" means a window as long as 48 frames at the rate
of the set, of which the first frame, the last and those shown at evenly spaced times between them are taken: of 48
frames 0, 15, 31 and 47. `Sampling.exact_stride` takes frames 0, 12, 24 and 36 instead. In a video shorter than the
window the same rule spreads over all there is, and frames repeat if they are fewer than asked for.

Pixels: yuv → rgb by the matrix and range the file names (BT.709 or BT.601), BT.601 and limited range where it names
none, whatever its size, as in pytorchvideo; OpenCV takes BT.601 for all. The short side is resized as the reference
code does, bilinear without antialiasing. A turn stored by a phone is applied; pixels are taken as square.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bridge.errors import ConfigError, DatasetError, DatumError

# By name, since FFmpeg would also show a text file as moving letters, and open what a playlist points to.
_FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,m4v,h264,hevc,nut,rm,dv,mxf"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
# Those that say how long they are; others are guessed from their size.
_STATED = ("mov", "matroska", "avi")
# Less of what a file says it holds counts as cut off. Ours.
_WHOLE = 0.9
MOST_CLIPS = 100
"""Of one video; more is taken for a mistake. Ours."""
# A decoder may swallow the last frames or the first; the nearest stands in for at most so many seconds of them. Ours.
_SLACK = 0.5
# Longer strips could fill the memory when they are resized.
_LONGEST = 16
# Time stamps are rounded, to milliseconds in Matroska: so much of a frame early is not early.
_EARLY = 0.05


@dataclass(frozen=True)
class Sampling:
    """Which pixels of a video a network sees. The defaults are those of the paper.

    Attributes:
        frames: of a clip.
        stride: between its frames in frames of the rate below; what it means exactly the module says.
        rate: frames per second that the stride counts in, 30 for Kinetics and 25 for UCF101 (reference code).
        short_side: to which frames are resized, in pixels.
        crop: side of the square cut from them, in pixels.
        clips: per video. One is the middle of the video (ours; the reference takes its beginning); of several, clip k
            begins at k/clips of what the video is longer than a clip (reference code).
        spatial: 1, the centre; or 3 along the long side: left or top, centre, right or bottom.
        exact_stride: frames exactly `stride` apart; past the end the last frame is repeated. Ours.
    """

    frames: int = 4
    stride: float = 12
    rate: float = 30.0
    short_side: int = 183
    crop: int = 160
    clips: int = 1
    spatial: int = 1
    exact_stride: bool = False

    def __post_init__(self) -> None:
        for name in ("frames", "stride", "rate", "crop", "clips"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}: expected more than 0.")
            if name not in ("stride", "rate") and value != int(value):
                raise ConfigError(f"{name} is {value}: expected a whole number.")
        if self.clips > MOST_CLIPS:
            raise ConfigError(
                f"clips is {self.clips}: expected at most {MOST_CLIPS} of each real video. How many fake clips are "
                "made of an image is another option: --views."
            )
        if self.spatial not in (1, 3):
            raise ConfigError(f"spatial is {self.spatial}: expected 1 crop per clip, or 3.")
        if self.crop > self.short_side:
            raise ConfigError(
                f"crop is {self.crop} and short_side {self.short_side}: expected a crop no larger than the short side."
            )

    @property
    def views(self) -> int:
        """Clips times crops: how often a network sees a video."""
        return self.clips * self.spatial

    def chosen(self, times: np.ndarray, moments: Sequence[float] | None = None) -> np.ndarray:
        """The frames of all clips.

        Args:
            times: float64 [n], when each frame is shown, in seconds from the first one, rising.
            moments: when each clip begins, as a share of what the video is longer than a clip; None: as `clips` says.

        Returns:
            int64 [clips, frames] in [0, n).
        """
        if moments is None:
            moments = [0.5] if self.clips == 1 else [clip / self.clips for clip in range(self.clips)]
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / self.rate
        window, early, last = self.frames * self.stride / self.rate, _EARLY * step, len(times) - 1
        spare = max(times[-1] + step - window, 0.0)
        rows = []
        for start in (spare * moment for moment in moments):
            first = min(int(np.searchsorted(times, start - early)), last)
            if self.exact_stride:
                sought = times[first] + np.arange(self.frames) * self.stride / self.rate
            else:
                final = max(int(np.searchsorted(times, start + window - early)) - 1, first)
                sought = np.linspace(times[first], times[final], self.frames)
            rows.append(np.searchsorted(times, sought + early, "right") - 1)
        return np.stack(rows)

    def fitted(self, frame: np.ndarray) -> np.ndarray:
        """The crops of a frame.

        Args:
            frame: uint8 [h, w, 3].

        Returns:
            uint8 [spatial, crop, crop, 3].
        """
        frame = resized(frame, self.short_side)
        across, down = frame.shape[1] - self.crop, frame.shape[0] - self.crop
        middle = round(across / 2), round(down / 2)
        corners = [middle]
        if self.spatial == 3:
            ends = ((0, middle[1]), (across, middle[1])) if across >= down else ((middle[0], 0), (middle[0], down))
            corners = [ends[0], middle, ends[1]]
        return np.stack([frame[y : y + self.crop, x : x + self.crop] for x, y in corners])


def resized(frame: np.ndarray, short_side: int) -> np.ndarray:
    """A frame whose shorter side has so many pixels, bilinearly and without antialiasing (reference code).

    Args:
        frame: uint8 [h, w, 3].
        short_side: in pixels.

    Raises:
        DatumError: it is too long a strip.
    """
    import cv2

    height, width = frame.shape[:2]
    short = min(height, width)
    if max(height, width) > _LONGEST * short:
        raise DatumError(f"{width} x {height} pixels")
    size = short_side * width // short, short_side * height // short
    # The exact variant gives the same bits with every OpenCV and on every machine.
    return frame if size == (width, height) else cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR_EXACT)


def read_clips(path: Path, sampling: Sampling) -> np.ndarray:
    """All a network sees of a video.

    Returns:
        uint8 [clips · spatial, frames, crop, crop, 3], the crops of a clip one after the other.

    Raises:
        DatumError: it cannot be used, saying why.
        DatasetError: PyAV is not installed.
    """
    clips = read_frames(path, sampling.chosen, sampling.fitted)  # [clips, frames, spatial, crop, crop, 3]
    return np.ascontiguousarray(clips.swapaxes(1, 2)).reshape(sampling.views, sampling.frames, *clips.shape[3:])


def read_frames(
    path: Path, choose: Callable[[np.ndarray], np.ndarray], finish: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Some frames of a video, decoded by one thread; no more of it is decoded than it takes.

    Args:
        path: the file.
        choose: gets the times of all frames, float64 [n], in seconds from the first one, rising; gives the frames
            wanted, int64 [...] in [0, n), in any order, also repeated.
        finish: what becomes of a frame, uint8 [h, w, 3], called once for each; all results have one shape and dtype.

    Returns:
        [*wanted's shape, *a finished frame's shape].

    Raises:
        DatumError: no video, sound alone, a single frame, damaged or cut off.
        DatasetError: PyAV is not installed.
    """
    with _opened(path) as (container, stream):
        index = _Index.of(container, stream)
    wanted = choose(index.times)
    rows, places = np.unique(wanted, return_inverse=True)
    pixels = _decoded(path, index, rows, finish)
    # not `np.stack(pixels)[places]`, which copies every pixel once more
    return np.stack([pixels[place] for place in places.ravel()]).reshape(*wanted.shape, *pixels[0].shape)


@dataclass(frozen=True)
class _Index:
    """The frames of a video, without decoding them.

    Attributes:
        stamps: int64 [n], by which frames are known while decoding, rising: time stamps, or numbers where the file has
            no reliable ones.
        unit: seconds of one.
        timed: whether they are time stamps.
        keys: int64 [k], those of them that decoding can start from.
    """

    stamps: np.ndarray
    unit: Fraction
    timed: bool
    keys: np.ndarray

    @property
    def times(self) -> np.ndarray:
        return (self.stamps - self.stamps[0]) * float(self.unit)

    @staticmethod
    def of(container: Any, stream: Any) -> _Index:
        found, keys, end, damaged = [], [], 0.0, False
        for packet in container.demux():
            stamp = packet.dts if packet.pts is None else packet.pts
            if packet.size and stamp is not None:
                end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base))
            if packet.stream is stream and packet.size:
                damaged |= packet.is_corrupt
                if not packet.is_discard:
                    found.append(packet.pts)
                    keys += [packet.pts] if packet.is_keyframe else []
        if len(found) < 2:
            raise DatumError("a single frame" if found else "no frames")
        kind = container.format.name.split(",")[0]
        if kind in _STATED and container.duration:
            begin, promised = (container.start_time or 0) / 1e6, container.duration / 1e6
            damaged |= end - begin < _WHOLE * promised
        # Of a video cut without encoding it again MP4 counts frames that its edit list hides; its duration is right.
        if damaged or len(found) < _WHOLE * (0 if kind == "mov" else stream.frames):
            raise DatumError("cut off")
        # AVI has no time stamps: FFmpeg guesses them, wrongly where frames are stored in another order than shown.
        if kind != "avi" and None not in found and len(set(found)) == len(found):
            return _Index(np.sort(np.array(found)), stream.time_base, True, np.sort(np.array(keys, np.int64)))
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        return _Index(np.arange(len(found)), 1 / Fraction(rate), False, np.empty(0, np.int64))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A file and its video stream; what FFmpeg refuses becomes a DatumError."""
    try:
        import av
    except ImportError as error:
        raise DatasetError("videos are read with PyAV, which is not installed: pip install av") from error

    try:
        if path.stat().st_size == 0:
            raise DatumError("empty")
        with av.open(str(path.absolute()), options=_OPTIONS, metadata_errors="replace") as container:
            stream: Any = container.streams.best("video")
            if stream is None:
                raise DatumError("sound alone" if container.streams.audio else "no video")
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1  # several videos are decoded at once
            yield container, stream
    except av.error.ArgumentError as error:
        raise DatumError("no video") from error  # of a kind that is none of _FORMATS
    except av.error.InvalidDataError as error:
        raise DatumError("damaged, or no video") from error
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
        raise DatumError(f"cannot be read: {error}") from error


def _decoded(
    path: Path, index: _Index, rows: np.ndarray, finish: Callable[[np.ndarray], np.ndarray], seek: bool = True
) -> list[np.ndarray]:
    """Frames of these rising numbers. Each is the last one that is shown at its time."""
    sought, done = index.stamps[rows], []
    with _opened(path) as (container, stream):
        from av.video.reformatter import VideoReformatter

        before = index.keys[index.keys <= sought[0]] if index.timed and seek else index.keys[:0]
        if seek := len(before) > 0 and before[-1] > index.keys[0]:
            container.seek(int(before[-1]), stream=stream)
        # One for all frames: it keeps what it works out for a size.
        reformatter, slack = VideoReformatter(), _SLACK / float(index.unit)
        shown, since = None, int(sought[0])

        def finished(frame: Any) -> np.ndarray:
            if frame.is_corrupt:
                raise DatumError("damaged")
            pixels = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            turned = np.rot90(pixels, round(frame.rotation / 90)) if frame.rotation else pixels
            return finish(np.ascontiguousarray(turned))

        for number, frame in enumerate(container.decode(stream)):
            stamp = frame.pts if index.timed else number
            if stamp is None:
                stamp = since
            elif shown is not None:
                stamp = max(stamp, since)
            elif stamp > sought[0]:  # the decoder left out what comes before it
                if seek:
                    return _decoded(path, index, rows, finish, seek=False)
                if stamp - sought[0] > slack:
                    raise DatumError("damaged")
                stamp = since
            while len(done) < len(sought) and sought[len(done)] <= stamp:
                done.append(finished(frame if sought[len(done)] == stamp else shown))
            if len(done) == len(sought):
                return done
            shown, since = frame, stamp
        if shown is None or sought[-1] - since > slack:
            raise DatumError("damaged")
        return done + [finished(shown)] * (len(sought) - len(done))
