"""Labelled images, videos and sounds as tensors: for training a teacher, and for measuring."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from bridge import audio_sets, datasets
from bridge.audio_facts import AUDIO_FACTS
from bridge.batches import cut_out, padded_crops, picture_crops, slices
from bridge.clip_batches import RandomClips
from bridge.clips import LabelledVideos, load_video
from bridge.datasets import FACTS, Labelled
from bridge.errors import DatasetError
from bridge.pictures import Pictures
from bridge.sounds import LabelledSounds
from torch_aip.stream import Ahead, ahead

__all__ = [
    "AUDIO_FACTS",
    "FACTS",
    "Labelled",
    "LabelledSounds",
    "LabelledVideos",
    "batches",
    "load",
    "load_audio",
    "load_video",
    "training_batches",
]


def load(
    name_or_path: str | os.PathLike[str],
    split: str = "test",
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    lazy: bool | None = None,
) -> Labelled:
    """Load an evaluation set, as `bridge.datasets.load` does.

    Raises:
        DatasetError: the set is unknown, missing, damaged or not of the kind described there.
    """
    return datasets.load(name_or_path, split, image_size, class_names, data_dir, lazy)


def load_audio(
    name_or_path: str | os.PathLike[str],
    split: str = "test",
    *,
    rate: int = 16_000,
    seconds: float = 1.0,
    class_names: Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    lazy: bool | None = None,
) -> LabelledSounds:
    """Load an evaluation set of sounds, as `bridge.audio_sets.load_audio` does.

    Raises:
        DatasetError: the set is unknown, missing, damaged or not of the kind described there.
    """
    return audio_sets.load_audio(
        name_or_path, split, rate=rate, seconds=seconds, class_names=class_names, data_dir=data_dir, lazy=lazy
    )


def batches(images: np.ndarray | Pictures, batch_size: int) -> Iterator[Tensor]:
    """uint8 [n, h, w, 3] → float32 [≤ batch_size, 3, h, w] in [0, 1], in order; what takes long shows a bar."""
    for rows in slices(len(images), batch_size):
        yield _floats(images[rows])


def training_batches(
    labelled: Labelled | LabelledVideos,
    batch_size: int,
    *,
    pad: int = 4,
    flip: bool = True,
    cutout: int = 16,
    seed: int = 0,
) -> Ahead[tuple[Tensor, Tensor]]:
    """An endless, reproducible stream of augmented training batches, two of them ready ahead.

    Images in memory get what the paper's teachers saw: flips, pad-4 crops and a 16 × 16 cutout (reference code), the
    same as `keras_aip.datasets.training_batches` draws. From `Pictures`, decoded by several threads, come flips and
    crops of the picture in full size as torchvision's RandomResizedCrop draws them; from videos random clips as
    `RandomClips` draws them, and small sets are decoded once; pad and cutout do not apply to either. Every sample's
    augmentation follows from its number, as for views; remainders are carried over epoch borders. In place of a picture
    or video that cannot be decoded comes the next one in the set that can, with a warning.

    Args:
        labelled: with labels.
        batch_size: images or clips per step.
        pad: pixels of border before the random crop.
        flip: mirror half of the images.
        cutout: side of the blackened square in pixels, even; 0 for none.
        seed: of order and augmentation.

    Returns:
        Iterator of (float32 [batch, 3, (frames,) h, w] in [0, 1], channels last in memory; int64 [batch]), pinned where
        there is CUDA. It raises a DatasetError if nothing can be decoded.
    """
    labels, rows = labelled.labels, np.arange(batch_size)
    if labels is None:
        raise DatasetError(f"{labelled.name} has no labels: expected one folder per class to train on.")

    if isinstance(labelled, LabelledVideos):
        images = RandomClips(labelled.clips, flip=flip, seed=seed)
    else:
        images = labelled.images

    def draw(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(images, RandomClips):
            return images.draw(numbers)
        if isinstance(images, Pictures):
            return picture_crops(images, numbers, flip=flip, seed=seed)
        crops, picked, centre = padded_crops(images, numbers, pad=pad, flip=flip, seed=seed)
        cut_out(crops, cutout, centre)
        return crops, picked

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        for step in itertools.count():
            crops, picked = draw(step * batch_size + rows)
            yield _pinned(_floats(crops)), _pinned(torch.from_numpy(labels[picked].astype(np.int64)))

    return ahead(stream())


def _floats(pixels: np.ndarray) -> Tensor:
    # Moved only in name: the channels stay last in memory, which convolutions like.
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, 1).float() / 255


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory() if torch.cuda.is_available() else tensor
