"""What measuring a network does without a framework, the same for images and for videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from bridge.clips import LabelledVideos, readable_videos
from bridge.datasets import check_classes, readable_rows
from bridge.errors import DatasetError
from bridge.facts import FACTS, VIDEO_FACTS, Labelled
from bridge.metrics import evaluate_logits

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


def check_kind(data: Labelled | LabelledVideos, who: str, input_size: Sequence[int | None] | None) -> None:
    """Refuse images for a network that takes clips, and the reverse.

    Args:
        data: to measure it on.
        who: is measured.
        input_size: of the network, as far as it is known.

    Raises:
        DatasetError: naming both sides.
    """
    videos, sides = isinstance(data, LabelledVideos), len(input_size or ())
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


def rows_at_once(batch_size: int, shape: Sequence[int]) -> int:
    """How many samples go through a network together: as many as asked for, fewer of clips that would fill the memory.

    Args:
        batch_size: asked for.
        shape: of the pixels of all samples, [n, (frames,) height, width, 3].
    """
    return batch_size if len(shape) == 4 else max(1, min(batch_size, _PIXELS // int(np.prod(shape[1:-1]))))


def usable_rows(data: Labelled | LabelledVideos, stacklevel: int = 2) -> np.ndarray:
    """The images or videos that count, as `readable_rows` and `readable_videos` say."""
    if isinstance(data, LabelledVideos):
        return readable_videos(data, stacklevel + 1)
    return readable_rows(data, stacklevel + 1)


def scored(
    data: Labelled | LabelledVideos, answers: np.ndarray, teacher_answers: np.ndarray | None = None
) -> dict[str, Any]:
    """What `evaluate` gives, out of the answers on all images or videos of a set.

    What could not be decoded is left out, with a warning.

    Args:
        data: all of whose pixels have been asked for.
        answers: of the model, in log space [n, classes].
        teacher_answers: likewise.

    Raises:
        DatasetError: nothing could be decoded.
        TeacherError: classes differ, or answers are not finite.
    """
    data = check_classes(data, answers.shape[1])
    rows = usable_rows(data, 3)
    labels = None if data.labels is None else data.labels[rows]
    figures = evaluate_logits(answers[rows], labels, None if teacher_answers is None else teacher_answers[rows])
    return {**figures, "dataset": data.name, "n": len(rows)}
