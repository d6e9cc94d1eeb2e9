"""Videos in files as one array of clips that decodes what is asked for, and evaluation sets of them by name or path."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bridge import video_layouts
from bridge.config import VideoOptions
from bridge.datasets import data_folder
from bridge.datum.sources import some_names
from bridge.errors import DatasetError, DatumError
from bridge.facts import VIDEO_FACTS, VideoFacts
from bridge.lazy import Lazy, cores
from bridge.names import hint
from bridge.video_layouts import Listing
from bridge.videos import Sampling, read_clips

SHORT_SIDE, CROP = 183, 160
"""Pixels to which the shorter side of a frame is scaled, and of the square cut out of it (Asano & Saeed 2023)."""
TEST_CLIPS = 10
"""Clips per video in a test; in validation it is one (Asano & Saeed 2023)."""
_SPLITS = ("train", "validation", "test")
_AHEAD = 2**30  # bytes of clips decoded ahead
_Views = np.ndarray | None


class Clips(Lazy):
    """uint8 [videos · clips · spatial, frames, crop, crop, 3] out of video files, decoded when asked for.

    The rows of a video follow each other: the crops of its first clip, then of its second. A video is decoded once for
    all its rows, several videos at once; after a slice the next one of the same length is decoded ahead. What cannot be
    decoded comes out black and is kept in mind: see `unreadable`.

    Args:
        files: the videos.
        sampling: which pixels of them.
        root: a folder that holds all of them, left out of their names in messages.
    """

    def __init__(self, files: Sequence[Path], sampling: Sampling | None = None, root: Path | None = None) -> None:
        super().__init__()
        self.files, self.sampling, self.root = list(files), sampling or Sampling(), root
        self._unreadable: dict[int, str] = {}
        self._ahead: dict[int, Future[_Views]] = {}

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """[videos · clips · spatial, frames, crop, crop, 3]"""
        side = self.sampling.crop
        return len(self.files) * self.views, self.sampling.frames, side, side, 3

    @property
    def views(self) -> int:
        """Rows of each video."""
        return self.sampling.views

    @property
    def unreadable(self) -> list[int]:
        """Videos, sorted, of those asked for so far that cannot be used; their number in `files`."""
        return sorted(self._unreadable)

    def names(self, videos: Sequence[int]) -> str:
        """The first few of these files, and why they cannot be used, for messages."""
        return some_names([self._name(video) for video in videos])

    def take(self, videos: np.ndarray) -> Clips:
        """All rows of some of the videos, still undecoded.

        Args:
            videos: int64 [k], their numbers in `files`.
        """
        return Clips([self.files[video] for video in np.asarray(videos).tolist()], self.sampling, self.root)

    def read(self, video: int, read: Callable[[Path], np.ndarray] | None = None) -> _Views:
        """What a function reads of a video; None, kept in mind, if it is unusable.

        Args:
            video: its number in `files`.
            read: file → pixels; None: all rows, uint8 [clips · spatial, frames, crop, crop, 3].
        """
        if video not in self._unreadable:
            try:
                return read(self.files[video]) if read else read_clips(self.files[video], self.sampling)
            except DatumError as error:
                self._unreadable[video] = str(error)
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "sampling": self.sampling, "root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _name(self, video: int) -> str:
        path = self.files[video]
        name = (path.relative_to(self.root) if self.root else path).as_posix()
        return f"{name} ({self._unreadable[video]})" if video in self._unreadable else name

    def _slice(self, start: int, stop: int) -> np.ndarray:
        with self._turn:
            # the next slice, and of large clips, of which a slice holds few videos, as many as there are threads
            several = self.views * min(cores(), max(1, _AHEAD // (self.nbytes // len(self.files))))
            before, then = (
                self._ahead if self._has_threads() else {},
                min(max(2 * stop - start, stop + several), len(self)),
            )
            tasks = {video: before.get(video) or self.submit(self.read, video) for video in self._videos(start, then)}
            for video in before.keys() - tasks.keys():
                before[video].cancel()
            self._ahead = {video: task for video, task in tasks.items() if (video + 1) * self.views > stop}
            return self._gathered(range(start, stop), tasks)

    def _videos(self, start: int, stop: int) -> range:
        return range(start // self.views, -(-stop // self.views) if stop > start else start // self.views)

    def _decoded(self, rows: Sequence[int]) -> np.ndarray:
        videos = dict.fromkeys(row // self.views for row in rows)
        return self._gathered(rows, {video: self.submit(self.read, video) for video in videos})

    def _gathered(self, rows: Sequence[int], tasks: dict[int, Future[_Views]]) -> np.ndarray:
        out = np.zeros((len(rows), *self.shape[1:]), np.uint8)
        for position, row in enumerate(rows):
            video, view = divmod(row, self.views)
            views = tasks[video].result()
            if views is not None:
                out[position] = views[view]
        return out


@dataclass
class LabelledVideos:
    """Videos with their labels.

    Attributes:
        clips: their pixels, several rows for each.
        labels: int64 [videos], or None if there are none: then only agreement with a teacher can be measured.
        class_names: in the order of the labels, if known.
        name: the evaluation set, for reports.
        classes: their number, where it is known without names.
    """

    clips: Clips
    labels: np.ndarray | None
    class_names: list[str] | None
    name: str
    classes: int | None = None


def load_video(
    name_or_path: str | os.PathLike[str],
    split: str = "test",
    *,
    frames: int = 4,
    stride: float = 12,
    rate: float | None = None,
    short_side: int | None = None,
    crop: int = CROP,
    clips: int | None = None,
    spatial: int = 1,
    exact_stride: bool = False,
    class_names: Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    fold: int = 1,
) -> LabelledVideos:
    """Find an evaluation set of videos: a name in ``VIDEO_FACTS``, a folder, or a list; nothing is decoded yet.

    By name it is looked for in the data folder (`bridge.video_layouts` says how). A folder has one folder per class, or
    parts train, val and test that have, or videos without labels; one called UCF-101, with all of its videos, is split
    as that set. A list is a csv of Kinetics or testlist01.txt of UCF101; its videos lie beside it or in ``data_dir``.
    Videos in a list that are not there are counted and named.

    Args:
        name_or_path: a name in ``VIDEO_FACTS``, or a path.
        split: ``train``, ``validation`` or ``test``. By name, what is not the test set is split by us
            (`video_layouts.find`), and Kinetics is tested on its validation videos.
        frames, stride, crop, spatial, exact_stride: as of `Sampling`.
        rate: as of `Sampling`; None: that of the set; of a path 25 if its videos have the names of UCF101's, else 30.
        short_side: as of `Sampling`; None: 183 for a crop of 160, in proportion for others.
        clips: per video; None: 10 to test, else 1.
        class_names: those of the model to be measured, in its order: classes are matched to them by name, whatever
            their case, spaces and underscores; some of them may be absent.
        data_dir: the data folder; None: ``$AIP_DATA``, or ``./data``. With a list: the folder of its videos.
        fold: which of UCF101's three official splits.

    Raises:
        DatasetError: the set is unknown, missing or not of the kind described here.
        ConfigError: a number that makes no sense.
    """
    if split not in _SPLITS:
        raise DatasetError(f"split is {split!r}: expected one of {', '.join(_SPLITS)}.")
    if fold not in (1, 2, 3):
        raise DatasetError(f"fold is {fold}: expected 1, 2 or 3.")
    facts = VIDEO_FACTS.get(name_or_path) if isinstance(name_or_path, str) else None
    sampling = Sampling(
        frames=frames,
        stride=stride,
        rate=Sampling.rate if rate is None else rate,
        short_side=round(crop * SHORT_SIDE / CROP) if short_side is None else short_side,
        crop=crop,
        clips=(TEST_CLIPS if split == "test" else 1) if clips is None else clips,
        spatial=spatial,
        exact_stride=exact_stride,
    )
    if facts is not None:
        listing = _named(facts, split, data_folder(data_dir), fold, class_names)
        name, usual_rate = facts.name if split == "test" else f"{facts.name}/{split}", facts.rate
    else:
        path = Path(name_or_path).expanduser()
        if not path.exists():
            raise DatasetError(
                f"no evaluation set of videos {str(name_or_path)!r}: expected one of {', '.join(VIDEO_FACTS)}, an "
                f"existing folder, a .csv of Kinetics or a list of UCF101.{hint(str(name_or_path), VIDEO_FACTS)}"
            )
        listing = video_layouts.of_path(path, split, Path(data_dir).expanduser() if data_dir else None, fold)
        usual_rate = VIDEO_FACTS["ucf101"].rate if video_layouts.is_ucf101(listing) else Sampling.rate
        listing, name = video_layouts.in_order_of(listing, class_names) if class_names else listing, path.resolve().name
    if listing.missing:
        known = f"{len(listing.files):,} of {len(listing.files) + len(listing.missing):,} videos"
        warnings.warn(f"{listing.root} holds {known} of the list; not {some_names(listing.missing)}", stacklevel=2)
    if not listing.files:
        raise DatasetError(f"no video in {listing.root}: expected videos or class folders; found none.")
    found = Clips(listing.files, replace(sampling, rate=usual_rate if rate is None else rate), listing.root)
    return LabelledVideos(found, listing.labels, listing.class_names, name, facts.classes if facts else None)


def sampling_of(options: VideoOptions, input_size: Sequence[int]) -> dict[str, Any]:
    """What `load_video` is told by a command's options for a network of that size.

    Args:
        options: of the command.
        input_size: of the network: frames, height and width in pixels.
    """
    frames, side = input_size[0], input_size[1]
    return {
        "frames": frames, "crop": side, "stride": options.stride, "clips": options.clips, "spatial": options.spatial,
        "fold": options.fold,
    }  # fmt: skip


def joined_videos(parts: Sequence[LabelledVideos]) -> LabelledVideos:
    """Several parts of one set, which has labels, as one that is named after the first. Decodes none."""
    files = [file for part in parts for file in part.clips.files]
    roots = {part.clips.root for part in parts}
    together = Clips(files, parts[0].clips.sampling, roots.pop() if len(roots) == 1 else None)
    labels = [part.labels for part in parts if part.labels is not None]
    return parts[0] if len(parts) == 1 else replace(parts[0], clips=together, labels=np.concatenate(labels))


def check_readable(data: LabelledVideos) -> LabelledVideos:
    """The same, once one of the first 100 videos has been decoded: better known before hours of training than after.

    Raises:
        DatasetError: none of them can be decoded.
    """
    few = range(min(len(data.clips.files), 100))
    if all(data.clips.read(video) is None for video in few):
        raise DatasetError(f"no usable video in {data.clips.root or data.name}: found {data.clips.names(few)}.")
    return data


def readable_videos(data: LabelledVideos, stacklevel: int = 2) -> np.ndarray:
    """The videos that count, once all clips have been asked for: those that could be decoded.

    A warning says how many could not, and names some with the reason.

    Returns:
        int64 [videos], sorted.

    Raises:
        DatasetError: none could be decoded.
    """
    clips, skipped = data.clips, data.clips.unreadable
    where = clips.root or data.name
    if len(skipped) == len(clips.files):
        raise DatasetError(f"no usable video in {where}: found {clips.names(skipped)}.")
    if skipped:
        warnings.warn(
            f"{where}: skipped {len(skipped)} of {len(clips.files)} files, no usable videos: {clips.names(skipped)}",
            stacklevel=stacklevel + 1,
        )
    return np.setdiff1d(np.arange(len(clips.files)), skipped)


def thinned_videos(data: LabelledVideos, count: int) -> LabelledVideos:
    """At most so many of the videos, evenly spaced: sets ordered by class keep all of theirs. Decodes none."""
    total = len(data.clips.files)
    if total <= count:
        return data
    rows = np.linspace(0, total - 1, count).astype(np.int64)
    return replace(data, clips=data.clips.take(rows), labels=None if data.labels is None else data.labels[rows])


def _named(facts: VideoFacts, split: str, folder: Path, fold: int, class_names: Sequence[str] | None) -> Listing:
    listing = video_layouts.find(facts.name, folder, split, fold)
    if listing is None:
        places = ", ".join(video_layouts.FOLDERS[facts.name])
        raise DatasetError(
            f"{facts.name} was not found: looked in {folder}, a folder {places} with "
            f"{video_layouts.THERE[facts.name]}. Nothing is downloaded: get it from {facts.source}, unpack it there, "
            "or say where it is: --data-dir FOLDER, $AIP_DATA, or the path itself."
        )
    names = class_names or facts.names
    if names is not None:
        return video_layouts.in_order_of(listing, names)
    if listing.labels is not None and len(listing.class_names or ()) != facts.classes:
        raise DatasetError(
            f"{listing.root} is not {facts.name}: it has {len(listing.class_names or ())} classes; expected "
            f"{facts.classes}. Give the path itself for a part of it, or class_names."
        )
    return listing
