"""Labelled images and sounds as `tf.data`: for training a teacher, and for measuring."""

from __future__ import annotations

import contextlib
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

from bridge import audio_sets, datasets
from bridge.audio_facts import AUDIO_FACTS, AudioFacts
from bridge.batches import padded_crops, picture_crops, slices
from bridge.datasets import FACTS, Labelled
from bridge.datum.masks import Masks, mask_numbers
from bridge.errors import DatasetError
from bridge.pictures import Pictures
from bridge.sound_batches import RandomSounds
from bridge.sounds import LabelledSounds, Sounds, floats
from keras_aip import compat
from keras_aip.stream import PARALLEL, ahead

__all__ = [
    "AUDIO_FACTS",
    "FACTS",
    "Labelled",
    "LabelledSounds",
    "batches",
    "from_tfds",
    "load",
    "load_audio",
    "sound_training_batches",
    "sounds_from_tfds",
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
    """Load an evaluation set, as `bridge.datasets.load` does; CIFAR that is in no file comes from TensorFlow Datasets.

    Raises:
        DatasetError: the set is unknown, missing, damaged or not of the kind described there.
    """
    fetch = functools.partial(from_tfds, data_dir=data_dir)
    return datasets.load(name_or_path, split, image_size, class_names, data_dir, lazy, fetch)


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

    Speech Commands that is in no folder comes from TensorFlow Datasets, if prepared there.

    Raises:
        DatasetError: the set is unknown, missing, damaged or not of the kind described there.
    """
    return audio_sets.load_audio(
        name_or_path,
        split,
        rate=rate,
        seconds=seconds,
        class_names=class_names,
        data_dir=data_dir,
        lazy=lazy,
        fetch=functools.partial(sounds_from_tfds, data_dir=data_dir) if rate == 16_000 else None,
    )


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
    with _tfds_explained():
        builder = _tfds_builder(name, data_dir)
        if not builder.is_prepared():
            _require_network(FACTS[name].source)
            builder.download_and_prepare()
        examples = builder.as_dataset(split=part, shuffle_files=False).batch(1000)
        batched = list(examples.prefetch(2).as_numpy_iterator())
        ids, images, labels = (np.concatenate([b[key] for b in batched]) for key in ("id", "image", "label"))
    # Its records are shuffled; the ids count the images of the authors' files.
    order = np.argsort(ids, kind="stable")
    return Labelled(images[order], labels[order].astype(np.int64), FACTS[name].names, f"{name} (TFDS)")


def sounds_from_tfds(
    facts: AudioFacts, split: str, samples: int, data_dir: str | os.PathLike[str] | None = None
) -> LabelledSounds:
    """A split of Speech Commands from TensorFlow Datasets, where it is prepared already.

    It is not downloaded: that takes 2.4 GB, and pydub to prepare it. Looked for as by :func:`from_tfds`.

    Args:
        facts: of the set; only "speech_commands" is there, with twelve classes.
        split: ``train``, ``validation`` or ``test``.
        samples: of a sound, at 16 kHz; longer ones are cut, to shorter ones silence is added at the end.
        data_dir: the data folder; None: ``$AIP_DATA``, or ``./data``.

    Returns:
        Sounds in the order of its records, with its own order of classes.

    Raises:
        DatasetError: the data are not there, or damaged.
    """
    if facts.name != "speech_commands":
        raise DatasetError("TensorFlow Datasets has not got it in this form.")
    with _tfds_explained():
        builder = _tfds_builder(facts.name, data_dir)
        if not builder.is_prepared():
            raise DatasetError(
                "TensorFlow Datasets has not prepared it, which `tfds build speech_commands` does (2.4 GB, pip install "
                "pydub)."
            )
        waveforms = np.zeros((builder.info.splits[split].num_examples, samples), np.int16)
        labels = np.zeros(len(waveforms), np.int64)
        for row, example in enumerate(builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator()):
            sound = example["audio"][:samples]
            waveforms[row, : len(sound)], labels[row] = sound, example["label"]
        names = [str(name) for name in builder.info.features["label"].names]
    return LabelledSounds(waveforms, labels, names, f"{facts.name} (TFDS)", len(names))


def _tfds_builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """What TensorFlow Datasets reads a set with: from our data folder if it is prepared there."""
    import tensorflow_datasets as tfds

    logging.getLogger("absl").setLevel(logging.ERROR)  # its remarks on folders it does not need
    ours = datasets.data_folder(data_dir)
    is_ours = any((ours / name).glob("*/dataset_info.json"))
    return tfds.builder(name, data_dir=str(ours) if is_ours else os.environ.get("TFDS_DATA_DIR"))


@contextlib.contextmanager
def _tfds_explained() -> Iterator[None]:
    """Whatever TensorFlow Datasets raises inside becomes a DatasetError."""
    try:
        yield
    except DatasetError:
        raise
    except ImportError as error:
        missing = f"; pip install {error.name}" if error.name else ""
        raise DatasetError(f"TensorFlow Datasets does not run here ({error}{missing}).") from error
    # From a missing package or a full disk to a damaged record: each layer below raises its own kind.
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise DatasetError(f"TensorFlow Datasets could not give it: {type(error).__name__}: {first}.") from error


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


def batches(images: np.ndarray | Pictures | Sounds, batch_size: int) -> Iterator[np.ndarray]:
    """What networks take, in order; what takes long shows a bar.

    Args:
        images: uint8 [n, h, w, 3]; or sounds, int16 [n, samples].
        batch_size: how many at most.

    Returns:
        Batches of float32 [≤ batch_size, h, w, 3] in [0, 1], or of sounds [≤ batch_size, samples] in [-1, 1].
    """
    sounds = images.dtype == np.int16
    for rows in slices(len(images), batch_size, unit="sounds" if sounds else "images"):
        yield floats(images[rows]) if sounds else images[rows].astype(np.float32) / 255


def training_batches(
    labelled: Labelled | LabelledSounds,
    batch_size: int,
    *,
    pad: int = 4,
    flip: bool = True,
    cutout: int = 16,
    seed: int = 0,
) -> tf.data.Dataset:
    """An endless, reproducible stream of augmented training batches.

    The paper's teachers saw flips, pad-4 crops and a 16 × 16 cutout (reference code). From `Pictures` come flips and
    crops of the picture in full size as torchvision's RandomResizedCrop draws them; pad and cutout do not apply there,
    and none of the three to sounds, which come as `sound_training_batches` draws them. Every sample's augmentation is
    drawn from its number, as for views; remainders are carried over epoch borders.

    Args:
        labelled: with labels.
        batch_size: images or sounds per step.
        pad: pixels of border before the random crop.
        flip: mirror half of the images.
        cutout: side of the blackened square in pixels, even; 0 for none.
        seed: of order and augmentation.

    Returns:
        `tf.data.Dataset` of (float32 [batch, h, w, 3] in [0, 1], int64 [batch]), or as `sound_training_batches`.
    """
    if isinstance(labelled, LabelledSounds):
        return sound_training_batches(labelled, batch_size, seed=seed)
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


def sound_training_batches(
    labelled: LabelledSounds,
    batch_size: int,
    *,
    shift: float = 0.1,
    noisy: float = 0.8,
    loudness: float = 0.1,
    noise: np.ndarray | None = None,
    masks: Masks | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """An endless, reproducible stream of sounds, shifted and with noise behind them, as `RandomSounds` draws them.

    Args:
        labelled: with labels.
        batch_size: sounds per step.
        shift, noisy, loudness, noise, seed: as of `RandomSounds`.
        masks: to be drawn over the spectrograms, by what takes the sounds; None: none.

    Returns:
        `tf.data.Dataset` of (float32 [batch, samples] in [-1, 1], int64 [batch]); with masks of ((these sounds, the two
        arrays of `MaskNumbers`), labels), as `keras_aip.spectrograms.Masked` takes them.

    Raises:
        DatasetError: there are no labels, or an option makes no sense.
    """
    sounds = RandomSounds(labelled, shift=shift, noisy=noisy, loudness=loudness, noise=noise, seed=seed)
    rows = np.arange(batch_size)

    def draw(step: np.int64) -> tuple[np.ndarray, ...]:
        drawn = sounds.draw(step * batch_size + rows)
        return drawn if masks is None else (*drawn, *mask_numbers(masks, seed, int(step), batch_size))

    def batch(step: tf.Tensor) -> tuple[Any, tf.Tensor]:
        kinds = [tf.float32, tf.int64] + ([] if masks is None else [tf.float32, tf.float32])
        waves, classes, *numbers = tf.numpy_function(draw, [step], kinds, stateful=False)
        waves.set_shape([batch_size, labelled.waveforms.shape[1]])
        classes.set_shape([batch_size])
        for edges in numbers:
            edges.set_shape([batch_size, masks.count if masks else 0, 2])
        return ((waves, *numbers) if numbers else waves), classes

    return ahead(tf.data.Dataset.counter().map(batch, num_parallel_calls=PARALLEL))
