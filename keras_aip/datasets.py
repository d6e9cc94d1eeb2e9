"""Labelled images as `tf.data`: for training a teacher, and for measuring."""

from __future__ import annotations

import functools
import logging
import os
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf

from bridge import datasets
from bridge.batches import padded_crops, picture_crops, slices
from bridge.datasets import FACTS, Labelled
from bridge.errors import DatasetError
from bridge.pictures import Pictures
from keras_aip import compat
from keras_aip.stream import PARALLEL, ahead

__all__ = ["FACTS", "Labelled", "batches", "from_tfds", "load", "training_batches"]


def load(
    name_or_path: str | os.PathLike[str],
    split: str = "test",
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    lazy: bool | None = None,
) -> Labelled:
    """Load an evaluation set, as `bridge.datasets.load` does; CIFAR that is in no file comes from TensorFlow Datasets.

    Raises:
        DatasetError: the set is unknown, missing, damaged or not of the kind described there.
    """
    fetch = functools.partial(from_tfds, data_dir=data_dir)
    return datasets.load(name_or_path, split, image_size, class_names, data_dir, lazy, fetch)


def from_tfds(name: str, part: str, data_dir: str | os.PathLike[str] | None = None) -> Labelled:
    """A whole part of a data set from TensorFlow Datasets, downloaded and prepared the first time.

    Prepared data are looked for in our data folder, as ``cifar10/3.0.2``, then in ``$TFDS_DATA_DIR`` or where
    TensorFlow Datasets keeps them by default.

    Args:
        name: as TensorFlow Datasets calls it, which is also a key of ``FACTS``.
        part: ``train`` or ``test``.
        data_dir: the data folder; None: ``$AIP_DATA``, or ``./data``.

    Returns:
        Images and labels in the order of the authors' files.

    Raises:
        DatasetError: the data are not there and cannot be downloaded, or are damaged.
    """
    ours = datasets.data_folder(data_dir)
    is_ours = any((ours / name).glob("*/dataset_info.json"))
    kept = str(ours) if is_ours else os.environ.get("TFDS_DATA_DIR")
    try:
        import tensorflow_datasets as tfds

        logging.getLogger("absl").setLevel(logging.ERROR)  # its remarks on folders it does not need
        builder: Any = tfds.builder(name, data_dir=kept)
        if not builder.is_prepared():
            _require_network(FACTS[name].source)
            builder.download_and_prepare()
        examples = builder.as_dataset(split=part, shuffle_files=False).batch(1000)
        batched = list(examples.prefetch(2).as_numpy_iterator())
        ids, images, labels = (np.concatenate([b[key] for b in batched]) for key in ("id", "image", "label"))
    except DatasetError:
        raise
    except ImportError as error:
        missing = f"; pip install {error.name}" if error.name else ""
        raise DatasetError(f"TensorFlow Datasets does not run here ({error}{missing}).") from error
    # From a missing package or a full disk to a damaged record: each layer below raises its own kind.
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise DatasetError(f"TensorFlow Datasets could not give it: {type(error).__name__}: {first}.") from error
    # Its records are shuffled; the ids count the images of the authors' files.
    order = np.argsort(ids, kind="stable")
    return Labelled(images[order], labels[order].astype(np.int64), FACTS[name].names, f"{name} (TFDS)")


def _require_network(page: str) -> None:
    """Find out in seconds whether a download can begin; TensorFlow Datasets tries again for minutes."""
    host = urlsplit(page).hostname or ""
    if urllib.request.getproxies():  # then this machine need not reach the host itself
        return
    try:
        socket.create_connection((host, 443), timeout=10).close()
    except OSError as error:
        raise DatasetError(
            f"TensorFlow Datasets has not prepared it, and to download it {host} cannot be reached ({error})."
        ) from error


def batches(images: np.ndarray | Pictures, batch_size: int) -> Iterator[np.ndarray]:
    """uint8 [n, h, w, 3] → float32 [≤ batch_size, h, w, 3] in [0, 1], in order; what takes long shows a bar."""
    for rows in slices(len(images), batch_size):
        yield images[rows].astype(np.float32) / 255


def training_batches(
    labelled: Labelled, batch_size: int, *, pad: int = 4, flip: bool = True, cutout: int = 16, seed: int = 0
) -> tf.data.Dataset:
    """An endless, reproducible stream of augmented training batches.

    The paper's teachers saw flips, pad-4 crops and a 16 × 16 cutout (reference code). From `Pictures` come flips and
    crops of the picture in full size as torchvision's RandomResizedCrop draws them; pad and cutout do not apply there.
    Every sample's augmentation is drawn from its number, as for views; remainders are carried over epoch borders.

    Args:
        labelled: with labels.
        batch_size: images per step.
        pad: pixels of border before the random crop.
        flip: mirror half of the images.
        cutout: side of the blackened square in pixels, even; 0 for none.
        seed: of order and augmentation.

    Returns:
        `tf.data.Dataset` of (float32 [batch, h, w, 3] in [0, 1], int64 [batch]).
    """
    images, labels = labelled.images, labelled.labels
    assert labels is not None
    height, width = images.shape[1:3]
    rows, side = np.arange(batch_size), 0 if isinstance(images, Pictures) else cutout

    def draw(step: np.int64) -> tuple[np.ndarray, ...]:
        if isinstance(images, Pictures):
            crops, picked = picture_crops(images, step * batch_size + rows, flip=flip, seed=seed)
            return crops, labels[picked].astype(np.int64), np.zeros((batch_size, 2), np.int32)
        crops, picked, centre = padded_crops(images, step * batch_size + rows, pad=pad, flip=flip, seed=seed)
        return crops, labels[picked].astype(np.int64), centre

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        views, classes, centre = tf.numpy_function(draw, [step], [tf.uint8, tf.int64, tf.int32], stateful=False)
        views.set_shape([batch_size, height, width, 3])
        classes.set_shape([batch_size])
        centre.set_shape([batch_size, 2])
        pixels = tf.cast(views, tf.float32) / 255
        return (compat.cutout(pixels, side, centre) if side else pixels), classes

    return ahead(tf.data.Dataset.counter().map(batch, num_parallel_calls=PARALLEL))
