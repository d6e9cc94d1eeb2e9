"""The `train-teacher` command: ordinary supervised training, then a teacher folder."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bridge.config import TrainTeacherConfig
from bridge.datasets import splits_of, thinned
from bridge.errors import ConfigError, DatasetError
from bridge.teachers.shelf import folder_for
from keras_aip import models
from keras_aip.datasets import FACTS, Labelled, load, training_batches
from keras_aip.evaluate import evaluate
from keras_aip.optimizers import make_optimizer
from keras_aip.run import ShowProgress, set_up
from keras_aip.teachers import save_teacher


def train_teacher(config: TrainTeacherConfig) -> dict[str, Any]:
    """Train a teacher and write its folder.

    Args:
        config: resolved options.

    Returns:
        The measurements of `evaluate` on what was held out: the validation split, or with `hold_out` off the test.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    if config.cutout % 2:
        raise ConfigError(f"--cutout (={config.cutout}) must be even.")
    folder = folder_for(config.dataset, config.architecture) if config.out is None else Path(config.out)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty; choose another --out or remove it.")
    try:  # now, not after the training
        folder.absolute().parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder.absolute().parent).close()
    except OSError as error:
        raise ConfigError(f"Cannot write {folder}: {error.strerror}. Choose another --out.") from error
    set_up(config.threads, config.seed)
    train, test = _data(config)
    assert train.labels is not None and test.labels is not None
    classes = len(train.class_names or ()) or int(max(train.labels.max(), test.labels.max())) + 1
    facts = FACTS.get(config.dataset)
    mean, std = _statistics(config, train)
    further: dict[str, Any] = {} if config.width is None else {"width": config.width}
    model: Any = models.build(
        config.architecture, classes=classes, image_size=config.image_size, mean=mean, std=std, l2=config.l2,
        **further,
    )  # fmt: skip
    steps = config.steps_per_epoch or max(1, round(len(train.images) / config.batch_size))
    model.compile(
        make_optimizer(
            "adamw", config.learning_rate, weight_decay=config.weight_decay, schedule="cosine",
            steps=config.epochs * steps, warmup=0.1,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )  # fmt: skip
    data = training_batches(
        train, config.batch_size, pad=config.pad, flip=config.flip, cutout=config.cutout, seed=config.seed
    )
    progress = ShowProgress("training the teacher", config.epochs, steps, config.batch_size)
    try:
        model.fit(data, epochs=config.epochs, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[progress])
    finally:
        progress.close()
    measured = evaluate(model, thinned(test, 256) if config.smoke else test)
    save_teacher(
        model, folder, class_names=train.class_names,
        accuracy={"top1": measured["student_top1"], "dataset": test.name, "n": measured["n"]},
        source=f"trained on {train.name} ({len(train.images):,} images, {config.epochs} epochs, seed {config.seed})",
        licence=facts.licence if facts else "",
    )  # fmt: skip
    print(
        f"Teacher {config.architecture}: {measured['student_top1']:.2%} of {measured['n']:,} held-out images right. "
        f"Written to {folder}."
    )
    return measured


def _statistics(config: TrainTeacherConfig, train: Labelled) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of pixels in [0, 1]."""
    if config.normalise == "half":
        return [0.5] * 3, [0.5] * 3
    if config.dataset in FACTS:
        return list(FACTS[config.dataset].mean), list(FACTS[config.dataset].std)
    values = np.arange(256) / 255
    # by histogram: floats of all images at once could fill the memory
    shares = [np.bincount(train.images[..., c].ravel(), minlength=256) / train.images[..., c].size for c in range(3)]
    means = [float(share @ values) for share in shares]
    spreads = [float(np.sqrt(share @ (values - mean) ** 2)) for share, mean in zip(shares, means)]
    return means, [max(spread, 1e-3) for spread in spreads]


def _data(config: TrainTeacherConfig) -> tuple[Labelled, Labelled]:
    """What to learn from and what to measure on."""
    path = Path(config.dataset)
    if splits := splits_of(config.dataset):
        where = {name: (config.dataset, name) for name in splits}
    elif not path.is_dir():
        load(config.dataset)  # says what is wrong with it
        raise DatasetError(
            f"{config.dataset} is one set; a teacher needs train and test: x_train …, or a folder of both."
        )
    else:
        where = {name: (str(path / name), name) for name in ("train", "validation", "test") if (path / name).is_dir()}
        if (path / "val").is_dir():
            where["validation"] = (str(path / "val"), "validation")
        if not {"train", "test"} <= set(where):
            raise DatasetError(
                f"{path} must hold train/ and test/ (and may hold validation/), each with one folder per class."
            )
    held_out = "validation" if "validation" in where and config.hold_out else "test"
    learned = [name for name in ("train", "validation") if name in where and name != held_out]

    def split(name: str) -> Labelled:
        source, part = where[name]
        return load(source, split=part, image_size=config.image_size, data_dir=config.data_dir)

    parts, test = [split(name) for name in learned], split(held_out)
    train = parts[0]
    for part in (*parts, test):
        if part.class_names != train.class_names or part.labels is None:
            raise DatasetError(
                f"{config.dataset}: every split needs the same class folders; train has {train.class_names}, another "
                f"{part.class_names}."
            )
    images, labels = (np.concatenate([getattr(p, name) for p in parts]) for name in ("images", "labels"))
    return dataclasses.replace(train, images=images, labels=labels), test
