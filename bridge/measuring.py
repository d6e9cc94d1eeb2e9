"""What measuring a network does without a framework, the same for images, videos and sounds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bridge.audio_facts import AUDIO_FACTS
from bridge.clips import LabelledVideos, readable_videos, thinned_videos
from bridge.datasets import check_classes, readable_rows, thinned
from bridge.errors import DatasetError
from bridge.facts import FACTS, VIDEO_FACTS, Labelled
from bridge.metrics import evaluate_logits
from bridge.sounds import LabelledSounds, readable_sounds, thinned_sounds

AnyData = Labelled | LabelledVideos | LabelledSounds
# Of one forward pass: 256 images of 224 pixels, 125 clips of 4 x 160 x 160 pixels, 16 of 16 x 224 x 224. Ours.
_PIXELS = 256 * 224**2


def takes_clips(dataset: str | os.PathLike[str], input_size: Sequence[int | None] | None) -> bool:
    """Whether a network of that size is measured on videos.

    Args:
        dataset: a name or a path.
        input_size: of the network: (frames, height, width) of clips; anything else is no network for video.

    Raises:
        DatasetError: it is the name of a set of the other kind, or frames are not square.
    """
    size = list(input_size or ())
    of_clips = len(size) == 3
    if of_clips and size[1] != size[2]:
        raise DatasetError(f"the network takes clips of {size}, and videos are cut into squares.")
    if of_clips and dataset in FACTS:
        raise DatasetError(
            f"{dataset} is a set of images, and the network takes clips of {size[0]} frames: give videos, such as "
            f"{', '.join(VIDEO_FACTS)}, a folder with a folder per class, or a list."
        )
    if not of_clips and dataset in VIDEO_FACTS:
        what = "takes images" if size else "does not say what it takes: load the videos, and give them"
        raise DatasetError(f"{dataset} is a set of videos, and the network {what}.")
    return of_clips


def takes_sounds(dataset: str | os.PathLike[str], input_size: Sequence[int | None] | None) -> bool:
    """Whether a network of that size is measured on sounds.

    Args:
        dataset: a name or a path.
        input_size: of the network: (samples,) of sounds; anything else is no network for sound.

    Raises:
        DatasetError: it is the name of a set of another kind.
    """
    of_sounds = len(input_size or ()) == 1
    if of_sounds and (dataset in FACTS or dataset in VIDEO_FACTS):
        what = "images" if dataset in FACTS else "videos"
        raise DatasetError(
            f"{dataset} is a set of {what}, and the network takes sounds: give sounds, such as "
            f"{', '.join(AUDIO_FACTS)}, a folder with a folder per class, or an .npz."
        )
    if not of_sounds and dataset in AUDIO_FACTS:
        what = "takes no sounds" if input_size else "does not say what it takes: load the sounds, and give them"
        raise DatasetError(f"{dataset} is a set of sounds, and the network {what}.")
    return of_sounds


def check_kind(data: AnyData, who: str, input_size: Sequence[int | None] | None) -> None:
    """Refuse images for a network that takes clips or sounds, and the reverse.

    Args:
        data: to measure it on.
        who: is measured.
        input_size: of the network, as far as it is known.

    Raises:
        DatasetError: naming both sides.
    """
    videos, sides = isinstance(data, LabelledVideos), len(input_size or ())
    sounds = isinstance(data, LabelledSounds)
    if sides and sounds != (sides == 1):
        holds = "sounds" if sounds else "videos" if videos else "images"
        takes = "sounds" if sides == 1 else f"inputs of {list(input_size or ())}"
        raise DatasetError(f"{data.name} holds {holds}, and the {who} takes {takes}: measure it on such.")
    if sides == 3 and not videos:
        raise DatasetError(
            f"{data.name} holds images, and the {who} takes clips of {list(input_size or ())} (frames, height, width): "
            "measure it on videos, with torch_aip."
        )
    if sides == 2 and videos:
        raise DatasetError(
            f"{data.name} holds videos, and the {who} takes images of {list(input_size or ())} pixels: measure it on "
            "images."
        )


def samples_of(data: AnyData) -> Any:
    """The images, clips or waveforms of a set, as networks are asked about them."""
    if isinstance(data, LabelledVideos):
        return data.clips
    return data.waveforms if isinstance(data, LabelledSounds) else data.images


def at_most(data: AnyData, count: int, videos: int | None = None) -> tuple[AnyData, np.ndarray]:
    """At most so many of the images, videos or sounds, evenly spaced, and which they are; none is decoded.

    Args:
        data: all of them.
        count: of images and sounds.
        videos: the same of videos; None: as many.
    """
    if isinstance(data, LabelledVideos):
        total, count = len(data.clips.files), count if videos is None else videos
    else:
        total = len(samples_of(data))
    if isinstance(data, LabelledSounds):
        fewer: AnyData = thinned_sounds(data, count)
    else:
        fewer = thinned_videos(data, count) if isinstance(data, LabelledVideos) else thinned(data, count)
    return fewer, np.linspace(0, total - 1, min(total, count)).astype(np.int64)


def rows_at_once(batch_size: int, shape: Sequence[int]) -> int:
    """How many samples go through a network together: as many as asked for, fewer of clips that would fill the memory.

    Args:
        batch_size: asked for.
        shape: of all samples, [n, (frames,) height, width, 3] or [n, samples].
    """
    return batch_size if len(shape) in (2, 4) else max(1, min(batch_size, _PIXELS // int(np.prod(shape[1:-1]))))


def usable_rows(data: AnyData, stacklevel: int = 2) -> np.ndarray:
    """The images, videos or sounds that count, as `readable_rows`, `readable_videos` and `readable_sounds` say."""
    if isinstance(data, LabelledSounds):
        return readable_sounds(data, stacklevel + 1)
    if isinstance(data, LabelledVideos):
        return readable_videos(data, stacklevel + 1)
    return readable_rows(data, stacklevel + 1)


def scored(
    data: AnyData, answers: np.ndarray, teacher_answers: np.ndarray | None = None, *, teacher_labels: bool = False
) -> dict[str, Any]:
    """What `evaluate` gives, out of the answers on all images, videos or sounds of a set.

    What could not be decoded is left out, with a warning.

    Args:
        data: all of whose pixels or samples have been asked for.
        answers: of the model, in log space [n, classes].
        teacher_answers: likewise.
        teacher_labels: they name a class and nothing else, so that there are neither further guesses nor a KL.

    Raises:
        DatasetError: nothing could be decoded.
        TeacherError: classes differ, or answers are not finite.
    """
    data = check_classes(data, answers.shape[1])
    rows = usable_rows(data, 3)
    labels = None if data.labels is None else data.labels[rows]
    figures = evaluate_logits(answers[rows], labels, None if teacher_answers is None else teacher_answers[rows])
    if teacher_labels:
        figures |= {"teacher_top5": None, "kl": None}
    return {**figures, "dataset": data.name, "n": len(rows)}
