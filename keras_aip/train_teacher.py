"""The `train-teacher` command: ordinary supervised training, then a teacher folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from bridge.config import TrainTeacherConfig
from bridge.datasets import FACTS, Labelled, load
from bridge.errors import ConfigError, DatasetError
from keras_aip import models
from keras_aip.datasets import training_batches
from keras_aip.evaluate import evaluate
from keras_aip.optimizers import make_optimizer
from keras_aip.run import ShowProgress, set_up
from keras_aip.teachers import save_teacher


def train_teacher(config: TrainTeacherConfig) -> dict[str, Any]:
    """Train a teacher and write its folder.

    Args:
        config: resolved options.

    Returns:
        The measurements of `evaluate` on the test split.

    Raises:
        AipError: of the kind that names what is wrong.
    """
    if config.cutout % 2:
        raise ConfigError(f"--cutout (={config.cutout}) must be even.")
    folder = Path(config.out)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; choose another --out or remove it.")
    set_up(config.threads, config.seed)
    train, test = (_split(config, split) for split in ("train", "test"))
    if train.labels is None or test.labels is None or train.class_names is None:
        raise DatasetError(f"{config.dataset} has no labels; a teacher needs one folder per class.")
    facts = FACTS.get(config.dataset)
    mean, std = _statistics(config, train)
    further: dict[str, Any] = {} if config.width is None else {"width": config.width}
    model: Any = models.build(
        config.architecture, classes=len(train.class_names), image_size=config.image_size,
        mean=mean, std=std, l2=config.l2,
        **further,
    )  # fmt: skip
    steps = max(1, round(len(train.images) / config.batch_size))
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
    measured = evaluate(model, test)
    save_teacher(
        model, folder, class_names=train.class_names,
        accuracy={"top1": measured["student_top1"], "dataset": test.name, "n": measured["n"]},
        source=f"trained on {train.name} ({len(train.images):,} images, {config.epochs} epochs, seed {config.seed})",
        licence=facts.licence if facts else "",
    )  # fmt: skip
    print(
        f"Teacher {config.architecture}: {measured['student_top1']:.2%} of {measured['n']:,} test images right. "
        f"Written to {folder}."
    )
    return measured


def _statistics(config: TrainTeacherConfig, train: Labelled) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of pixels in [0, 1]."""
    if config.normalise == "half":
        return [0.5] * 3, [0.5] * 3
    if config.dataset in FACTS:
        return list(FACTS[config.dataset].mean), list(FACTS[config.dataset].std)
    pixels = train.images.reshape(-1, 3) / 255
    return [float(m) for m in pixels.mean(0)], [max(float(s), 1e-3) for s in pixels.std(0)]


def _split(config: TrainTeacherConfig, split: str) -> Labelled:
    """A split by name, or the sub-folder of a folder."""
    path = Path(config.dataset)
    if config.dataset in FACTS or not path.is_dir():
        return load(config.dataset, split=split, image_size=config.image_size)
    if not (path / split).is_dir():
        raise DatasetError(
            f"{path} has no folder {split!r}; to train a teacher it must hold train/ and test/, each with one folder "
            "per class."
        )
    return load(str(path / split), image_size=config.image_size)
